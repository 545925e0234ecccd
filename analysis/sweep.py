"""A sweep's directory as one value, finished or still running.

`load_sweep` reads the small records at once; the reports of a trial, which can be long, only when they are asked for.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.columns import ReportColumns, StepColumns, read_report_columns, read_step_columns
from analysis.mlflow_runs import MlflowRuns, read_mlflow_runs
from analysis.records import Phase, SweepRecord, TrialRecord, TrialState, read_sweep_record, read_trial_records
from hrm.records import Progress, Report, read_last_report


@dataclass(slots=True)
class Sweep:
    """What a sweep's directory said at the moment it was read."""

    directory: Path
    record: SweepRecord
    trials: list[TrialRecord]
    origins: dict[str, Origin] = field(default_factory=dict)
    """Of several sweeps that were made one (`analysis.joined`): by key, where each trial is from."""
    parts: list[Part] = field(default_factory=list)
    """These sweeps; empty where there is only this one."""
    _reports: dict[str, ReportColumns] = field(default_factory=dict, repr=False)
    _last: dict[str, Report | None] = field(default_factory=dict, repr=False)
    _mlflow: dict[Path, MlflowRuns | None] = field(default_factory=dict, repr=False)

    def select(
        self,
        *,
        task: str | None = None,
        arm: str | None = None,
        phase: Phase | None = None,
        state: TrialState | None = None,
    ) -> list[TrialRecord]:
        """The trials that fit every given word, in the order of their keys."""
        wanted = {"task": task, "arm": arm, "phase": phase, "state": state}
        given = {name: value for name, value in wanted.items() if value is not None}
        return [trial for trial in self.trials if all(getattr(trial, name) == value for name, value in given.items())]

    def reports(self, trial: TrialRecord) -> ReportColumns:
        """The trial's reports in order, without their steps. Where a restart wrote one again, the later one counts."""
        if trial.key not in self._reports:
            self._reports[trial.key] = read_report_columns(self.folder_of(trial) / "records.jsonl")
        return self._reports[trial.key]

    def steps(self, trial: TrialRecord) -> StepColumns:
        """The trial's optimizer steps in order: they are most of its file, and are read anew each time."""
        return read_step_columns(self.folder_of(trial) / "records.jsonl")

    def last_report(self, trial: TrialRecord) -> Report | None:
        """The newest of the trial's reports, without its steps; the ones before it are not read."""
        if trial.key not in self._last:
            self._last[trial.key] = read_last_report(self.folder_of(trial) / "records.jsonl")
        return self._last[trial.key]

    def progress(self, trial: TrialRecord) -> Progress:
        """How far a trial came: from its result, else from its last report."""
        if trial.result is not None:
            return Progress(**trial.result["progress"])
        last = self.last_report(trial)
        return last.progress if last else Progress()

    def origin_of(self, trial: TrialRecord) -> Origin:
        """The sweep that ran the trial, and the trial's key there."""
        return self.origins.get(trial.key) or Origin(self, trial.key)

    def folder_of(self, trial: TrialRecord) -> Path:
        """The trial's folder."""
        origin = self.origin_of(trial)
        return origin.sweep.directory / "trials" / origin.key

    def log_of(self, trial: TrialRecord) -> str:
        """The trial's log, relative to the sweep's directory."""
        return Path(os.path.relpath(self.folder_of(trial) / "log.txt", self.directory)).as_posix()

    def checkpoint_of(self, trial: TrialRecord) -> str:
        """The trial's best checkpoint: relative to the sweep's directory, or a URI in its store; empty without one."""
        checkpoint = (trial.result or {}).get("best_checkpoint", "")
        if not checkpoint:
            return ""
        origin = self.origin_of(trial)
        if origin.sweep.record.store:
            return origin.sweep.record.place_of(f"trials/{origin.key}/{checkpoint}")
        return Path(os.path.relpath(self.folder_of(trial) / checkpoint, self.directory)).as_posix()

    def mlflow(self) -> MlflowRuns | None:
        """Where its runs are in MLflow; None where it has none, or is several sweeps."""
        return None if self.origins else read_mlflow_runs(self.directory)

    def run_address(self, trial: TrialRecord) -> str:
        """The page of the trial's MLflow run; empty where none is known."""
        origin = self.origin_of(trial)
        directory = origin.sweep.directory
        if directory not in self._mlflow:
            self._mlflow[directory] = read_mlflow_runs(directory)
        known = self._mlflow[directory]
        run = known.runs.get(origin.key) if known else None
        return known.address(run) if known and run else ""

    def command_of(self, trial: TrialRecord) -> str:
        """The command that trains exactly this trial again."""
        origin = self.origin_of(trial)
        directory = origin.sweep.directory.absolute()
        storage = directory.parent.parent
        if directory.parent.name != "sweeps":  # made again from MLflow, or moved
            return f"python -m orchestrator train --trial {shlex.quote(f'{directory}/{origin.key}')}"
        elsewhere = "" if storage == Path("runs").absolute() else f" --storage {shlex.quote(str(storage))}"
        return f"python -m orchestrator train --trial {shlex.quote(f'{directory.name}/{origin.key}')}{elsewhere}"

    def best_search_trial(self, task: str, arm: str) -> TrialRecord | None:
        """The completed search trial with the best validation objective; None before one has completed."""
        done = self.select(task=task, arm=arm, phase="search", state="completed")
        return self.best_of((trial, trial.objective) for trial in done)

    def best_of(self, scored: Iterable[tuple[TrialRecord, float | None]]) -> TrialRecord | None:
        """The trial with the best value in the sweep's direction; the first of equals."""
        sign = -1.0 if self.record.direction == "maximize" else 1.0
        known = [(sign * value, trial) for trial, value in scored if value is not None and math.isfinite(value)]
        return min(known, key=lambda pair: pair[0])[1] if known else None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a trial is from."""

    sweep: Sweep
    key: str


@dataclass(frozen=True, slots=True)
class Part:
    """One of the sweeps in a joined one."""

    name: str
    question: str
    finished: bool
    trials: int
    arms: list[str]
    tasks: list[str]
    """Both as they are named in the joined sweep."""
    budget: dict[str, Any]
    code: dict[str, Any]
    command: str


def load_sweep(directory: Path) -> Sweep:
    """Read a sweep. Raises FileNotFoundError where there is none, ValueError for a schema of a later version."""
    directory = Path(directory)
    return Sweep(directory, read_sweep_record(directory), read_trial_records(directory))


def seed_of(trial: TrialRecord) -> int:
    """The seed that the trial was run with; replicas of different arms with one seed form a pair."""
    return int(trial.spec["seed"])


def model_kind(trial: TrialRecord) -> str:
    """`hrm`, `transformer`, ...: the variant of the trial's model."""
    model: dict[str, Any] = trial.spec.get("model", {})
    return str(model.get("kind", ""))
