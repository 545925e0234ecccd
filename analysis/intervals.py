"""Intervals of one arm's mean, median and interquartile mean over seeds, which are few.

Below ten seeds the values are taken for normal, and then each interval covers exactly: the error of an estimate,
counted in standard deviations of the sample, has one distribution for all normals. From ten on it is a bootstrap's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

Direction = Literal["minimize", "maximize"]
Array = npt.NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""Of samples along the last axis."""

CONFIDENCE = 0.95
ALPHA = 1.0 - CONFIDENCE
BOOTSTRAP_FROM = 10
"""From this number of seeds on, intervals over seeds are a bootstrap's."""
RESAMPLES = 20_000
_NORMALS = 100_000


@dataclass(frozen=True, slots=True)
class Mean:
    """An average over seeds with its 95 % interval; `low` and `high` are None for one seed."""

    mean: float
    low: float | None
    high: float | None
    n: int


def mean_interval(values: Sequence[float]) -> Mean:
    """The mean with its 95 % interval: t below 10 seeds, bootstrap from 10 on, none for one seed."""
    array = np.asarray(values, dtype=np.float64)
    if len(array) < 2:
        return Mean(float(array[0]), None, None, 1)
    if len(array) >= BOOTSTRAP_FROM:
        low, high = bootstrap_interval(array)
    else:
        low, high = (float(bound) for bound in t_interval(array))
    return Mean(float(array.mean()), low, high, len(array))


def median_interval(values: Sequence[float]) -> Mean:
    """The median with its 95 % interval, by the same rule as the mean's."""
    return _interval(values, _median)


def interquartile_mean_interval(values: Sequence[float]) -> Mean:
    """The mean of the middle half with its 95 % interval, by the same rule as the mean's."""
    return _interval(values, interquartile_mean)


def interquartile_mean(values: Array) -> Array:
    """The mean of the middle half along the last axis; a value on its edge counts by the part that is inside.

    Three values weigh 1/6, 4/6, 1/6.
    """
    n = values.shape[-1]
    edges = np.clip(np.arange(n + 1) / n, 0.25, 0.75)
    return np.asarray(np.sort(values, axis=-1) @ (2.0 * np.diff(edges)))


def t_quantile(freedom: float) -> float:
    """t at 97.5 %: 4.303 for the two degrees of freedom of three seeds."""
    return float(special.stdtrit(freedom, 1.0 - ALPHA / 2.0))


def t_interval(values: Array) -> tuple[Array, Array]:
    """Student's 95 % interval of the mean along the last axis, with n-1 degrees of freedom; n >= 2."""
    n = values.shape[-1]
    mean = values.mean(axis=-1)
    half = t_quantile(n - 1) * values.std(axis=-1, ddof=1) / np.sqrt(n)
    return mean - half, mean + half


def bootstrap_interval(values: Array, seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The 95 % interval of the mean by the symmetric bootstrap-t: t's, at the quantile that resamples have."""
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    half = error * float(np.quantile(bootstrap_t(values, seed, resamples), CONFIDENCE)) if error > 0.0 else 0.0
    return mean - half, mean + half


def bootstrap_t(values: Array, seed: int = 0, resamples: int = RESAMPLES) -> Array:
    """How far the means of resamples are from the mean, each in standard errors of its own resample.

    Hall (1988, "On symmetric bootstrap confidence intervals"). Where more than one resample in twenty has no spread,
    as of values that are nearly all equal, it is t's distribution instead.
    """
    n, counts = len(values), _counts(len(values), seed, resamples)
    centred = values - values.mean()
    means = counts @ centred / n
    variances = np.maximum(counts @ centred**2 / n - means**2, 0.0) / (n - 1)
    flat = variances <= 1e-12 * centred.var()
    if flat.mean() > ALPHA:
        return np.asarray(np.abs(special.stdtrit(n - 1, (np.arange(resamples) + 0.5) / resamples)))
    return np.asarray(np.where(flat, np.inf, np.abs(means) / np.sqrt(np.where(flat, 1.0, variances))))


def _interval(values: Sequence[float], statistic: Statistic) -> Mean:
    array = np.asarray(values, dtype=np.float64)
    n, value = len(array), float(statistic(array))
    if n < 2:
        return Mean(value, None, None, n)
    if n >= BOOTSTRAP_FROM:
        rows = np.random.default_rng(0).integers(n, size=(RESAMPLES, n))
        low, high = (float(bound) for bound in np.quantile(statistic(array[rows]), _tails(n)))
    else:
        half = _normal_quantile(n, statistic) * float(array.std(ddof=1))
        low, high = value - half, value + half
    return Mean(value, low, high, n)


def _median(values: Array) -> Array:
    return np.asarray(np.median(values, axis=-1))


def _tails(n: int) -> tuple[float, float]:
    """The percentiles at which a percentile bootstrap is read, widened for small n.

    The plain interval is too short by about sqrt((n-1)/n) and by the normal quantile in the place of t's. Hesterberg
    (2015, "What teachers should know about the bootstrap", section 5.2) reads it at Phi(-sqrt(n/(n-1)) t).
    """
    tail = float(special.ndtr(-np.sqrt(n / (n - 1)) * t_quantile(n - 1)))
    return tail, 1.0 - tail


@lru_cache
def _normal_quantile(n: int, statistic: Statistic) -> float:
    """What 95 of 100 normal samples of n stay within: |statistic - its truth| in standard deviations of the sample."""
    samples = np.random.default_rng(0).normal(size=(_NORMALS, n))
    return float(np.quantile(np.abs(statistic(samples)) / samples.std(axis=-1, ddof=1), CONFIDENCE))


@lru_cache(maxsize=4)
def _counts(n: int, seed: int, resamples: int) -> Array:
    """How often each of n values is in each resample."""
    return np.random.default_rng(seed).multinomial(n, np.full(n, 1.0 / n), size=resamples).astype(np.float64)
