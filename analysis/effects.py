"""By how much one arm differs from another: in the metric's unit, in per cent, in spreads of a seed, and as a chance.

Pairs of one seed are subtracted seed by seed; without pairs the test is Welch's. Below ten pairs the differences are
taken for normal (t); from ten on interval and p are a bootstrap's. An interval leaves 0 out where its p is below 0.05.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from scipy import special

from analysis.intervals import (
    ALPHA,
    BOOTSTRAP_FROM,
    CONFIDENCE,
    Array,
    Direction,
    bootstrap_t,
    t_quantile,
)

POWER = 0.8


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One arm minus another. What one seed, or equal values at every seed, cannot tell is None."""

    mean: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    """Pairs of equal seed; without pairs the smaller number of seeds."""
    p: float | None = None
    """Two-sided."""
    adjusted_p: float | None = None
    """Holm's, over the comparisons that are shown together, or over all pairs of arms (`over_all_pairs`)."""
    detectable: float | None = None
    """About the smallest true difference that this test would find in 80 % of repetitions, before Holm's correction."""
    paired: bool = True
    relative: float | None = None
    """The difference as a share of the other arm's mean, with Fieller's 95 % interval; None unless that mean is clearly
    above 0."""
    relative_low: float | None = None
    relative_high: float | None = None
    size: float | None = None
    """In standard deviations of the difference between two runs (Hedges' correction), with its 95 % interval."""
    size_low: float | None = None
    size_high: float | None = None
    probability: float | None = None
    """That the first arm is better in a further run of each (of equal seed, where they are paired)."""
    probability_low: float | None = None
    probability_high: float | None = None
    better_at: int | None = None
    """At how many of the pairs the first arm is better."""


AnyEffect = TypeVar("AnyEffect", bound=Effect)


@dataclass(frozen=True, slots=True)
class _Gap:
    """What both tests are made of."""

    mean: float
    error: float
    """Standard error of the mean difference."""
    freedom: float
    spread: float
    """Of the difference between two runs."""


