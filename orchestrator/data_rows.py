"""`data show`: a row of a dataset as a person reads it."""

from __future__ import annotations

import argparse
import json
import shutil
from typing import Any

import numpy as np

from hrm.data.dataset import Dataset
from hrm.errors import Problem, SpecError
from hrm.tasks import IGNORE
from orchestrator.data_names import open_named

SHOWN_VALUES = 16
"""Of a further column, `show` prints so many."""
GAP = "     "
"""Between a puzzle and its answer."""


def show(options: argparse.Namespace) -> int:
    """One row, as a person reads it."""
    dataset = open_named(options.name, options.storage)
    rows = dataset.split(options.split)
    if not 0 <= options.row < len(rows):
        rule = f"must be >= 0 and < {len(rows)}, the rows of {options.split}, got {options.row}"
        raise SpecError(Problem("--row", rule, "Give one of them"))
    columns = {name: values[0] for name, values in rows.gather(np.array([options.row])).items()}
    shown = _rendered(dataset, columns)
    further = {name: values.tolist() for name, values in columns.items() if name not in ("inputs", "labels")}
    place = {"dataset": str(dataset.directory), "split": options.split, "row": options.row, "of": len(rows)}
    if options.json:
        tokens = {name: columns[name].tolist() for name in ("inputs", "labels")}
        print(json.dumps({**place, **tokens, "columns": further, "rendered": shown}))
        return 0
    print(f"{dataset.directory}: {options.split}, row {options.row} of {len(rows):,}\n")
    print(_side_by_side(shown, shutil.get_terminal_size().columns))
    if further:
        print()
    for name, value in further.items():
        print(f"{name}: {_short(value)}")
    return 0


def _rendered(dataset: Dataset, columns: dict[str, np.ndarray]) -> dict[str, str]:
    """A puzzle and its answer; a text whose labels are its own next tokens, and what is scored of it."""
    inputs, labels, vocabulary = columns["inputs"], columns["labels"], dataset.manifest.vocabulary
    scored = labels != IGNORE
    if dataset.manifest.next_token:
        answer = {} if scored.all() else {"scored": labels[scored]}
        parts = {"text": inputs, **answer}
    else:
        parts = {"input": inputs, "answer": np.where(scored, labels, 0)}
    return {name: dataset.task.render(tokens.tolist(), vocabulary) for name, tokens in parts.items()}


def _side_by_side(parts: dict[str, str], width: int) -> str:
    """Grids beside each other where they fit; else, and a line of text, one after the other."""
    blocks = [[name, *text.splitlines()] for name, text in parts.items()]
    widths = [max(map(len, block)) for block in blocks]
    if min(map(len, blocks)) <= 2 or sum(widths) + len(GAP) * (len(blocks) - 1) > width:
        return "\n\n".join("\n".join(block) for block in blocks)
    height = max(map(len, blocks))
    padded = [
        [line.ljust(size) for line in block + [""] * (height - len(block))]
        for block, size in zip(blocks, widths, strict=True)
    ]
    return "\n".join(GAP.join(lines).rstrip() for lines in zip(*padded, strict=True))


def _short(value: Any) -> str:
    if not isinstance(value, list):
        return str(value)
    more = f" ... {len(value)} values" if len(value) > SHOWN_VALUES else ""
    return " ".join(map(str, value[:SHOWN_VALUES])) + more
