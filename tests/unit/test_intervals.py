"""Medians and interquartile means: known values, and intervals that cover the truth at the rate that they state."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from scipy import stats

from analysis.intervals import (
    Mean,
    bootstrap_interval,
    interquartile_mean,
    interquartile_mean_interval,
    mean_interval,
    median_interval,
    t_interval,
)

Interval = Callable[[Sequence[float]], Mean]


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("analysis.intervals.RESAMPLES", 1000)


def coverage(interval: Interval, samples: np.ndarray, truth: float) -> float:
    found = [interval(list(sample)) for sample in samples]
    return float(np.mean([mean.low is not None and mean.low < truth < (mean.high or math.inf) for mean in found]))


def test_the_interquartile_mean_is_the_mean_of_the_middle_half_and_counts_its_edges_in_part() -> None:
    assert interquartile_mean(np.array([9.0, 1.0, 2.0])) == pytest.approx((1 + 4 * 2 + 9) / 6)
    values = np.random.default_rng(0).normal(size=12)
    assert interquartile_mean(values) == pytest.approx(stats.trim_mean(values, 0.25))


@pytest.mark.parametrize("interval", [mean_interval, median_interval, interquartile_mean_interval])
@pytest.mark.parametrize("n", [3, 5, 10, 30])
def test_an_interval_covers_the_truth_of_normal_values_95_times_in_100(interval: Interval, n: int) -> None:
    """Three standard errors of 400 repetitions; from ten on the bootstrap may cover a little more, never less."""
    found = coverage(interval, np.random.default_rng(n).normal(3.0, 0.1, size=(400, n)), 3.0)
    assert 0.92 < found < (0.98 if n < 10 else 0.99)


@pytest.mark.parametrize("interval", [median_interval, interquartile_mean_interval])
def test_from_ten_seeds_on_skewed_values_are_covered_too(interval: Interval) -> None:
    samples = np.random.default_rng(1).exponential(size=(300, 12))
    inner = np.linspace(0.25, 0.75, 100_001)
    truth = math.log(2) if interval is median_interval else float(-np.log1p(-inner).mean())
    assert coverage(interval, samples, truth) > 0.92


def test_the_bootstrap_covers_the_mean_of_skewed_values_better_than_t() -> None:
    samples = np.random.default_rng(3).exponential(size=(600, 12))
    found = np.array([bootstrap_interval(sample, resamples=1000) for sample in samples])
    low, high = t_interval(samples)
    assert np.mean((found[:, 0] < 1.0) & (found[:, 1] > 1.0)) > np.mean((low < 1.0) & (high > 1.0)) + 0.01


def test_values_that_are_nearly_all_equal_get_the_interval_of_t() -> None:
    values = np.array([0.0] * 11 + [1.0])
    assert bootstrap_interval(values) == pytest.approx([float(bound) for bound in t_interval(values)], abs=1e-3)
    assert bootstrap_interval(np.ones(12)) == (1.0, 1.0)


def test_one_seed_has_neither_interval() -> None:
    assert median_interval([2.0]) == interquartile_mean_interval([2.0]) == Mean(2.0, None, None, 1)