def effect(
    first: Mapping[int, float], second: Mapping[int, float], direction: Direction, paired: bool = True
) -> Effect:
    """`first` minus `second`, from one value per seed each. Unpaired values are those of different seeds or data."""
    if paired:
        common = sorted(first.keys() & second.keys())
        a, b = (np.array([values[seed] for seed in common], dtype=np.float64) for values in (first, second))
    else:
        a, b = (np.array(list(values.values()), dtype=np.float64) for values in (first, second))
    n = min(len(a), len(b))
    if n < 2:
        return Effect(mean=float(a.mean() - b.mean()) if n else None, n=n, paired=paired)
    gap = _paired(a - b) if paired else _welch(a, b)
    sign = 1.0 if direction == "minimize" else -1.0
    found = _bootstrap(a - b, gap) if paired and n >= BOOTSTRAP_FROM and gap.error > 0.0 else _by_t(gap, n)
    better_at = int((sign * (a - b) < 0.0).sum()) if paired else None
    return replace(
        found,
        **_relative(a, b, gap, paired),
        **_size(gap, sign),
        n=n,
        paired=paired,
        better_at=better_at,
        detectable=_detectable(gap),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p: the i-th smallest of m times m-i+1, never falling, at most 1."""
    m, largest = len(p_values), 0.0
    adjusted = [0.0] * m
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (m - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


def adjusted(effects: Sequence[AnyEffect], untested: int = 0) -> list[AnyEffect]:
    """The effects with Holm's p. One that could not be tested still counts as a comparison, with p = 1, and so do
    `untested` more."""
    values = holm([*(1.0 if item.p is None else item.p for item in effects), *[1.0] * untested])
    return [
        replace(item, adjusted_p=None if item.p is None else value)
        for item, value in zip(effects, values[: len(effects)], strict=True)
    ]


def over_all_pairs(found: Sequence[AnyEffect]) -> list[AnyEffect]:
    """The effects of one arm against each other, with Holm's p over all pairs of arms: those of the others count as
    comparisons with p = 1. Where the one arm was chosen by the same numbers, fewer would find too much."""
    return adjusted(found, untested=len(found) * (len(found) - 1) // 2)


def is_better(found: Effect, direction: Direction) -> bool:
    """Whether the first arm is better, with Holm-corrected p < 0.05."""
    if found.mean is None or found.adjusted_p is None:
        return False
    return (found.mean < 0.0) == (direction == "minimize") and found.mean != 0.0 and found.adjusted_p < ALPHA


def _paired(differences: Array) -> _Gap:
    n, spread = len(differences), float(differences.std(ddof=1))
    return _Gap(float(differences.mean()), spread / math.sqrt(n), n - 1, spread)


def _welch(a: Array, b: Array) -> _Gap:
    """Degrees of freedom by Welch and Satterthwaite."""
    parts = [float(values.var(ddof=1)) / len(values) for values in (a, b)]
    variance = sum(parts)
    shares = sum(part**2 / (len(values) - 1) for part, values in zip(parts, (a, b), strict=True))
    freedom = variance**2 / shares if shares > 0.0 else len(a) + len(b) - 2.0
    spread = math.sqrt(float(a.var(ddof=1) + b.var(ddof=1)))
    return _Gap(float(a.mean() - b.mean()), math.sqrt(variance), freedom, spread)


def _by_t(gap: _Gap, n: int) -> Effect:
    half = t_quantile(gap.freedom) * gap.error
    # Equal differences at every seed happen with metrics such as an accuracy of 0 or 1; t has its limits there.
    p = float(gap.mean == 0.0) if gap.error == 0.0 else 2.0 * special.stdtr(gap.freedom, -abs(gap.mean / gap.error))
    return Effect(mean=gap.mean, low=gap.mean - half, high=gap.mean + half, n=n, p=float(p))


def _detectable(gap: _Gap) -> float | None:
    power = float(special.stdtrit(gap.freedom, POWER))
    return (t_quantile(gap.freedom) + power) * gap.error or None


def _bootstrap(differences: Array, gap: _Gap) -> Effect:
    errors = bootstrap_t(differences)
    half = gap.error * float(np.quantile(errors, CONFIDENCE))
    p = max(float((errors >= abs(gap.mean) / gap.error).mean()), 1.0 / len(errors))
    return Effect(mean=gap.mean, low=gap.mean - half, high=gap.mean + half, n=len(differences), p=p)


def _relative(a: Array, b: Array, gap: _Gap, paired: bool) -> dict[str, float | None]:
    """The quotient of two means less 1, by Fieller: all quotients r for which the t test allows mean(a) = r mean(b)."""
    first, second = float(a.mean()), float(b.mean())
    if second <= 0.0:
        return {}
    t2 = t_quantile(gap.freedom) ** 2
    vaa, vbb = float(a.var(ddof=1)) / len(a), float(b.var(ddof=1)) / len(b)
    vab = float(np.cov(a, b)[0, 1]) / len(a) if paired else 0.0
    square, middle, rest = second**2 - t2 * vbb, first * second - t2 * vab, first**2 - t2 * vaa
    if square <= 0.0:
        return {}
    half = math.sqrt(max(middle**2 - square * rest, 0.0))
    low, high = ((middle + side * half) / square - 1.0 for side in (-1.0, 1.0))
    return {"relative": first / second - 1.0, "relative_low": low, "relative_high": high}


def _size(gap: _Gap, sign: float) -> dict[str, float | None]:
    """From the noncentral t distribution, which is exact for normal pairs; two pairs are too few."""
    if gap.error == 0.0 or gap.freedom <= 1.0:
        return {}
    scale, t = gap.error / gap.spread, gap.mean / gap.error
    correction = math.exp(
        math.lgamma(gap.freedom / 2.0) - math.lgamma((gap.freedom - 1.0) / 2.0) - math.log(gap.freedom / 2.0) / 2.0
    )
    value = gap.mean / gap.spread * correction
    low, high = (scale * float(special.nctdtrinc(gap.freedom, level, t)) for level in (1.0 - ALPHA / 2.0, ALPHA / 2.0))
    if not (math.isfinite(low) and math.isfinite(high)):
        return {"size": value}
    chances = sorted(float(special.ndtr(-sign * bound)) for bound in (low, high))
    return {
        "size": value,
        "size_low": low,
        "size_high": high,
        "probability": float(special.ndtr(-sign * value)),
        "probability_low": chances[0],
        "probability_high": chances[1],
    }
