"""What a study says of a trial, as its `trial.json` says it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal, Protocol

from optuna.trial import FrozenTrial, TrialState

from analysis.records import Phase, TrialRecord
from orchestrator.experiment import Arm
from orchestrator.lines import Line
from orchestrator.store import SweepStore
from orchestrator.studies import Direction

_STATES: dict[TrialState, Literal["completed", "pruned", "failed"]] = {
    TrialState.COMPLETE: "completed",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
_BEST: dict[Direction, Callable[[Any], float]] = {"minimize": min, "maximize": max}


class Listener(Protocol):
    """Is told which trial's files changed (the trackers' mirrors)."""

    def changed(self, key: str) -> None: ...


class Projection:
    """Writes what has changed, and tells the listeners."""

    def __init__(self, store: SweepStore, direction: Direction, listeners: Iterable[Listener]) -> None:
        self._store, self._direction, self.listeners = store, direction, list(listeners)
        self.records: dict[str, TrialRecord] = {}
        self.on_disk = store.trials()
        """The records that an earlier driver wrote, until they are replayed."""

    def write(self, line: Line, phase: Phase, number: int, live: bool, no_more_seeds: str = "") -> None:
        """Bring a trial's record up to date. `live`: an attempt at it runs now."""
        key = line.key(phase, number)
        record = record_of(key, line.arm, phase, line.study(phase).trial(number), live, self._direction)
        record = replace(record, no_more_seeds=no_more_seeds)
        before, self.records[key] = self.records.get(key) or self.on_disk.get(key), record
        if before != record:
            self._store.write_trial(record)
            for listener in self.listeners:
                listener.changed(key)


def record_of(key: str, arm: Arm, phase: Phase, trial: FrozenTrial, live: bool, direction: Direction) -> TrialRecord:
    """The record of a trial; `live`: an attempt at it runs now."""
    attributes = trial.user_attrs
    values = _values(trial)
    return TrialRecord(
        key=key,
        task=arm.task,
        arm=arm.name,
        phase=phase,
        number=trial.number,
        trial_id=attributes.get("trial_id", ""),
        spec=attributes["spec"],
        parameters=dict(trial.params),
        state=_STATES.get(trial.state) or ("running" if live else "waiting"),
        reason=attributes.get("reason", ""),
        error=attributes.get("error", ""),
        source=attributes.get("source", ""),
        lineage=attributes.get("lineage", []),
        attempts=int(attributes.get("attempts", 0)),
        started=attributes.get("started"),
        ended=attributes.get("ended"),
        num_parameters=attributes.get("num_parameters"),
        resolved=attributes.get("resolved", {}),
        objective=_BEST[direction](values) if values else None,
        values=list(trial.values or []),
        result=attributes.get("result"),
        spent=attributes.get("spent", {}),
    )


def _values(trial: FrozenTrial) -> list[float]:
    """The reported values of the state that the trial has now: since it last took one over, and that one's own."""
    taken = (trial.user_attrs.get("lineage") or [None])[-1]
    if taken is None:
        return list(trial.intermediate_values.values())
    return [taken["value"], *(v for report, v in trial.intermediate_values.items() if report > taken["report"])]
