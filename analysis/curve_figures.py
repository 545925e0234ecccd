"""Figures of curves, with a control in the place of the horizontal axis's title that chooses what a training is
counted in.

Names from data are escaped, since plotly reads a little HTML in its texts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from analysis.columns import PROGRESS
from analysis.curves import ArmCurves, Array, Curve, MeanCurve, mean_curve, shared_axes, telling
from analysis.figure_style import clear, colour_of, escape, logarithmic, rounded, style
from analysis.numbers import plural
from analysis.records import TrialRecord
from analysis.sweep import Sweep

POINTS = 500
"""Of a curve on validation."""
STEP_POINTS = 400
"""Of a curve over optimizer steps; of every stretch the lowest and the highest stay, so that no spike is hidden."""
STEP_CURVES = 24
"""Trials whose steps are drawn."""

WORDS = {
    "steps": "optimizer steps",
    "examples": "examples",
    "tokens": "scored tokens",
    "flops": "training FLOPs",
    "seconds": "seconds of training",
    "joules": "joules of the GPUs",
    "cost": "cost",
}
BAND_OPACITY = 0.16
CHIP = {"bgcolor": "#dfe3e8", "bordercolor": "rgba(0,0,0,0)", "font": {"color": "#3d444d", "size": 13}}
Positions = Mapping[str, Array]


def axis_words(sweep: Sweep, axis: str) -> str:
    """`training FLOPs`, `cost in EUR`."""
    currency = (sweep.record.experiment.get("prices") or {}).get("currency", "")
    return f"cost in {currency}" if axis == "cost" and currency else WORDS[axis]


def validation_figure(sweep: Sweep, arms: Sequence[ArmCurves]) -> go.Figure:
    """The sweep's metric on validation: each replica, and from three on their mean with its 95 % band."""
    drawn = _Drawn(sweep, shared_axes([curve for each in arms for curve in each.curves]))
    drawn.fit([curve.values for each in arms for curve in each.curves])
    for each in arms:
        mean = mean_curve(each.curves)
        if mean is not None:
            drawn.band(each.arm, mean)
        for number, curve in enumerate(each.curves):
            drawn.line(each.arm, curve, faint=mean is not None, named=mean is None and number == 0)
        if mean is not None:
            drawn.mean(each.arm, mean)
    return drawn.figure(f"validation {sweep.record.metric}")


def training_figure(sweep: Sweep, trials: Sequence[TrialRecord]) -> go.Figure:
    """The loss as trained at each optimizer step of up to STEP_CURVES trials, evenly from the arms."""
    drawn = _Drawn(sweep, list(PROGRESS))
    named: set[str] = set()
    for trial in _evenly(trials, STEP_CURVES):
        steps = sweep.steps(trial)
        values = steps.metrics.get("loss")
        if values is not None and np.isfinite(values).any():
            finite = np.isfinite(values)
            axes = {axis: positions[finite] for axis, positions in steps.axes.items()}
            curve = Curve(trial.key, 0, axes, values[finite], values[finite])
            drawn.fit([values[finite]])
            drawn.line(trial.arm, curve, faint=False, named=trial.arm not in named, points=STEP_POINTS, width=1.0)
            named.add(trial.arm)
    return drawn.figure("training loss")


