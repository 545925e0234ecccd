"""Which checkpoints a person means by a path: one, all of a trial, all in a folder, here or in a store."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from analysis.records import read_sweep_record, read_trial_record
from hrm.checkpoint import in_order
from hrm.errors import Problem, SpecError
from hrm.remote import MANIFEST, Archive
from orchestrator import stages
from orchestrator.fetched import checkpoint_folder

_ORIGINAL = re.compile(r"step_\d+(\.pth?)?")
"""How the original code names its files."""
RESULT = "result.json"
"""In the folder of a training by `train`: how it ended (`hrm.records.TrialResult`)."""


def checkpoints_at(named: Iterable[str]) -> list[Path]:
    """The checkpoints of all these places, none twice. Raises SpecError with every place that holds none."""
    found: dict[Path, None] = {}
    problems: list[Problem] = []
    for name in named:
        try:
            found |= dict.fromkeys(_at(name))
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(*problems)
    return list(found)


def best_checkpoint(named: str, storage: Path) -> Path:
    """The folder of one checkpoint: as `checkpoint_folder` finds it, or the best one of a trial or an arm.

    A trial is named by its folder, or `SWEEP/KEY`; an arm `SWEEP:ARM` or `SWEEP:TASK:ARM`. Raises SpecError where there
    is none yet, or no such arm.
    """
    path = Path(named)
    if "://" in named:
        return checkpoint_folder(named)
    if not path.exists() and _is_sweep(storage, sweep := named.split(":")[0]) and ":" in named:
        *task, arm = named.split(":")[1:]
        start = {"sweep": sweep, "arm": arm, "task": ":".join(task) or None}
        return Path(stages.best_checkpoint(storage, start, named)["path"])
    if not path.exists() and len(path.parts) == 2 and _is_sweep(storage, path.parts[0]):
        path = storage / "sweeps" / path.parts[0] / "trials" / path.parts[1]
        if not path.exists():
            keys = ", ".join(sorted(trial.name for trial in path.parent.iterdir()))
            raise SpecError(Problem(named, "there is no such trial in this sweep", f"It has {keys}"))
    if (path / RESULT).exists():
        best = json.loads((path / RESULT).read_text())["best_checkpoint"]
    elif (path / "trial.json").exists():
        best = (read_trial_record(path).result or {}).get("best_checkpoint")
    elif (path / "attempts").is_dir():
        best = None
    else:
        return checkpoint_folder(str(path))
    if not best:
        newest = [str(each.relative_to(path)) for each in _newest_attempts(path.glob("attempts/*/step-*"))][-1:]
        rule = "is a trial that has not completed, so that none of its checkpoints is its best one"
        way_out = f"Let it end, or give one, such as {path / newest[0]}" if newest else "Give another one"
        raise SpecError(Problem(named, rule, way_out))
    return checkpoint_folder(str(path / best))


def _is_sweep(storage: Path, name: str) -> bool:
    return bool(name) and (storage / "sweeps" / name / "sweep.json").exists()


def _at(named: str) -> list[Path]:
    if "://" in named:
        return _in_store(named)
    path = Path(named)
    if path.is_file() or (path / MANIFEST).exists():
        return [path]
    if sweep := next((above for above in path.parents if (above / "sweep.json").exists()), None):
        return _of_trial(path, sweep) or [checkpoint_folder(named)]
    if not path.is_dir():
        raise _none(named, "there is no such file or folder")
    if (path / "attempts").is_dir():
        return _newest_attempts(path.glob("attempts/*/step-*"))
    inside = [entry for entry in sorted(path.iterdir()) if _is_checkpoint(entry)]
    if not inside:
        raise _none(named, "holds no checkpoint: no folder with a manifest, no file named step_N")
    return inside


def _is_checkpoint(entry: Path) -> bool:
    return (entry / MANIFEST).exists() or (entry.is_file() and _ORIGINAL.fullmatch(entry.name) is not None)


def _of_trial(trial: Path, sweep: Path) -> list[Path]:
    """All checkpoints of a sweep's trial, wherever the sweep keeps them; none where the path is of something else."""
    if trial.parent != sweep / "trials":
        return []
    uri = read_sweep_record(sweep).store
    if not uri:
        found = _newest_attempts(trial.glob("attempts/*/step-*"))
    else:
        names = Archive(uri).at("sweeps", sweep.resolve().name).folders(f"trials/{trial.name}/attempts")
        found = [checkpoint_folder(str(path)) for path in _newest_attempts(sweep / name for name in names)]
    if not found:
        raise _none(str(trial), "is a trial without a checkpoint")
    return found


def _in_store(uri: str) -> list[Path]:
    place, mark, query = uri.partition("?")
    archive = Archive(uri)
    if archive.has(MANIFEST):
        return [checkpoint_folder(uri)]
    names = archive.folders()
    if not names:
        raise _none(uri, "holds no checkpoint")
    if all(name.startswith("attempts/") for name in names):
        names = [str(path) for path in _newest_attempts(map(Path, names))]
    return [checkpoint_folder(f"{place.rstrip('/')}/{name}{mark}{query}") for name in names]


def _newest_attempts(paths: Iterable[Path]) -> list[Path]:
    """Of each step that several attempts reached, the last one's."""
    every = [path for path in paths if path.suffix != ".damaged"]
    last = max((int(path.parent.name) for path in every), default=0)
    return list({path.name: path for path in in_order(every, last)}.values())


def _none(place: str, rule: str) -> SpecError:
    way_out = "Give the folder of a checkpoint or of a trial, a URI, or a file of the original code such as step_1234"
    return SpecError(Problem(place, rule, way_out))
