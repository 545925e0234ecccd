"""What an arm's training takes to become good: time to a target, area under the curve, arms at equal compute, a front.

All of it is read from the best value up to each report, the one of the checkpoint that is kept, straight lines
between reports. It is a training cut short, not one that was planned shorter: the schedule of its learning rate is
that of the whole budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from analysis.compare import Comparison, compare
from analysis.curves import ArmCurves, Array, Curve, curves_of
from analysis.intervals import Direction
from analysis.sweep import Sweep
from analysis.time_to_target import TimeToTarget, times_to_targets

SHARES = (0.25, 0.5, 1.0)
"""Of the FLOPs that every arm has spent: where arms are compared."""
GRID = 400
"""Points of compute at which the leader is asked for."""


@dataclass(frozen=True, slots=True)
class AtCompute:
    """An arm's mean over replicas in one comparison, and the best arm's minus its own."""

    task: str
    arm: str
    mean: float
    low: float | None
    high: float | None
    n: int
    best: str
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    adjusted_p: float | None
    axis: str
    start: float
    end: float
    """Area: the mean of the curve from `start` to `end` of the axis. Equal compute: the value at `end`."""
    share: float = 1.0
    """Equal compute: `end` as a share of what every arm has spent."""


@dataclass(frozen=True, slots=True)
class Lead:
    """From `start` to `end` FLOPs no arm has a better mean than this one. Each arm keeps what it had at its end."""

    task: str
    arm: str
    start: float
    end: float
    value: float
    """Its mean at `end`."""


@dataclass(frozen=True, slots=True)
class Efficiency:
    """Over all tasks."""

    targets: list[TimeToTarget] = field(default_factory=list)
    areas: list[AtCompute] = field(default_factory=list)
    equal_compute: list[AtCompute] = field(default_factory=list)
    front: list[Lead] = field(default_factory=list)


def measure_efficiency(sweep: Sweep) -> Efficiency:
    """Of all tasks; one on which nothing has completed adds nothing."""
    found = Efficiency()
    for task in sweep.record.tasks:
        arms = curves_of(sweep, task)
        if not arms:
            continue
        direction = sweep.record.direction
        found.targets.extend(times_to_targets(task, arms, direction))
        axis = str(sweep.record.budget.get("axis", "steps"))
        found.areas.extend(areas(task, arms, axis, direction))
        found.equal_compute.extend(equal_compute(task, arms, direction))
        found.front.extend(leads(task, arms, direction))
    return found


def areas(task: str, arms: Sequence[ArmCurves], axis: str, direction: Direction) -> list[AtCompute]:
    """The mean of each replica's curve over what all of them have trained on the axis."""
    every = [curve for each in arms for curve in each.curves]
    start = max(float(curve.axes[axis][0]) for curve in every)
    end = min(float(curve.axes[axis][-1]) for curve in every)
    if end <= start:
        return []
    values = {each.arm: {c.seed: _mean_between(c.axes[axis], c.best, start, end) for c in each.curves} for each in arms}
    return _standings(task, compare(values, direction), axis, start, end)


def equal_compute(task: str, arms: Sequence[ArmCurves], direction: Direction) -> list[AtCompute]:
    """Each arm at SHARES of the FLOPs that all have spent; where one has no report yet, it is left out."""
    end = min(float(curve.axes["flops"][-1]) for each in arms for curve in each.curves)
    found = []
    for share in SHARES:
        values = {
            each.arm: {c.seed: float(np.interp(share * end, c.axes["flops"], c.best)) for c in each.curves}
            for each in arms
            if all(curve.axes["flops"][0] <= share * end for curve in each.curves)
        }
        if values:
            found += _standings(task, compare(values, direction), "flops", 0.0, share * end, share)
    return found


def leads(task: str, arms: Sequence[ArmCurves], direction: Direction) -> list[Lead]:
    """Which arm has the best mean for a given compute, from the first report to the last."""
    means = {each.arm: mean_at_flops(each.curves) for each in arms}
    grid = np.unique(np.concatenate([flops for flops, _ in means.values()]))
    sign = _sign(direction)
    costs = np.stack([sign * np.interp(grid, flops, mean, left=sign * np.inf) for flops, mean in means.values()])
    names, winners = list(means), _winners(costs)
    changes = [0, *(np.flatnonzero(np.diff(winners)) + 1).tolist(), len(grid)]
    return [
        Lead(
            task=task,
            arm=names[winners[a]],
            start=float(grid[a]),
            end=float(grid[min(b, len(grid) - 1)]),
            value=float(sign * costs[winners[b - 1], b - 1]),
        )
        for a, b in pairwise(changes)
    ]


def mean_at_flops(curves: Sequence[Curve]) -> tuple[Array, Array]:
    """The mean of the best values so far against FLOPs, from where all replicas have a report."""
    start = max(float(curve.axes["flops"][0]) for curve in curves)
    end = max(float(curve.axes["flops"][-1]) for curve in curves)
    grid = np.linspace(start, end, GRID)
    return grid, np.mean([np.interp(grid, curve.axes["flops"], curve.best) for curve in curves], axis=0)


def _standings(
    task: str, found: Comparison, axis: str, start: float, end: float, share: float = 1.0
) -> list[AtCompute]:
    differences = {difference.other: difference for difference in found.differences}
    rows = []
    for arm, mean in found.means.items():
        gap = differences.get(arm)
        against = (None,) * 4 if gap is None else (gap.mean, gap.low, gap.high, gap.adjusted_p)
        rows.append(
            AtCompute(task, arm, mean.mean, mean.low, mean.high, mean.n, found.best, *against, axis, start, end, share)
        )
    return rows


def _winners(costs: Array) -> npt.NDArray[np.intp]:
    """By column the row with the least: who leads is passed by what is less, not by what is equal."""
    found: npt.NDArray[np.intp] = costs.argmin(axis=0)
    for i in range(1, len(found)):
        if costs[found[i - 1], i] <= costs[found[i], i]:
            found[i] = found[i - 1]
    return found


def _mean_between(positions: Array, values: Array, start: float, end: float) -> float:
    """Of straight lines between the points, by the trapezoidal rule, which is exact for them."""
    inside = positions[(positions > start) & (positions < end)]
    x = np.concatenate([[start], inside, [end]])
    return float(np.trapezoid(np.interp(x, positions, values), x) / (end - start))


def _sign(direction: Direction) -> float:
    return 1.0 if direction == "minimize" else -1.0
