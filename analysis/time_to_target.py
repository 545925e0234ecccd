"""Time to a target: how much of each axis an arm's replicas take until they first reach a value, and ratios of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.curves import ArmCurves, Array, Curve, shared_axes
from analysis.effects import Effect, effect, over_all_pairs
from analysis.intervals import Direction, mean_interval

EVERY_ARM = "every arm"


@dataclass(frozen=True, slots=True)
class TimeToTarget:
    """How much of one axis an arm's replicas took until they first reached a value."""

    task: str
    target: float
    reached_by: str
    """What the target is: the value that every replica of this arm, or of EVERY_ARM, reached; empty for the middle."""
    arm: str
    axis: str
    n: int
    reached: int
    """How many of the n replicas got there."""
    at_first: int = 0
    """How many were there at their first report, or at some time before it: for them its place stands."""
    mean: float | None = None
    """Geometric, with its 95 % interval; None unless all got there."""
    low: float | None = None
    high: float | None = None
    least: str = ""
    """The arm that needs least."""
    ratio: float | None = None
    """Times what `least` needs on the same seeds, with its 95 % interval; None where one of both was there at its first
    report."""
    ratio_low: float | None = None
    ratio_high: float | None = None
    adjusted_p: float | None = None
    """Holm's, over all pairs of arms, since the one that needs least is chosen by the same numbers."""


def times_to_targets(task: str, arms: Sequence[ArmCurves], direction: Direction) -> list[TimeToTarget]:
    """To what every replica of all arms reached, to what every one of the best arm did, and to the middle of both."""
    ends = {each.arm: [float(_cost(curve, direction)[-1]) for curve in each.curves] for each in arms}
    best = min(ends, key=lambda arm: float(np.mean(ends[arm])))
    easy, hard = max(max(values) for values in ends.values()), max(ends[best])
    targets = {easy: EVERY_ARM} if easy == hard else {easy: EVERY_ARM, (easy + hard) / 2: "", hard: best}
    axes = shared_axes([curve for each in arms for curve in each.curves])
    sign = _sign(direction)
    return [
        row
        for target, name in targets.items()
        for axis in axes
        for row in _times(task, sign * target, name, arms, axis, direction)
    ]


def first_reached(positions: Array, costs: Array, target: float) -> float | None:
    """Where a falling curve first comes to the target, on straight lines between its points; None: nowhere."""
    there = np.flatnonzero(costs <= target)
    if len(there) == 0:
        return None
    i = int(there[0])
    if i == 0:
        return float(positions[0])
    part = (costs[i - 1] - target) / (costs[i - 1] - costs[i])
    return float(positions[i - 1] + part * (positions[i] - positions[i - 1]))


def _times(
    task: str, target: float, name: str, arms: Sequence[ArmCurves], axis: str, direction: Direction
) -> list[TimeToTarget]:
    cost = _sign(direction) * target
    taken = {
        each.arm: {c.seed: first_reached(c.axes[axis], _cost(c, direction), cost) for c in each.curves} for each in arms
    }
    at_first = {each.arm: sum(bool(_cost(c, direction)[0] <= cost) for c in each.curves) for each in arms}
    logs = {
        arm: {seed: float(np.log(value)) for seed, value in values.items() if value}
        for arm, values in taken.items()
        if all(values.values())
    }
    ratios = _ratios({arm: values for arm, values in logs.items() if not at_first[arm]})
    rows = []
    for arm, values in taken.items():
        reached = sum(value is not None for value in values.values())
        row = TimeToTarget(task, target, name, arm, axis, len(values), reached, at_first[arm])
        if arm in logs:
            mean = mean_interval(list(logs[arm].values()))
            row = replace(row, mean=_exp(mean.mean), low=_exp(mean.low), high=_exp(mean.high))
        if arm in ratios:
            least, ratio = ratios[arm]
            row = replace(row, least=least, ratio=_exp(ratio.mean), adjusted_p=ratio.adjusted_p)
            row = replace(row, ratio_low=_exp(ratio.low), ratio_high=_exp(ratio.high))
        rows.append(row)
    return rows


def _ratios(logs: Mapping[str, Mapping[int, float]]) -> dict[str, tuple[str, Effect]]:
    """By arm, the one that needs least, and what this one needs above it, as a logarithm."""
    if len(logs) < 2:
        return {}
    least = min(logs, key=lambda arm: float(np.mean(list(logs[arm].values()))))
    others = [arm for arm in logs if arm != least]
    found = over_all_pairs([effect(logs[arm], logs[least], "minimize") for arm in others])
    return {arm: (least, each) for arm, each in zip(others, found, strict=True)}


def _cost(curve: Curve, direction: Direction) -> Array:
    """The best so far, the lower the better."""
    return _sign(direction) * curve.best


def _sign(direction: Direction) -> float:
    return 1.0 if direction == "minimize" else -1.0


def _exp(value: float | None) -> float | None:
    return None if value is None else float(np.exp(value))
