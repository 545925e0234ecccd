"""The statistics of a comparison between arms: pure functions of numbers, one value per arm and seed.

The seeds are few, so nothing here leans on large samples. Every arm is run with the same seeds and differences are
taken seed by seed, so that what a seed does to all arms alike (the order of the data) does not blur them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import special

Direction = Literal["minimize", "maximize"]
Array = npt.NDArray[np.float64]

CONFIDENCE = 0.95
ALPHA = 1.0 - CONFIDENCE
BOOTSTRAP_FROM = 10
"""From this number of seeds on, the interval of a mean is a bootstrap's."""
RESAMPLES = 10_000
DRAWS = 20_000
POWER = 0.8


@dataclass(frozen=True, slots=True)
class Mean:
    """A mean over seeds with its 95 % interval; `low` and `high` are None for one seed."""

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Difference:
    """`best` minus `other`, paired by seed. Without two common seeds there is no interval and no p."""

    best: str
    other: str
    mean: float | None
    low: float | None
    high: float | None
    n: int
    """Seeds that both arms have."""
    p: float | None
    """Two-sided, of the paired t test."""
    adjusted_p: float | None
    """Holm's, over the comparisons of the best arm with every other."""
    detectable: float | None
    """About the smallest true difference that this test would find in 80 % of repetitions, before Holm's correction."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """The best arm against every other."""

    best: str
    means: dict[str, Mean]
    differences: list[Difference]
    decided: bool
    """The best arm beats every other with adjusted p < 0.05. False where there is no other."""


def t_interval(values: Array) -> tuple[Array, Array]:
    """Student's 95 % interval of the mean along the last axis, with n-1 degrees of freedom; n >= 2."""
    n = values.shape[-1]
    mean = values.mean(axis=-1)
    half = _t_quantile(n) * values.std(axis=-1, ddof=1) / np.sqrt(n)
    return mean - half, mean + half


def bootstrap_interval(values: Array, seed: int = 0, resamples: int = RESAMPLES) -> tuple[float, float]:
    """The 95 % percentile bootstrap of the mean, at percentiles widened for small n.

    The plain percentile interval is too short by about sqrt((n-1)/n) and by the normal quantile in the place of t's
    (92 % coverage at n=10). Hesterberg (2015, "What teachers should know about the bootstrap", section 5.2) reads it
    at Phi(-sqrt(n/(n-1)) t) instead of 2.5 %, which mends both.
    """
    n = len(values)
    rows = np.random.default_rng(seed).integers(n, size=(resamples, n))
    tail = float(special.ndtr(-np.sqrt(n / (n - 1)) * _t_quantile(n)))
    low, high = np.quantile(values[rows].mean(axis=1), [tail, 1.0 - tail])
    return float(low), float(high)


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


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p: the i-th smallest of m times m-i+1, never falling, at most 1."""
    m, largest = len(p_values), 0.0
    adjusted = [0.0] * m
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (m - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def compare(arms: Mapping[str, Mapping[int, float]], direction: Direction) -> Comparison:
    """The arm with the best mean against every other, from one value per arm and seed.

    Each difference is the mean over the common seeds with its t interval and the two-sided p of the paired t test;
    Holm's correction is over the differences. An arm that shares no two seeds with the best leaves all undecided.
    Every test must succeed, so choosing the best arm from the same values costs nothing: where the two truly best
    arms are equal, one of them is declared the winner in at most 5 % of sweeps.
    """
    means = {name: mean_interval(list(values.values())) for name, values in arms.items()}
    sign = 1.0 if direction == "minimize" else -1.0
    best = min(means, key=lambda name: sign * means[name].mean)
    raw = [_paired(best, other, arms[best], arms[other]) for other in arms if other != best]
    differences = _adjust(raw)
    decided = bool(differences) and all(_beats(difference, sign) for difference in differences)
    return Comparison(best, means, differences, decided)


def probability_best(
    arms: Mapping[str, Sequence[float]], direction: Direction, seed: int = 0, draws: int = DRAWS
) -> dict[str, float] | None:
    """For each arm, the share of seeded Monte Carlo draws in which its mean is the best of all.

    Each draw takes every arm's mean from an independent scaled t: mean + s / sqrt(n) * t(n-1), the posterior of a
    normal mean under the flat prior. The pairing is not used. None for fewer than two arms, or where one has one seed.
    """
    if len(arms) < 2 or any(len(values) < 2 for values in arms.values()):
        return None
    random = np.random.default_rng(seed)
    posterior = np.stack([_posterior(np.asarray(values, dtype=np.float64), random, draws) for values in arms.values()])
    best = posterior.min(axis=0) if direction == "minimize" else posterior.max(axis=0)
    winners = posterior == best
    shares = (winners / winners.sum(axis=0)).mean(axis=1)
    return {name: float(share) for name, share in zip(arms, shares, strict=True)}


def _posterior(values: Array, random: np.random.Generator, draws: int) -> Array:
    n = len(values)
    noise = random.standard_t(n - 1, size=draws)
    return np.asarray(values.mean() + values.std(ddof=1) / np.sqrt(n) * noise)


def _paired(best: str, other: str, first: Mapping[int, float], second: Mapping[int, float]) -> Difference:
    common = sorted(first.keys() & second.keys())
    n = len(common)
    values = np.array([first[seed] - second[seed] for seed in common], dtype=np.float64)
    if n < 2:
        return Difference(best, other, float(values[0]) if n else None, None, None, n, None, None, None)
    low, high = t_interval(values)
    mean, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(n))
    detectable = (_t_quantile(n) + float(special.stdtrit(n - 1, POWER))) * error
    return Difference(best, other, mean, float(low), float(high), n, _two_sided_p(mean, error, n), None, detectable)


def _two_sided_p(mean: float, error: float, n: int) -> float:
    # Equal differences at every seed happen with metrics such as an accuracy of 0 or 1; t has its limits there.
    if error == 0.0:
        return 1.0 if mean == 0.0 else 0.0
    return float(2.0 * special.stdtr(n - 1, -abs(mean / error)))


def _adjust(differences: Sequence[Difference]) -> list[Difference]:
    """The differences with Holm's p. One that could not be tested still counts as a comparison, with p = 1."""
    adjusted = holm([1.0 if difference.p is None else difference.p for difference in differences])
    return [
        Difference(d.best, d.other, d.mean, d.low, d.high, d.n, d.p, None if d.p is None else p, d.detectable)
        for d, p in zip(differences, adjusted, strict=True)
    ]


def _beats(difference: Difference, sign: float) -> bool:
    if difference.mean is None or difference.adjusted_p is None:
        return False
    return sign * difference.mean < 0.0 and difference.adjusted_p < ALPHA


def _t_quantile(n: int) -> float:
    """t at 97.5 % with n-1 degrees of freedom: 4.303 for three seeds."""
    return float(special.stdtrit(n - 1, 1.0 - ALPHA / 2.0))
