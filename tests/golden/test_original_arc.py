"""Held-out rows and forms of ARC are those of sapientinc/HRM's builder, by digests that it gave."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from hrm.data.dataset import Dataset, build_dataset
from hrm.spec import parse_spec
from hrm.tasks import IGNORE
from hrm.tasks.arc import ArcSpec
from tests.golden.originals import PARITY

FIXTURES = Path(__file__).parents[1] / "fixtures" / "arc" / "arc-agi-1"
HELD_OUT = {
    "arc-agi-1": (419, "31a99763b574788062e2bdaaf54af1179cdfab7e21064cf93d438c0c9321b279"),
    "arc-agi-2": (167, "decf104162b6016ac8cfb97745cf33031dc78e4bc9e68f534814e8563ce57a83"),
}
"""Rows of the test split without augmentation."""
FORMS = {
    "25ff71a9": (108, "74e7c826ce93a62c"),
    "6f8cd79b": (18, "a911123b9f4798fe"),
    "4522001f": (288, "2dd368d38ac6c341"),
    "332efdb3": (9, "db4d2db31e4a239f"),
    "6ea4a07e": (576, "e0cacc84e5cac238"),
}
"""Different test rows of a task with 2000 augmentations, which is more than it has: turned, mirrored, recoloured."""


def digest(rows: dict[str, np.ndarray]) -> tuple[int, str]:
    labels = np.where(rows["labels"] == IGNORE, 0, rows["labels"])
    pairs = np.concatenate((rows["inputs"], labels), axis=1).astype(np.uint8)
    different = sorted({pair.tobytes() for pair in pairs})
    return len(different), hashlib.sha256(b"".join(different)).hexdigest()


def held_out(dataset: Dataset) -> dict[str, np.ndarray]:
    splits = [dataset.split(name).gather(np.arange(dataset.manifest.rows[name])) for name in ("validation", "test")]
    return {name: np.concatenate([split[name] for split in splits]) for name in splits[0]}


@pytest.mark.parametrize("name", HELD_OUT)
def test_held_out_rows_are_the_originals(name: str, tmp_path: Path) -> None:
    file = PARITY.parent / "data" / name / f"{name}.json.gz"
    if not file.exists():
        pytest.skip(f"{file} is not there")
    fields = {"sources": [{"source": {"path": str(file)}}], "augmentations": 0, "allow_overlap": True}
    rows = held_out(build_dataset(parse_spec(ArcSpec, fields, "recipe"), tmp_path))
    assert len(rows["inputs"]) == HELD_OUT[name][0]
    assert digest(rows) == HELD_OUT[name]


def test_all_forms_of_a_task_are_the_originals(tmp_path: Path) -> None:
    source = {"source": {"path": str(FIXTURES)}, "held_out": "all"}
    spec = parse_spec(ArcSpec, {"sources": [source], "augmentations": 2000, "allow_overlap": True}, "recipe")
    dataset = build_dataset(spec, tmp_path)
    stored, facts = held_out(dataset), dataset.manifest.facts
    for name, (count, expected) in FORMS.items():
        own = np.flatnonzero(stored["puzzle_identifiers"] == facts["first_identifiers"][facts["tasks"].index(name)])
        forms, which = np.divmod(np.arange(2001 * len(own)), len(own))
        rows = spec.form({column: values[own[which]] for column, values in stored.items()}, forms)
        found = digest(rows)
        assert (found[0], found[1][:16]) == (count, expected)
