"""Is the halting Q to be believed? The probability that it gives a row of being solved, against how often it is.

The expected calibration error (ECE) of a sample is above zero even where every probability is right, so it is set
against what perfect calibration would show on these rows (consistency resampling, Broecker and Smith 2007).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.checkpoints.row_intervals import Estimate, Sums, difference, interval, resamples

Array = npt.NDArray[np.float64]
MOST_BINS, ROWS_PER_BIN = 10, 30
RESAMPLES = 1000
LEAST = 10
"""Rows that are solved, and that are not, below which nothing is said of calibration."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows of similar confidence."""

    low: float
    high: float
    rows: int
    confidence: float
    """Their mean."""
    solved: Estimate


@dataclass(frozen=True, slots=True)
class Calibration:
    """Confidence against truth, after one segment."""

    rows: int
    bins: list[Bin]
    error: Estimate
    """The ECE: |confidence - solved| by bin, weighted by rows; its interval starts at 0 unless p < 0.05."""
    by_chance: float
    """95 % of samples of so many rows show less where every probability is right."""
    p: float
    """The share of such samples that show as much as was seen."""
    excess: Estimate
    """Mean confidence minus the share that is solved: above 0 it promises too much."""
    right: Estimate
    """How often "solved" at a probability above one half, and "not" below, is true."""
    always: float
    """How often the more frequent of the two answers would be."""
    fewer: int
    """Rows of the rarer outcome."""
    rarer: str
    """`solved`, or `not solved`."""

    @property
    def verdict(self) -> str:
        """A sentence."""
        if self.fewer < LEAST:
            return f"cannot tell: of {self.rows:,} rows only {self.fewer:,} are {self.rarer}"
        if self.p >= 0.05:
            chance = f"{self.rows:,} rows show by chance (up to {self.by_chance:.3f})"
            left = f"an error of up to {self.error.high or 0.0:.3f} is left open"
            return f"nothing speaks against its calibration: {self.error.value:.3f} is within what {chance}; {left}"
        low, high = self.excess.low, self.excess.high
        way = "miscalibrated, here too sure and there too modest"
        if low is not None and low > 0.0:
            way = "overconfident"
        elif high is not None and high < 0.0:
            way = "underconfident"
        return f"it is {way}: an error of {self.error.value:.3f}, where chance explains {self.by_chance:.3f} at most"


def calibration(confidence: Array, solved: Array, groups: np.ndarray, seed: int = 0) -> Calibration:
    """Of rows [N]: probabilities, and 1 where the row is solved. `groups` names the rows that are forms of one."""
    n, random = len(confidence), np.random.default_rng(seed)
    number = _bins(confidence)
    inside = np.eye(number.max() + 1)[number]
    gap = confidence - solved
    value = float(np.abs(gap @ inside).sum() / n)
    chance = np.abs((confidence - (random.random((RESAMPLES, n)) < confidence)) @ inside).sum(axis=1) / n
    p = float((chance >= value).mean())
    low, high = _bounds(gap, inside, groups, value)
    said = ((confidence > 0.5) == (solved > 0.5)).astype(np.float64)
    ones = np.ones(n)
    return Calibration(
        rows=n,
        bins=[_bin(confidence, solved, groups, number == at) for at in range(inside.shape[1])],
        error=Estimate(value, 0.0 if p >= 0.05 else low, high, len(np.unique(groups))),
        by_chance=float(np.quantile(chance, 0.95)),
        p=p,
        excess=difference(Sums(confidence, ones, True), Sums(solved, ones, True), groups),
        right=interval(Sums(said, ones, True), groups),
        always=float(max(solved.mean(), 1.0 - solved.mean())),
        fewer=int(min(solved.sum(), n - solved.sum())),
        rarer="solved" if solved.mean() <= 0.5 else "not solved",
    )


def _bins(confidence: Array) -> np.ndarray:
    """[N]: the bin of each row; bins of about equal size, equal values in one."""
    count = int(np.clip(len(confidence) // ROWS_PER_BIN, 1, MOST_BINS))
    edges = np.unique(np.quantile(confidence, np.linspace(0.0, 1.0, count + 1)[1:-1]))
    return np.unique(np.searchsorted(edges, confidence, side="right"), return_inverse=True)[1]


def _bounds(gap: Array, inside: Array, groups: np.ndarray, value: float) -> tuple[float, float]:
    """A bootstrap over groups. It adds noise a second time, so its interval is mirrored; the upper bound is the larger.

    In simulations (60 to 1000 rows, true errors of 0 to 0.2) such intervals held the truth in 91 to 97 %.
    """
    number = np.unique(groups, return_inverse=True)[1]
    by_group = np.zeros((number.max() + 1, inside.shape[1]))
    np.add.at(by_group, number, gap[:, None] * inside)
    errors = np.abs(resamples(len(by_group), RESAMPLES) @ by_group).sum(axis=1) / len(gap)
    low, high = np.quantile(errors, [0.025, 0.975])
    return max(0.0, float(2 * value - high)), float(min(1.0, max(2 * value - low, high)))


def _bin(confidence: Array, solved: Array, groups: np.ndarray, here: np.ndarray) -> Bin:
    inside = confidence[here]
    share = interval(Sums(solved[here], np.ones(len(inside)), True), groups[here])
    return Bin(float(inside.min()), float(inside.max()), len(inside), float(inside.mean()), share)