class _Drawn:
    """A figure whose traces have positions on several axes, of which a reader chooses one."""

    def __init__(self, sweep: Sweep, axes: Sequence[str]) -> None:
        self._sweep, self._axes, self._figure = sweep, list(axes), go.Figure()
        self._positions: list[dict[str, list[float | None]]] = []
        self._low, self._high = math.inf, -math.inf
        asked = str(sweep.record.budget.get("axis", "steps"))
        self._first = asked if asked in self._axes else "steps"

    def fit(self, values: Sequence[Array]) -> None:
        """What has to be seen whole; a band that goes beyond is cut there, since a wide one would press all flat."""
        self._low = min([self._low, *(float(each.min()) for each in values)])
        self._high = max([self._high, *(float(each.max()) for each in values)])

    def line(
        self, arm: str, curve: Curve, *, faint: bool, named: bool, points: int = POINTS, width: float = 1.8
    ) -> None:
        """A trial."""
        kept = telling(curve.values, points)
        self._add(
            {axis: positions[kept] for axis, positions in curve.axes.items()},
            y=rounded(curve.values[kept]),
            mode="lines+markers" if len(kept) < 3 else "lines",
            name=escape(arm),
            legendgroup=arm,
            showlegend=named,
            meta=curve.key,
            opacity=0.45 if faint else 1.0,
            line={"color": self._colour(arm), "width": 1.0 if faint else width},
            hovertemplate=f"{escape(curve.key)}<br>%{{x:.4s}}: %{{y:.4g}}<extra></extra>",
        )

    def mean(self, arm: str, mean: MeanCurve) -> None:
        """The mean over replicas."""
        kept = telling(mean.mean, POINTS)
        bounds = [f"{low:.4g} to {high:.4g}" for low, high in zip(mean.low[kept], mean.high[kept], strict=True)]
        words = f"{escape(arm)}, mean of {plural(mean.n, 'seed')}"
        self._add(
            {axis: positions[kept] for axis, positions in mean.axes.items()},
            y=rounded(mean.mean[kept]),
            mode="lines",
            name=escape(arm),
            legendgroup=arm,
            text=bounds,
            line={"color": self._colour(arm), "width": 2.4},
            hovertemplate=f"{words}<br>%{{x:.4s}}: %{{y:.4g}} (95 %: %{{text}})<extra></extra>",
        )

    def band(self, arm: str, mean: MeanCurve) -> None:
        """The interval of the mean, as an area."""
        kept = telling(mean.mean, POINTS)
        there_and_back = np.concatenate([kept, kept[::-1]])
        edge = np.concatenate([mean.high[kept], mean.low[kept][::-1]])
        self._add(
            {axis: positions[there_and_back] for axis, positions in mean.axes.items()},
            y=rounded(np.clip(edge, self._low, self._high)),
            mode="lines",
            fill="toself",
            fillcolor=clear(self._colour(arm), BAND_OPACITY),
            line={"width": 0},
            legendgroup=arm,
            showlegend=False,
            hoverinfo="skip",
        )

    def figure(self, title: str) -> go.Figure:
        """The whole, on the axis of the budget at first."""
        # In the place of the axis's title stands the control.
        style(self._figure, height=400, x="", y=title)
        self._figure.update_layout(margin={"b": 64})
        if self._positions:
            self._figure.update_layout(updatemenus=[self._menu()])
            if "loss" in title:
                logarithmic(self._figure, np.array([self._low, self._high]))
        return self._figure

    def _add(self, positions: Positions, **trace: Any) -> None:
        everywhere = {axis: rounded(positions[axis]) for axis in self._axes}
        self._positions.append(everywhere)
        self._figure.add_scatter(x=everywhere[self._first], **trace)

    def _menu(self) -> dict[str, Any]:
        buttons = [
            {
                "label": f"against {escape(axis_words(self._sweep, axis))}",
                "method": "update",
                "args": [{"x": [each[axis] for each in self._positions]}, {"xaxis.autorange": True}],
            }
            for axis in self._axes
        ]
        return {
            "buttons": buttons,
            "active": self._axes.index(self._first),
            "direction": "up",
            "x": 0.5,
            "xanchor": "center",
            "y": 0.0,
            "yanchor": "top",
            "pad": {"t": 30},
            **CHIP,
        }

    def _colour(self, arm: str) -> str:
        return colour_of(self._sweep.record.arms, arm)


def _evenly(trials: Sequence[TrialRecord], limit: int) -> list[TrialRecord]:
    """The first of every arm, then the second of every arm, and so on."""
    by_arm: dict[str, list[TrialRecord]] = {}
    for trial in trials:
        by_arm.setdefault(trial.arm, []).append(trial)
    rounds = [group[i] for i in range(len(trials)) for group in by_arm.values() if i < len(group)]
    chosen = {trial.key for trial in rounds[:limit]}
    return [trial for trial in trials if trial.key in chosen]
