"""What a longer training would gain: a power law with an offset, through the last two thirds of a validation curve.

Every exponent, offset and strength of autocorrelation that the reports leave possible is weighed, so that the interval
is wide where they do not tell them apart. The law knows nothing of a learning-rate schedule that ends with the budget.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from analysis.autoregression import Array, Draws, posterior_draws
from analysis.trend import noise_of

EXPONENTS = np.geomspace(0.1, 10.0, 40)
LEAST_REPORTS = 6
"""Fewer say nothing about a curve of three parameters; also of the reports that are fitted, of all curves together."""
MOST_POINTS = 48
"""Of a longer curve the means of so many stretches are fitted."""
TIMES = 2.0
"""The forecast is for a training of so many times its length."""
DRAWS = 2000
REFINEMENTS = 3
LEAST_ACCEPTED = 100


@dataclass(frozen=True, slots=True)
class Forecast:
    """How much better the metric would get if the training went on to `times` its length as it went."""

    gain: float
    low: float
    high: float
    times: float = TIMES
    exponent: float = 1.0
    """The median."""
    ends_at: float = 0.0
    """The median of what the fitted curve falls to at last."""
    foresees_its_end: bool | None = None
    """Whether the same fit without the last quarter of the reports contains what came; None where too few are left."""


@dataclass(frozen=True, slots=True)
class Band:
    """The fitted curve: at `x` (the training so far is 1) its median and its 95 % interval."""

    x: list[float]
    middle: list[float]
    low: list[float]
    high: list[float]


def forecast(costs: Array, floor: float) -> tuple[Forecast, Band] | None:
    """Of curves [R, n] (lower is better) over equal stretches of training, none of which can fall below `floor`.

    None where the reports are too few, or where no power law goes through them.
    """
    draws = _fit(costs, floor, 1.0)
    if draws is None:
        return None
    ends, drops, exponents, first = draws
    gain = drops * (1.0 - TIMES**-exponents) / (first**-exponents - 1.0)
    last = ends - drops / (first**-exponents - 1.0)
    low, middle, high = np.quantile(gain, [0.025, 0.5, 0.975])
    x = np.concatenate([np.linspace(first, 1.0, 24), np.linspace(1.0, TIMES, 25)[1:]])
    low_line, line, high_line = np.quantile(_curves(draws, x), [0.025, 0.5, 0.975], axis=0)
    told = Forecast(
        gain=float(middle),
        low=float(low),
        high=float(high),
        exponent=float(np.median(exponents)),
        ends_at=float(np.median(last)),
        foresees_its_end=_foresees_its_end(costs, floor),
    )
    return told, Band(x.tolist(), line.tolist(), low_line.tolist(), high_line.tolist())


_Fit = tuple[Array, Array, Array, float]
"""By draw the value at the end, the drop from the first fitted point to the end, the exponent; and that first point."""


def _fit(costs: Array, floor: float, share: float) -> _Fit | None:
    """Through the last two thirds of the first `share` of the reports."""
    n = math.ceil(share * costs.shape[1])
    start = n // 3
    if n < LEAST_REPORTS or n - start < 4 or costs.shape[0] * (n - start - 2) < 4:
        return None
    position = np.arange(1, n + 1) / n
    x, curves = _stretches(position[start:]), np.stack([_stretches(curve[start:n]) for curve in costs], axis=1)
    drawn, exponents = _drawn(x, curves)
    ends, drops = drawn.coefficients.T
    last = ends - drops / (x[0] ** -exponents - 1.0)
    possible = (drops >= 0.0) & (last >= floor)
    if possible.sum() < LEAST_ACCEPTED:
        return None
    return ends[possible], drops[possible], exponents[possible], float(x[0])


def _drawn(x: Array, curves: Array) -> tuple[Draws, Array]:
    """Draws and their exponents, from a grid that closes in on those that the reports leave possible."""
    grid = EXPONENTS
    for _ in range(REFINEMENTS):
        basis = _basis(x[None], grid[:, None], float(x[0]))
        drawn = posterior_draws(np.stack([np.ones_like(basis), basis], axis=-1), curves, DRAWS)
        found, cell = grid[drawn.designs], grid[1] / grid[0]
        grid = np.geomspace(max(found.min() / cell, EXPONENTS[0]), min(found.max() * cell, EXPONENTS[-1]), len(grid))
    return drawn, found


def _basis(x: Array, exponents: Array, first: float) -> Array:
    """A falling power of `x` that is 1 at `first` and 0 at the end of the training, x = 1."""
    return np.asarray((x**-exponents - 1.0) / (first**-exponents - 1.0))


def _curves(fit: _Fit, x: Array) -> Array:
    ends, drops, exponents, first = fit
    return np.asarray(ends[:, None] + drops[:, None] * _basis(x[None], exponents[:, None], first))


def _foresees_its_end(costs: Array, floor: float) -> bool | None:
    """Judged by the mean of the last quarter, which may lie outside the interval by the noise of a report."""
    n = costs.shape[1]
    kept = math.ceil(0.75 * n)
    earlier = _fit(costs, floor, kept / n) if n >= 2 * LEAST_REPORTS else None
    if earlier is None:
        return None
    low, high = np.quantile(_curves(earlier, np.arange(kept + 1, n + 1) / kept).mean(1), [0.005, 0.995])
    noise = noise_of(costs[:, n // 3 :])
    return bool(low - noise <= costs[:, kept:].mean() <= high + noise)


def _stretches(values: Array) -> Array:
    """The values, or the means of MOST_POINTS stretches of them."""
    if len(values) <= MOST_POINTS:
        return values
    return np.array([part.mean() for part in np.array_split(values, MOST_POINTS)])
