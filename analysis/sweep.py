"""A sweep's directory as one value, finished or still running.

`load_sweep` reads the small records at once; the reports of a trial, which can be long, only when they are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from analysis.records import Phase, SweepRecord, TrialRecord, TrialState, read_sweep_record, read_trial_records
from hrm.records import Progress, Report, read_last_report, read_reports


@dataclass(slots=True)
class Sweep:
    """What a sweep's directory said at the moment it was read."""

    directory: Path
    record: SweepRecord
    trials: list[TrialRecord]
    _reports: dict[str, list[Report]] = field(default_factory=dict, repr=False)
    _last: dict[str, Report | None] = field(default_factory=dict, repr=False)

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

    def reports(self, trial: TrialRecord) -> list[Report]:
        """The trial's reports in order. Where a restart wrote one again, the later one is kept."""
        if trial.key not in self._reports:
            path = self.directory / "trials" / trial.key / "records.jsonl"
            by_index = {report.index: report for report in read_reports(path)}
            self._reports[trial.key] = [by_index[index] for index in sorted(by_index)]
        return self._reports[trial.key]

    def last_report(self, trial: TrialRecord) -> Report | None:
        """The newest of the trial's reports, without its steps; the ones before it are not read."""
        if trial.key not in self._last:
            self._last[trial.key] = read_last_report(self.directory / "trials" / trial.key / "records.jsonl")
        return self._last[trial.key]

    def progress(self, trial: TrialRecord) -> Progress:
        """How far a trial came: from its result, else from its last report."""
        if trial.result is not None:
            return Progress(**trial.result["progress"])
        last = self.last_report(trial)
        return last.progress if last else Progress()

    def log_of(self, trial: TrialRecord) -> str:
        """The trial's log, relative to the sweep's directory."""
        return f"trials/{trial.key}/log.txt"

    def best_search_trial(self, task: str, arm: str) -> TrialRecord | None:
        """The completed search trial with the best validation objective; None before one has completed."""
        done = self.select(task=task, arm=arm, phase="search", state="completed")
        return self.best_of((trial, trial.objective) for trial in done)

    def best_of(self, scored: Iterable[tuple[TrialRecord, float | None]]) -> TrialRecord | None:
        """The trial with the best value in the sweep's direction; the first of equals."""
        sign = -1.0 if self.record.direction == "maximize" else 1.0
        known = [(sign * value, trial) for trial, value in scored if value is not None and math.isfinite(value)]
        return min(known, key=lambda pair: pair[0])[1] if known else None


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
