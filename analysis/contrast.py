"""Arms of one sweep or of two held against each other, pair by pair, and what has to be known to judge it.

Where both sides saw the same data and share two seeds, they are compared seed by seed; else by Welch's test, and the
report says which.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from analysis.ablations import Change, differing
from analysis.arms import ArmResult, chosen_replicas, measure_arms, measured, test_value
from analysis.effects import Effect, adjusted, effect
from analysis.intervals import Direction
from analysis.numbers import finite
from analysis.over_rows import OverRows, RowResults
from analysis.summaries import row_results_of, tested_replicas
from analysis.sweep import Sweep, seed_of


@dataclass(frozen=True, slots=True)
class Unit:
    """One arm on one task of one sweep."""

    sweep: str
    task: str
    arm: str

    def __str__(self) -> str:
        return f"{self.sweep}:{self.task}:{self.arm}"


@dataclass(frozen=True, slots=True)
class Run:
    """A replica, where it is, and the command that trains it again."""

    unit: Unit
    key: str
    seed: int
    value: float | None
    checkpoint: str
    """A path or a URI; empty where none was kept."""
    mlflow: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast(Effect):
    """`first` minus `second` on test, Holm-corrected over the contrasts of the report."""

    first: Unit
    second: Unit
    values: tuple[dict[str, float], dict[str, float]]
    """Of both, by seed."""
    same_data: bool
    """Whether both were trained and tested on data of one fingerprint."""
    over_rows: OverRows | None
    """The difference over seeds and test rows, where both have these."""
    changes: tuple[Change, ...]
    """What differs in their trials: `before` is the second's."""


@dataclass(frozen=True, slots=True)
class ContrastReport:
    """What `compare` gives."""

    metric: str
    direction: Direction
    contrasts: list[Contrast]
    runs: list[Run]
    """Every run that a value is from."""
    notes: list[str]

    def to_json(self) -> str:
        """Strict JSON: what is not finite becomes null."""
        return json.dumps(finite(asdict(self)), indent=1, allow_nan=False)


def contrast(first: Sweep, second: Sweep, pairs: Sequence[tuple[Unit, Unit]]) -> ContrastReport:
    """The pairs in their order. The sweeps' metrics and directions have to agree."""
    results = [measure_arms(sweep) for sweep in (first, second)]
    found = [_contrast(first, second, one, other, results) for one, other in pairs]
    record = first.record
    sides = {unit: sweep for pair in pairs for unit, sweep in zip(pair, (first, second), strict=True)}
    runs = [run for unit, sweep in sides.items() for run in _runs(sweep, unit)]
    return ContrastReport(record.metric, record.direction, adjusted(found), runs, _notes(first, second))


def _contrast(first: Sweep, second: Sweep, one: Unit, other: Unit, results: Sequence[list[ArmResult]]) -> Contrast:
    a = measured(results[0], one.task).get(one.arm, {})
    b = measured(results[1], other.task).get(other.arm, {})
    same = _fingerprint(first, one) == _fingerprint(second, other) != ""
    rows = [row_results_of(sweep, unit.task, unit.arm) for sweep, unit in ((first, one), (second, other)) if same]
    return Contrast(
        **asdict(effect(a, b, first.record.direction, paired=same and len(a.keys() & b.keys()) > 1)),
        first=one,
        second=other,
        values=({str(seed): v for seed, v in a.items()}, {str(seed): v for seed, v in b.items()}),
        same_data=same,
        over_rows=_over_rows(*rows) if rows else None,
        changes=_changes(first, second, one, other),
    )


def _over_rows(first: RowResults | None, second: RowResults | None) -> OverRows | None:
    if first is None or second is None or not first.same_rows(second):
        return None
    return (first - second).interval()


def _runs(sweep: Sweep, unit: Unit) -> list[Run]:
    return [
        Run(
            unit=unit,
            key=trial.key,
            seed=seed_of(trial),
            value=test_value(trial, sweep.record.metric),
            checkpoint=_reachable(sweep, sweep.checkpoint_of(trial)),
            mlflow=sweep.run_address(trial),
            command=sweep.command_of(trial),
        )
        for trial in tested_replicas(sweep, unit.task, unit.arm)
    ]


def _reachable(sweep: Sweep, place: str) -> str:
    return place if not place or "://" in place else str(sweep.directory / place)


def _changes(first: Sweep, second: Sweep, one: Unit, other: Unit) -> tuple[Change, ...]:
    trials = [chosen_replicas(first, one.task, one.arm), chosen_replicas(second, other.task, other.arm)]
    if not all(trials):
        return ()
    new, old = (found[0] for found in trials)
    return differing(_untied(new.spec), _untied(old.spec), [*new.parameters, *old.parameters])


def _untied(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Without the fingerprint of its data, of which `same_data` speaks."""
    return {**spec, "task": {name: value for name, value in spec.get("task", {}).items() if name != "fingerprint"}}


def _fingerprint(sweep: Sweep, unit: Unit) -> str:
    return str(sweep.record.datasets.get(unit.task, {}).get("fingerprint") or "")


def _notes(first: Sweep, second: Sweep) -> list[str]:
    one, other = first.record, second.record
    notes = [f"{record.name} has not finished: this can change." for record in (one, other) if not record.finished]
    if one.budget != other.budget:
        notes.append("The budgets of the two sweeps differ, so that the difference is of the budgets, too.")
    if one.code.get("commit") != other.code.get("commit"):
        notes.append("The two sweeps ran different versions of the code.")
    return list(dict.fromkeys(notes))
