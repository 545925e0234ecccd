"""How far a result is uncertain for the rows that it was measured on, besides the seeds: both taken as random.

Every seed answers the same rows, so the two are crossed. The variance of a mean over both is at most that of the
seeds' means over the seeds plus that of the rows' means over the rows (Owen 2007, "The pigeonhole bootstrap"). Each
enters with the t of its own number, since a bootstrap of three seeds covers far less than it says.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.intervals import t_quantile
from analysis.records import TrialRecord
from analysis.sweep import Sweep, seed_of

METRICS = {"loss": ("loss", "tokens"), "token_accuracy": ("correct", "tokens"), "exact_accuracy": ("exact", None)}
"""The metrics that are quotients of sums over rows: numerator, and denominator or None for the number of rows."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class OverRows:
    """A mean, or a difference of means, with its 95 % interval over seeds and test rows."""

    mean: float
    low: float
    high: float
    seeds: int
    """With one seed the interval is over rows alone, and says nothing about other seeds."""
    rows: int
    row_share: float
    """Of the variance, what more rows would take away."""


@dataclass(frozen=True, slots=True)
class RowResults:
    """What replicas said to the test rows: `values` [seeds, rows] over `weights` [rows]."""

    seeds: list[int]
    values: Floats
    weights: Floats

    def same_rows(self, other: RowResults) -> bool:
        """As far as their number and what each has to say can tell."""
        return np.array_equal(self.weights, other.weights)

    def __sub__(self, other: RowResults) -> RowResults:
        """Of the common seeds. The rows must be the same."""
        common = [seed for seed in self.seeds if seed in other.seeds]
        mine, theirs = ([result.seeds.index(seed) for seed in common] for result in (self, other))
        return RowResults(common, self.values[mine] - other.values[theirs], self.weights)

    def interval(self) -> OverRows | None:
        """None without seeds, with fewer than two rows, and where all say the same: that shows no spread."""
        seeds, rows = self.values.shape
        if seeds < 1 or rows < 2:
            return None
        by_seed = self.values.sum(axis=1) / self.weights.sum()
        mean = float(by_seed.mean())
        by_row = (self.values.mean(axis=0) - mean * self.weights) / self.weights.mean()
        parts = [(float(by_row.var(ddof=1)) / rows, rows - 1)]
        if seeds > 1:
            parts.append((float(by_seed.var(ddof=1)) / seeds, seeds - 1))
        variance = sum(part for part, _ in parts)
        if variance == 0.0:
            return None
        half = math.sqrt(sum(t_quantile(freedom) ** 2 * part for part, freedom in parts))
        return OverRows(mean, mean - half, mean + half, seeds, rows, parts[0][0] / variance)


def row_results(sweep: Sweep, trials: Sequence[TrialRecord], metric: str) -> RowResults | None:
    """The results of these replicas by row; None where a file is missing, the rows are not the same, or the metric is
    no quotient of sums."""
    if metric not in METRICS or not trials:
        return None
    found = [_one(sweep, trial, *METRICS[metric]) for trial in trials]
    known = [result for result in found if result is not None]
    if len(known) < len(found) or not all(result.same_rows(known[0]) for result in known):
        return None
    seeds = [seed_of(trial) for trial in trials]
    return RowResults(seeds, np.concatenate([result.values for result in known]), known[0].weights)


def _one(sweep: Sweep, trial: TrialRecord, numerator: str, denominator: str | None) -> RowResults | None:
    from hrm.data.row_results import TEST_ROWS, read_rows  # here: `status` does without pyarrow

    columns = read_rows(sweep.folder_of(trial) / TEST_ROWS)
    if columns is None:
        return None
    values = columns[numerator].astype(np.float64)
    weights = np.ones(len(values)) if denominator is None else columns[denominator].astype(np.float64)
    return RowResults([seed_of(trial)], values[None], weights)
