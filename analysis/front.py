"""The Pareto front of a search with several objectives: the trials of which none is better in everything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis.records import TrialRecord
from analysis.sweep import Sweep

POINTS_SHOWN = 50
"""Of a front, in a table."""


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """A trial on a front."""

    trial: str
    values: list[float]
    parameters: dict[str, Any]
    checkpoint: str
    """Relative to the sweep's directory, or a URI."""


@dataclass(frozen=True, slots=True)
class Front:
    """The front of an arm on a task, by the first objective."""

    task: str
    arm: str
    objectives: list[str]
    directions: list[str]
    points: list[FrontPoint]


def fronts(sweep: Sweep) -> list[Front]:
    """Of every arm on each of its tasks; none where the search has one objective."""
    record = sweep.record
    asked = (record.experiment.get("search") or {}).get("objectives") or []
    if not asked:
        return []
    names, directions = [each["metric"] for each in asked], [each["direction"] for each in asked]
    return [
        Front(
            task,
            arm,
            names,
            directions,
            [_point(sweep, trial) for trial in front_of(done(sweep, task, arm), directions)],
        )
        for task in record.tasks
        for arm in record.arms
        if record.runs_on(arm, task)
    ]


def done(sweep: Sweep, task: str, arm: str) -> list[TrialRecord]:
    """The search trials that have a value for each objective."""
    return [trial for trial in sweep.select(task=task, arm=arm, phase="search", state="completed") if trial.values]


def front_of(trials: Sequence[TrialRecord], directions: Sequence[str]) -> list[TrialRecord]:
    """The trials that no other dominates, the best by the first objective first."""
    signs = [-1.0 if direction == "maximize" else 1.0 for direction in directions]
    scored = [([sign * value for sign, value in zip(signs, t.values, strict=True)], t) for t in trials]
    front: list[tuple[list[float], TrialRecord]] = []
    for scores, trial in sorted(scored, key=lambda pair: pair[0]):  # what dominates a trial comes before it
        worse = any(other != scores and all(a <= b for a, b in zip(other, scores, strict=True)) for other, _ in front)
        if not worse:
            front.append((scores, trial))
    return [trial for _, trial in front]


def _point(sweep: Sweep, trial: TrialRecord) -> FrontPoint:
    return FrontPoint(trial.key, list(trial.values), dict(trial.parameters), sweep.checkpoint_of(trial))
