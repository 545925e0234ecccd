"""95 % intervals of what one model, or the difference of two, shows on rows that stand for many others.

A metric is a quotient of sums over rows (nats by tokens, exact rows by rows). Rows of one group (forms of a puzzle)
are no independent witnesses: groups count. Yes or no by row has intervals that hold near 0 and 1, too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import special

from analysis.intervals import t_quantile
from analysis.numbers import significant

Array = npt.NDArray[np.float64]
NORMAL = float(special.ndtri(0.975))


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95 % interval; `low` and `high` are None for fewer than two groups of rows."""

    value: float
    low: float | None
    high: float | None
    n: int
    """Independent groups of rows."""

    def __str__(self) -> str:
        """With two digits of the interval's width."""
        if self.low is None or self.high is None:
            return significant(self.value, 3)
        width = max(self.high - self.value, self.value - self.low)
        if not math.isfinite(width):
            return "–"
        decimals = min(6, max(0, 1 - math.floor(math.log10(width)))) if width > 0.0 else 4
        value, low, high = (f"{number:.{decimals}f}" for number in (self.value, self.low, self.high))
        return f"{value} ({low} to {high})"


@dataclass(frozen=True, slots=True)
class Sums:
    """A metric row by row: `sums` over `weights` is its value."""

    sums: Array
    weights: Array
    is_share: bool = False
    """True for what lies between 0 and 1 by its nature, as an accuracy does and a loss does not."""

    @property
    def value(self) -> float:
        """The metric over all rows; 0 where nothing is weighed."""
        weight = float(self.weights.sum())
        return float(self.sums.sum()) / weight if weight else 0.0

    @property
    def is_yes_or_no(self) -> bool:
        """True if every row counts once, as 0 or 1."""
        return self.is_share and bool((self.weights == 1.0).all() and np.isin(self.sums, (0.0, 1.0)).all())

    def of(self, rows: np.ndarray) -> Sums:
        """Of some rows."""
        return Sums(self.sums[rows], self.weights[rows], self.is_share)

    def without_each(self, groups: np.ndarray) -> Array:
        """[G]: the metric without each group in turn."""
        number = np.unique(groups, return_inverse=True)[1]
        sums, weights = (np.bincount(number, weights=values) for values in (self.sums, self.weights))
        rest = weights.sum() - weights
        without: Array = np.divide(sums.sum() - sums, rest, out=np.full(len(rest), self.value), where=rest > 0.0)
        return without


def interval(metric: Sums, groups: np.ndarray) -> Estimate:
    """A metric's value; `groups` [N] names each row's.

    Wilson's for yes or no, else Student's t with the jackknife's error, which leaves out group after group.
    """
    weighed = metric.weights > 0.0
    metric, groups = metric.of(weighed), groups[weighed]
    if metric.is_yes_or_no and _all_different(groups):
        return _wilson(float(metric.sums.sum()), len(groups))
    found = _student(metric.value, metric.without_each(groups), metric.is_share)
    if not metric.is_share or found.low is None or found.high is None:
        return found
    return Estimate(found.value, max(0.0, found.low), min(1.0, found.high), found.n)


def difference(first: Sums, second: Sums, groups: np.ndarray) -> Estimate:
    """The first's value minus the second's, paired row by row.

    For yes or no the interval of Agresti and Min (2005): half a row more in each cell of the table of both.
    """
    value = first.value - second.value
    if first.is_yes_or_no and second.is_yes_or_no and _all_different(groups):
        changed, n = first.sums - second.sums, len(groups)
        gained, lost = float((changed > 0).sum()), float((changed < 0).sum())
        middle = (gained - lost) / (n + 2)
        half = NORMAL * math.sqrt(gained + lost + 1 - (gained - lost) ** 2 / (n + 2)) / (n + 2)
        return Estimate(value, middle - half, middle + half, n)
    without = first.without_each(groups) - second.without_each(groups)
    return _student(value, without, first.is_share and second.is_share)


@lru_cache(maxsize=4)
def resamples(n: int, count: int) -> Array:
    """[count, n]: how often each of n groups is in each resample of a bootstrap; the same for every caller."""
    drawn = np.random.default_rng(0).integers(n, size=(count, n)) + n * np.arange(count)[:, None]
    return np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n).astype(np.float64)


def _student(value: float, without_each: Array, is_share: bool) -> Estimate:
    """Where no group of shares differs from another: up to 3 in n others might (the rule of three)."""
    n = len(without_each)
    if n < 2 or not np.isfinite(without_each).all():
        return Estimate(value, None, None, n)
    half = t_quantile(n - 1) * math.sqrt(n - 1) * float(without_each.std())
    if is_share and half < 1e-12:
        half = min(1.0, 3.0 / n)
    return Estimate(value, value - half, value + half, n)


def _wilson(yes: float, n: int) -> Estimate:
    share, z2 = yes / n, NORMAL**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = NORMAL / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At 0 and 1 the bound is the share itself, but for rounding.
    return Estimate(share, min(share, max(0.0, middle - half)), max(share, min(1.0, middle + half)), n)


def _all_different(groups: np.ndarray) -> bool:
    return len(np.unique(groups)) == len(groups)
