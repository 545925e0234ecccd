"""`train --trial SWEEP/KEY`: one trial of a sweep again, in this process, from what the sweep's files say of it.

Its spec and its rows are the sweep's, so that it is the same training. Equal bits need the same kind of processor, too:
what the trial's own environment settled (precision, attention, threads) is settled again here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.records import SweepRecord, TrialRecord, read_sweep_record, read_trial_record
from hrm.data.dataset import build_dataset
from hrm.errors import Problem, SpecError
from hrm.spec import parse_spec
from hrm.trial import TrialSpec
from orchestrator.build_progress import build_progress
from orchestrator.experiment import Arm
from orchestrator.resources import ResourceSpec
from orchestrator.sweep_names import sweep_directory


@dataclass(frozen=True, slots=True)
class Work:
    """What `train` is asked to do."""

    name: str
    trial: TrialSpec
    resources: ResourceSpec
    test: bool = True
    """Whether to look at the test split: a trial of a search did not."""
    arm: Arm | None = None
    """Where it is from an experiment's file."""
    before: str = ""
    """What came of it in its sweep."""


def trial_again(storage: Path, name: str) -> Work:
    """The trial `SWEEP/KEY`, `DIRECTORY/KEY` or, of the newest sweep, `KEY`, its data built.

    Raises SpecError: there is no such trial, or it cannot be repeated.
    """
    sweep, _, key = name.rpartition("/")
    directory = sweep_directory(storage, sweep or None)
    record = _record(directory, key, name)
    if record.lineage:
        rule = "took over the states of other trials of its population: its spec alone does not make it again"
        raise SpecError(Problem(f"--trial {name}", rule, "Give a replica: those repeat the winner's schedule"))
    trial = parse_spec(TrialSpec, record.spec, f"trials/{key}")
    with build_progress() as progress:
        build_dataset(trial.task, storage / "data", progress)
    began = read_sweep_record(directory)
    asked: dict[str, Any] = began.experiment.get("resources") or {}
    return Work(
        name=f"{directory.name}-{key}",
        trial=trial,
        resources=parse_spec(ResourceSpec, asked, "resources"),
        test=record.phase == "replica",
        before=_before(record, began),
    )


def _record(directory: Path, key: str, name: str) -> TrialRecord:
    keys = sorted(path.parent.name for path in directory.glob("trials/*/trial.json"))
    if key not in keys:
        some = ", ".join(keys[:6]) + (f" and {len(keys) - 6} more" if len(keys) > 6 else "")
        rule = f"{directory.name} has no trial {key!r}"
        raise SpecError(Problem(f"--trial {name}", rule, f"Its trials are {some}" if keys else "It has none yet"))
    return read_trial_record(directory / "trials" / key)


def _before(record: TrialRecord, sweep: SweepRecord) -> str:
    """How it ended in its sweep."""
    result = record.result or {}
    found = {"validation": result.get("best_validation"), "test": result.get("test")}
    values = [f"{split} {sweep.metric} {value[sweep.metric]:.4f}" for split, value in found.items() if value]
    settled = [f"{what} {value}" for what, value in record.resolved.items()]
    ended = f"{record.state} ({record.reason})" if record.reason else record.state
    return f"in the sweep: {', '.join([ended, *values, *settled])}"
