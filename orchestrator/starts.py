"""`initialize_from` in an experiment file: each checkpoint is found and named by its digest before anything starts."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hrm.checkpoint import DamagedCheckpointError, open_checkpoint, read_manifest, weights_sha256
from hrm.data.dataset import open_dataset
from hrm.errors import Problem, SpecError
from hrm.start import misfits, unlike

if TYPE_CHECKING:
    from orchestrator.experiment import Arm, ExperimentSpec

FIELD = "initialize_from"
_WAY_OUT = "Give the folder of a checkpoint; `checkpoint import` makes one of an original state dict"


def identified(data: dict[str, Any], place: str) -> tuple[dict[str, Any], list[Problem]]:
    """The file's data with the digest of every checkpoint to start from, and what is wrong with these.

    A path alone stands for `{path: ...}`; it is made absolute. What is wrong is left out, so that the rest is checked.
    """
    data, problems = copy.deepcopy(data), []
    for where, holder in _holders(data):
        start = {"path": holder[FIELD]} if isinstance(holder[FIELD], str) else holder[FIELD]
        if not (isinstance(start, dict) and isinstance(start.get("path"), str)):
            continue  # null, a patch of another field, or of a wrong type: the spec's own checks see to it
        path = Path(start["path"]).expanduser().absolute()
        try:
            manifest = read_manifest(path)
            digest, _ = weights_sha256(manifest), manifest["spec"]["model"]
        except (DamagedCheckpointError, KeyError, IndexError, TypeError) as error:
            rule = "is no checkpoint of ours" if path.exists() else "there is no such folder"
            problems.append(Problem(f"{place}: {where}.{FIELD}.path", f"{rule}: {start['path']} ({error})", _WAY_OUT))
            del holder[FIELD]
            continue
        if start.get("sha256", digest) != digest:
            rule = f"must be {digest}, as the checkpoint's weights are now, got {start['sha256']!r}"
            problems.append(Problem(f"{place}: {where}.{FIELD}.sha256", rule, "Leave it out, or give that checkpoint"))
        holder[FIELD] = {**start, "path": str(path), "sha256": digest}
    return data, problems


def _holders(data: dict[str, Any]) -> Iterable[tuple[str, dict[str, Any]]]:
    """The mappings of a file that say where a trial starts from, each with its place."""
    places = [("base", data.get("base"))]
    if isinstance(arms := data.get("arms"), dict):
        places += [(f"arms.{name}.patch", arm.get("patch")) for name, arm in arms.items() if isinstance(arm, dict)]
    return [(where, holder) for where, holder in places if isinstance(holder, dict) and FIELD in holder]


def unfit(spec: ExperimentSpec, arms: Iterable[Arm], place: str) -> list[Problem]:
    """What keeps arms from starting where they say, so far as their specs tell; searched starts are refused."""
    spaces = [("space", spec.space), *[(f"arms.{name}.space", arm.space) for name, arm in spec.arms.items()]]
    problems = [
        Problem(f"{place}: {where}.{field}", "a start cannot be searched", "Make an arm of each checkpoint")
        for where, space in spaces
        for field in space
        if field.split(".")[0] == FIELD
    ]
    for arm in arms:
        with contextlib.suppress(SpecError):  # what is wrong with the trial itself is said already
            trial = arm.trial({}, 0)
            if trial.initialize_from is not None:
                manifest = read_manifest(Path(trial.initialize_from.path))
                problems += unlike(trial.model, manifest, f"{place}: arms.{arm.name}: {FIELD}")
    return problems


def check_starts(arms: Iterable[Arm], data_root: Path) -> None:
    """Hold every start against its arm's model on the built data. Raises SpecError with all that does not fit."""
    problems: list[Problem] = []
    for arm in arms:
        trial = arm.trial({}, 0)
        if trial.initialize_from is not None:
            with torch.device("meta"):
                own = trial.model.build(open_dataset(trial.task, data_root).shape).state_dict()
            held = open_checkpoint(Path(trial.initialize_from.path))
            problems += misfits(trial.initialize_from, trial.model, own, held, f"arms.{arm.name}: {FIELD}")
    if problems:
        raise SpecError(*dict.fromkeys(problems))
