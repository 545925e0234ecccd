"""Thresholds of halting rules: what each of them costs and what accuracy it keeps, and which one is chosen.

The choice, on validation rows alone: of all thresholds of a rule (and of no halting at all) the one with the fewest
segments a row among those whose accuracy on these rows is not below that of full depth on the same rows; of several as
cheap, the most accurate. How sure that is says the interval of the difference, paired row by row. Of many thresholds
the cheapest that seems to lose nothing was lucky, too; with a margin the interval itself must rule out a larger loss.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.checkpoints.row_intervals import Estimate, Sums, difference
from hrm.depth import Depth
from hrm.halting_scores import Halt, Rule

THRESHOLDS = 200
"""Of a rule: quantiles of its scores."""
BY_TRAINING = 0.5
"""The probability at which a Q ends a row in training."""


@dataclass(frozen=True, slots=True)
class Point:
    """A threshold, or a depth, on the validation rows."""

    threshold: float
    """Of `fixed`: the segments."""
    segments: float
    """The mean over rows."""
    accuracy: float


@dataclass(frozen=True, slots=True)
class Choice:
    """The threshold of a rule that is run on the test split."""

    halt: Halt
    segments: float
    accuracy: float
    difference: Estimate
    """Of its accuracy and full depth's, paired, on the rows by which it was chosen."""
    points: list[Point]
    """All that there was to choose from, the cheapest first."""

    @property
    def halts(self) -> bool:
        """Whether it ends any row before full depth."""
        return self.segments < self.points[-1].segments


def choose(depth: Depth, rule: Rule, groups: np.ndarray, margin: float | None = None) -> Choice:
    """The cheapest threshold that keeps the accuracy. `groups` [N] names the rows that are forms of one.

    margin: the 95 % interval of its difference from full depth's must not reach below minus this.
    """
    ones = np.ones(len(groups))

    def change(at: np.ndarray) -> Estimate:
        own, whole = (Sums(values, ones, True) for values in (depth.at(depth.right, at), depth.right[-1]))
        return difference(own, whole, groups)

    def keeps(point: Point, at: np.ndarray) -> bool:
        if margin is None:
            return point.accuracy >= float(depth.right[-1].mean())
        low = change(at).low
        return bool((at == len(depth.right)).all()) or (low is not None and low >= -margin)

    tried = [(halt, depth.segments(halt)) for halt in candidates(depth, rule)]
    found = [
        (Point(_shown(halt), float(at.mean()), float(depth.at(depth.right, at).mean())), halt, at) for halt, at in tried
    ]
    point, halt, at = min(
        (one for one in found if keeps(one[0], one[2])), key=lambda one: (one[0].segments, -one[0].accuracy)
    )
    points = sorted((one[0] for one in found), key=lambda one: (one.segments, one.accuracy))
    return Choice(halt, point.segments, point.accuracy, change(at), points)


def candidates(depth: Depth, rule: Rule) -> list[Halt]:
    """Every depth, or thresholds over the whole range of the rule's scores; the last one is full depth."""
    full = len(depth.right)
    if rule == "fixed":
        return [Halt(rule, segments) for segments in range(1, full + 1)]
    scores = depth.scores[rule][: full - 1].astype(np.float64)
    if not scores.size:
        return [never(rule, full)]
    values = np.unique(np.quantile(scores, np.linspace(0.0, 1.0, THRESHOLDS + 1))).tolist()
    by_training = [] if rule == "residual" else [BY_TRAINING]
    return [*(Halt(rule, full, float(value)) for value in [*values, *by_training]), never(rule, full)]


def never(rule: Rule, full: int) -> Halt:
    """A threshold that no score reaches."""
    return Halt(rule, full, -1.0 if rule == "residual" else 2.0)


def _shown(halt: Halt) -> float:
    return float(halt.segments) if halt.rule == "fixed" else halt.threshold
