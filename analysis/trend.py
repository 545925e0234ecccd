"""How a metric moved over the last third of a training's reports: a trend with its interval, and jumps to the worse."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from analysis.autoregression import Array, posterior_draws
from analysis.intervals import t_interval

LEAST_WINDOW = 3
LEAST_ALONE = 5
"""A curve without replicas needs so many reports to lay a line through: of its last third, at most of its last half."""
REPLICAS_FOR_T = 3
"""From so many curves on, the trend is judged over them, with nothing assumed of the noise along a curve."""
RISE_MARGINS, RISE_NOISE = 5.0, 6.0
"""Unstable: a report of the last third is worse than the median of the five before it by more than so many margins, and
so many times the curve's own noise."""
DRAWS = 4000


@dataclass(frozen=True, slots=True)
class Trend:
    """How much better the metric got over the last third of the reports, by a straight line: below 0 it got worse."""

    gain: float
    low: float
    high: float
    reports: int
    """In the last third, or the last half where that is too few."""
    method: str


def trend_of(costs: Array) -> Trend | None:
    """Of curves [R, n], lower is better, over their last third. None where too few reports are there to tell.

    From three curves on Student's t over the slopes of each; below, least squares with autoregressive noise.
    """
    replicas, n = costs.shape
    window = max(LEAST_WINDOW if replicas >= REPLICAS_FOR_T else LEAST_ALONE, math.ceil(n / 3))
    if n < 2 * window:
        return None
    place = np.linspace(-0.5, 0.5, window)
    last = costs[:, -window:]
    if replicas >= REPLICAS_FOR_T:
        gains = -(last - last.mean(1, keepdims=True)) @ place / (place**2).sum()
        low, high = (float(bound) for bound in t_interval(gains))
        return Trend(float(gains.mean()), low, high, window, f"Student's t over {replicas} trainings")
    design = np.stack([np.ones(window), place], axis=1)
    drawn = -posterior_draws(design[None], last.T, DRAWS).coefficients[:, 1]
    low, middle, high = (float(bound) for bound in np.quantile(drawn, [0.025, 0.5, 0.975]))
    return Trend(middle, low, high, window, "one straight line with autoregressive noise")


def jumps(cost: Array, margin: float) -> bool:
    """Whether a report of the last third stands out to the worse from the reports before it."""
    start = len(cost) - max(LEAST_WINDOW, math.ceil(len(cost) / 3))
    if start < LEAST_ALONE:
        return False
    usual = np.median(np.lib.stride_tricks.sliding_window_view(cost[:-1], LEAST_ALONE), axis=1)
    rise = float((cost[LEAST_ALONE:] - usual)[start - LEAST_ALONE :].max())
    return rise > RISE_MARGINS * margin and rise > RISE_NOISE * noise_of(cost[None, :start])


def noise_of(costs: Array) -> float:
    """About the standard deviation of a report around its curve [R, n], whatever single reports do."""
    return 1.4826 * float(np.median(np.abs(np.diff(costs)))) / math.sqrt(2.0)
