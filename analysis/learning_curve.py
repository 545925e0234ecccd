"""What a longer training would gain: a power law or an exponential with an offset, through the last two thirds.

Every shape, offset and strength of autocorrelation that the reports leave possible is weighed, so that the interval is
wide where they do not tell them apart. It holds if the curve goes on as one of the two, which no report can show: a
second, slower fall that has not begun yet is not foreseen, nor a learning-rate schedule that ends with the budget.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.autoregression import Array, posterior_draws
from analysis.trend import noise_of

POWER, EXPONENTIAL = 0, 1
RATES = {POWER: np.geomspace(0.1, 10.0, 40), EXPONENTIAL: np.geomspace(0.3, 30.0, 40)}
"""Exponents, and falls per length of the training: equally likely on a logarithmic scale."""
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
    power_law: float = 1.0
    """How likely the power law is, against the exponential."""
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

    None where the reports are too few, or where no such curve goes through them.
    """
    fit = _fit(costs, floor, 1.0)
    if fit is None:
        return None
    low, middle, high = np.quantile(-fit.at(np.array([TIMES]))[:, 0] + fit.ends, [0.025, 0.5, 0.975])
    x = np.concatenate([np.linspace(fit.first, 1.0, 24), np.linspace(1.0, TIMES, 25)[1:]])
    low_line, line, high_line = np.quantile(fit.at(x), [0.025, 0.5, 0.975], axis=0)
    told = Forecast(
        gain=float(middle),
        low=float(low),
        high=float(high),
        power_law=float((fit.shapes.kinds == POWER).mean()),
        ends_at=float(np.median(fit.lowest)),
        foresees_its_end=_foresees_its_end(costs, floor),
    )
    return told, Band(x.tolist(), line.tolist(), low_line.tolist(), high_line.tolist())


@dataclass(frozen=True, slots=True)
class _Shapes:
    """Falling curves, by kind and rate."""

    kinds: npt.NDArray[np.int64]
    rates: Array

    def at(self, x: Array, first: float) -> Array:
        """[N, len(x)]: scaled to be 1 at `first` and 0 at the end of the training, x = 1."""
        start, end = self._raw(np.array([first])), self._raw(np.ones(1))
        return (self._raw(x) - end) / (start - end)

    def lowest(self, first: float) -> Array:
        """[N]: what they fall to at last, on the same scale."""
        start, end = self._raw(np.array([first]))[:, 0], self._raw(np.ones(1))[:, 0]
        return -end / (start - end)

    def _raw(self, x: Array) -> Array:
        rates = self.rates[:, None]
        return np.where(self.kinds[:, None] == POWER, x**-rates, np.exp(-rates * x))


@dataclass(frozen=True, slots=True)
class _Fit:
    """Curves that the reports leave possible."""

    ends: Array
    """The value at the end of the training, by draw."""
    drops: Array
    """From the first fitted point to the end."""
    shapes: _Shapes
    first: float

    def at(self, x: Array) -> Array:
        """[draws, len(x)]."""
        return self.ends[:, None] + self.drops[:, None] * self.shapes.at(x, self.first)

    @property
    def lowest(self) -> Array:
        """By draw, what the curve falls to at last."""
        return self.ends + self.drops * self.shapes.lowest(self.first)


def _fit(costs: Array, floor: float, share: float) -> _Fit | None:
    """Through the last two thirds of the first `share` of the reports."""
    n = math.ceil(share * costs.shape[1])
    start = n // 3
    if n < LEAST_REPORTS or n - start < 4 or costs.shape[0] * (n - start - 2) < 4:
        return None
    position = np.arange(1, n + 1) / n
    x, curves = _stretches(position[start:]), np.stack([_stretches(curve[start:n]) for curve in costs], axis=1)
    fit = _drawn(x, curves)
    possible = (fit.drops >= 0.0) & (fit.lowest >= floor)
    if possible.sum() < LEAST_ACCEPTED:
        return None
    shapes = _Shapes(fit.shapes.kinds[possible], fit.shapes.rates[possible])
    return _Fit(fit.ends[possible], fit.drops[possible], shapes, fit.first)


def _drawn(x: Array, curves: Array) -> _Fit:
    """Draws from grids that close in on the shapes that the reports leave possible."""
    grids, first = dict(RATES), float(x[0])
    for _ in range(REFINEMENTS):
        kinds = np.concatenate([np.full(len(rates), kind) for kind, rates in grids.items()])
        shapes = _Shapes(kinds, np.concatenate(list(grids.values())))
        basis = shapes.at(x, first)
        drawn = posterior_draws(np.stack([np.ones_like(basis), basis], axis=-1), curves, DRAWS)
        found = _Shapes(shapes.kinds[drawn.designs], shapes.rates[drawn.designs])
        grids = {kind: _closer(rates, found.rates[found.kinds == kind]) for kind, rates in grids.items()}
    ends, drops = drawn.coefficients.T
    return _Fit(ends, drops, found, first)


def _closer(rates: Array, found: Array) -> Array:
    """As many rates over the range of those that were drawn, and a cell beyond."""
    if not len(found):
        return rates
    cell = rates[1] / rates[0]
    return np.geomspace(max(found.min() / cell, rates[0]), min(found.max() * cell, rates[-1]), len(rates))


def _foresees_its_end(costs: Array, floor: float) -> bool | None:
    """Judged by the mean of the last quarter, which may lie outside the interval by the noise of a report."""
    n = costs.shape[1]
    kept = math.ceil(0.75 * n)
    earlier = _fit(costs, floor, kept / n) if n >= 2 * LEAST_REPORTS else None
    if earlier is None:
        return None
    low, high = np.quantile(earlier.at(_stretches(np.arange(kept + 1, n + 1) / kept)).mean(1), [0.005, 0.995])
    noise = noise_of(costs[:, n // 3 :])
    return bool(low - noise <= costs[:, kept:].mean() <= high + noise)


def _stretches(values: Array) -> Array:
    """The values, or the means of MOST_POINTS stretches of them."""
    if len(values) <= MOST_POINTS:
        return values
    return np.array([part.mean() for part in np.array_split(values, MOST_POINTS)])
