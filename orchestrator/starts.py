"""`initialize_from` in an experiment file: each checkpoint is found and named by its digest before anything starts."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from analysis.records import read_sweep_record
from hrm.checkpoint import DamagedCheckpointError, open_checkpoint, read_manifest, weights_sha256
from hrm.data.dataset import open_dataset
from hrm.errors import Problem, SpecError
from hrm.huggingface.reading import is_transformers_folder
from hrm.start import PLACES, misfits, unlike
from orchestrator.imported import imported, imported_from_hub
from orchestrator.stages import best_checkpoint, origin_of

if TYPE_CHECKING:
    from orchestrator.experiment import Arm, ExperimentSpec

FIELD = "initialize_from"
_NAMES = ("sweep", "hub")
"""Fields that name a start without its place; what they mean may change, and a sweep that goes on keeps what it was."""
_WAY_OUT = (
    "Give the folder of a checkpoint or of a Transformers model (one on the hub: hub: owner/name); `checkpoint import` "
    "makes a checkpoint of an original state dict"
)
Start = dict[str, Any]


def identified(
    data: dict[str, Any], place: str, storage: Path, began: dict[str, Any]
) -> tuple[dict[str, Any], list[Problem]]:
    """The file's data with the folder and the digest of every checkpoint to start from, and what is wrong with these.

    A path alone stands for `{path: ...}`; it is made absolute. What is wrong is left out, so that the rest is checked.
    `began`: what `begun_as` gives.
    """
    problems: list[Problem] = []
    data = copy.deepcopy(data)
    base = next((_asked(holder[FIELD]) for where, holder in _holders(data) if where == "base"), None)
    before = {where: holder[FIELD] for where, holder in _holders(began)}
    for where, holder in _holders(data):
        start = _asked(holder[FIELD])
        if start is None or not start.keys() & set(PLACES):
            continue  # null, a patch of another field, or of a wrong type: the spec's own checks see to it
        if not start.keys() & {"path", *_NAMES}:
            start = {**(base or {}), **start}  # such as another arm of the same sweep
        try:
            holder[FIELD] = _as_it_was(start, before.get(where)) or _found(start, storage, f"{place}: {where}.{FIELD}")
        except SpecError as error:
            problems += error.problems
            del holder[FIELD]
    return data, problems


def begun_as(storage: Path, name: str) -> dict[str, Any]:
    """The experiment that the sweep of this name began with; empty where there is no such sweep yet."""
    directory = storage / "sweeps" / name
    if not (directory / "sweep.json").exists():
        return {}
    return read_sweep_record(directory).experiment


def _asked(value: Any) -> Start | None:
    """What a file says of a start, if it is anything that names one."""
    start = {"path": value} if isinstance(value, str) else value
    if not isinstance(start, dict) or any(not isinstance(start.get(name, ""), str | None) for name in PLACES):
        return None
    return {name: value for name, value in start.items() if value is not None or name not in PLACES}


def _as_it_was(start: Start, before: Any) -> Start | None:
    """The start that the sweep began with, where the file still asks for it by the same names."""
    asked = {name: value for name, value in start.items() if name in PLACES}
    if "path" in asked or "sha256" in start or not isinstance(before, dict) or not before.get("path"):
        return None
    if any(before.get(name) != value for name, value in asked.items()):
        return None
    with contextlib.suppress(DamagedCheckpointError):
        if weights_sha256(read_manifest(Path(before["path"]))) == before.get("sha256"):
            return {**start, **{name: before.get(name) for name in (*PLACES, "sha256")}}
    return None


def _found(start: Start, storage: Path, place: str) -> Start:
    """The start with its folder, its digest and where it is from. Raises SpecError with what is wrong with it."""
    where = _way(start, place)
    if where == "sweep":
        found = best_checkpoint(storage, start, place)
    elif where == "hub":
        path = imported_from_hub(storage, start["hub"], start.get("revision"), f"{place}.hub")
        found = {"hub": start["hub"], "revision": start.get("revision"), "path": str(path)}
    else:
        path = _folder(start["path"], storage, f"{place}.path")
        found = {**{name: start.get(name) for name in PLACES}, **origin_of(path), "path": str(path)}
    digest = _digest(Path(found["path"]), start[where], f"{place}.{where}")
    if start.get("sha256", digest) != digest:
        rule = f"must be {digest}, as the checkpoint's weights are now, got {start['sha256']!r}"
        raise SpecError(Problem(f"{place}.sha256", rule, "Leave it out, or give that checkpoint"))
    # What an arm says is laid over what the base says: also that there is no such place.
    return {**start, **dict.fromkeys(PLACES), **found, "sha256": digest}


def _way(start: Start, place: str) -> str:
    """Which of the fields that name a start is given. Raises SpecError for none and for several."""
    given = [name for name in ("path", *_NAMES) if name in start]
    if not given:
        rule = f"path, sweep or hub must be given, got only {', '.join(start)}"
        raise SpecError(Problem(place, rule, "Give one of them"))
    if len(given) > 1 and not (given[0] == "path" and "sha256" in start):  # these: as a load has filled them in
        rule = f"one of path, sweep and hub must be given, got {', '.join(f'{name} {start[name]!r}' for name in given)}"
        raise SpecError(Problem(place, rule, "Leave the others out"))
    return given[0]


def _folder(named: str, storage: Path, place: str) -> Path:
    """The checkpoint that a path means: itself, or what a Transformers folder is imported as."""
    path = Path(named).expanduser().absolute()
    return imported(storage, path, place) if is_transformers_folder(path) else path


def _digest(path: Path, named: str, place: str) -> str:
    try:
        manifest = read_manifest(path)
        digest, _ = weights_sha256(manifest), manifest["spec"]["model"]
    except (DamagedCheckpointError, KeyError, IndexError, TypeError) as error:
        if not path.exists():
            raise SpecError(Problem(place, f"there is no such folder: {named}", _WAY_OUT)) from error
        rule = f"is no checkpoint of ours ({error}), and no folder of Transformers (it has no config.json): {named}"
        raise SpecError(Problem(place, rule, _WAY_OUT)) from error
    return digest


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
