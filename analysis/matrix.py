"""Arms across tasks: the value and the rank of each arm on each task, and its mean rank with an interval.

The ranks are of the true means, as far as they are known: the interval is from draws of every mean from its t
distribution, each ranked. It is about these tasks; it says nothing about others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.arms import ArmResult, measured
from analysis.compare import posterior
from analysis.intervals import ALPHA, Array, Direction, Mean

DRAWS = 20_000


@dataclass(frozen=True, slots=True)
class Place:
    """One arm on one task."""

    value: Mean
    rank: float | None = None
    """1 is best; equals share theirs. None for an arm that was not measured on every task."""
    rank_low: float | None = None
    rank_high: float | None = None


@dataclass(frozen=True, slots=True)
class Standing:
    """One arm over the tasks: `mean_rank` is None unless it was measured on every one."""

    arm: str
    places: dict[str, Place]
    """By task."""
    mean_rank: float | None = None
    low: float | None = None
    high: float | None = None
    best_chance: float | None = None
    """Share of the draws in which its mean rank is the lowest."""


def matrix(arms: Sequence[ArmResult], tasks: Sequence[str], direction: Direction) -> list[Standing]:
    """Best mean rank first, arms that some task lacks last; empty for fewer than two tasks with two arms measured.

    The ranks are among the arms that were measured on every task, so that each is a rank among equally many.
    """
    values = {task: found for task in tasks if len(found := measured(arms, task)) > 1}
    names = list(dict.fromkeys(arm.name for arm in arms))
    everywhere = [name for name in names if all(name in found for found in values.values())]
    if len(values) < 2 or len(everywhere) < 2:
        return []
    known = {name: {arm.task: arm for arm in arms if arm.name == name and arm.metric} for name in names}
    sign = 1.0 if direction == "minimize" else -1.0
    point = np.stack([_ranks(sign * _means(found, everywhere)[:, None])[:, 0] for found in values.values()])
    drawn = _drawn_ranks(values, everywhere, sign)
    rows = [_standing(name, number, known[name], list(values), point, drawn) for number, name in enumerate(everywhere)]
    rest = [
        Standing(name, {task: Place(_value(known[name][task])) for task, found in values.items() if name in found})
        for name in names
        if name not in everywhere
    ]
    return sorted(rows, key=lambda row: row.mean_rank or 0.0) + rest


def _standing(
    name: str, number: int, results: Mapping[str, ArmResult], tasks: list[str], point: Array, drawn: Array | None
) -> Standing:
    mean_rank = float(point[:, number].mean())
    if drawn is None:
        ranks = {task: Place(_value(results[task]), float(point[index, number])) for index, task in enumerate(tasks)}
        return Standing(name, ranks, mean_rank)
    places = {
        task: Place(_value(results[task]), float(point[index, number]), *_bounds(drawn[index, number]))
        for index, task in enumerate(tasks)
    }
    over_tasks = drawn.mean(axis=0)
    best = over_tasks == over_tasks.min(axis=0)
    chance = float((best / best.sum(axis=0))[number].mean())
    return Standing(name, places, mean_rank, *_bounds(over_tasks[number]), chance)


def _value(result: ArmResult) -> Mean:
    metric = result.metric
    assert metric is not None, "only measured arms have a place"
    return Mean(metric.mean, metric.low, metric.high, metric.n)


def _drawn_ranks(
    values: Mapping[str, Mapping[str, Mapping[int, float]]], names: Sequence[str], sign: float
) -> Array | None:
    """[tasks, arms, draws]; None where an arm has no two different values on a task."""
    if any(len(set(found[name].values())) < 2 for found in values.values() for name in names):
        return None
    random = np.random.default_rng(0)
    return np.stack(
        [
            _ranks(sign * np.stack([posterior(np.array(list(found[name].values())), random, DRAWS) for name in names]))
            for found in values.values()
        ]
    )


def _means(found: Mapping[str, Mapping[int, float]], names: Sequence[str]) -> Array:
    return np.array([np.mean(list(found[name].values())) for name in names])


def _ranks(values: Array) -> Array:
    """Along the first axis; equals share the mean of their ranks."""
    below = (values[None] < values[:, None]).sum(axis=1)
    equal = (values[None] == values[:, None]).sum(axis=1)
    return np.asarray(below + (equal + 1) / 2.0)


def _bounds(draws: Array) -> tuple[float, float]:
    low, high = np.quantile(draws, [ALPHA / 2.0, 1.0 - ALPHA / 2.0])
    return float(low), float(high)
