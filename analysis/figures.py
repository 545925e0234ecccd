"""The figures of a report, each as a plotly Figure; those of the search are in `search_figures.py`.

Names from data are escaped, since plotly reads a little HTML in its texts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from analysis.arms import ArmResult, chosen_replicas
from analysis.curves import validation_curve
from analysis.figure_style import COLOURS, GREY, colour_of, escape, style
from analysis.numbers import metric_unit, plural, significant
from analysis.records import TrialRecord
from analysis.sweep import Sweep


def replica_dots(arms: Sequence[ArmResult], names: Sequence[str], reference: Mapping[str, Any] | None) -> go.Figure:
    """Each arm's values by seed, its mean and 95 % interval, and the generator's cross-entropy as a line."""
    figure = go.Figure()
    shown = [arm for arm in arms if arm.metric is not None]
    for arm in shown:
        _seed_dots(figure, arm, colour_of(names, arm.name))
        _interval_bar(figure, arm, colour_of(names, arm.name))
    style(figure, height=110 + 52 * max(1, len(shown)), x=_axis_title(shown), y="", legend=False)
    figure.update_yaxes(autorange="reversed", showgrid=False, ticklabelstandoff=8)
    _fit(figure, shown, None if reference is None else reference["generator_cross_entropy"])
    return figure


def validation_curves(sweep: Sweep, task: str) -> go.Figure:
    """The objective's metric on validation against the budget axis: one line per replica, one colour per arm.

    An arm without replicas is shown by its best search trial, dashed.
    """
    figure, record = go.Figure(), sweep.record
    axis = str(record.budget.get("axis", "steps"))
    for arm in record.arms:
        replicas = [trial for trial in chosen_replicas(sweep, task, arm) if sweep.reports(trial)]
        best = sweep.best_search_trial(task, arm)
        _arm_curves(figure, sweep, replicas or ([best] if best else []), axis, "solid" if replicas else "dash")
    title = "training FLOPs" if axis == "flops" else "seconds of training" if axis == "seconds" else axis
    style(figure, height=380, x=title, y=f"validation {record.metric}")
    if record.metric == "loss":
        _logarithmic(figure)
    return figure


def importance_bars(importance: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """For each study, how much each searched parameter moved the objective."""
    figure = go.Figure()
    parameters = sorted({name for shares in importance.values() for name in shares})
    for number, (study, shares) in enumerate(importance.items()):
        figure.add_bar(
            x=[shares.get(name) for name in parameters],
            y=[escape(name) for name in parameters],
            orientation="h",
            name=escape(study),
            marker={"color": COLOURS[number % len(COLOURS)]},
            hovertemplate="%{y}: %{x:.2f}<extra></extra>",
        )
    height = 120 + (14 * len(importance) + 14) * max(1, len(parameters))
    style(figure, height=height, x="importance (share of variance)", y="")
    figure.update_layout(bargap=0.3)
    figure.update_yaxes(autorange="reversed", showgrid=False, ticklabelstandoff=8)
    return figure


def _seed_dots(figure: go.Figure, arm: ArmResult, colour: str) -> None:
    metric = arm.metric
    assert metric is not None
    symbol = "circle" if metric.decides else "circle-open"
    figure.add_scatter(
        x=list(metric.seeds.values()),
        y=[_label(arm)] * metric.n,
        mode="markers",
        marker={"color": colour, "size": 9, "opacity": 0.6, "symbol": symbol},
        hovertext=[f"seed {seed}: {significant(value)}" for seed, value in metric.seeds.items()],
        hoverinfo="text",
    )


def _interval_bar(figure: go.Figure, arm: ArmResult, colour: str) -> None:
    metric = arm.metric
    if metric is None or metric.low is None or metric.high is None:
        return
    bounds = f"{significant(metric.low)} to {significant(metric.high)}"
    figure.add_scatter(
        x=[metric.mean],
        y=[_label(arm)],
        mode="markers",
        marker={"size": 13, "symbol": "line-ns", "line": {"color": colour, "width": 3}},
        error_x={
            "type": "data",
            "array": [metric.high - metric.mean],
            "arrayminus": [metric.mean - metric.low],
            "color": colour,
            "thickness": 2.5,
            "width": 6,
        },
        hovertext=f"mean {significant(metric.mean)}, 95 % interval {bounds}",
        hoverinfo="text",
    )


def _arm_curves(figure: go.Figure, sweep: Sweep, trials: Sequence[TrialRecord], axis: str, dash: str) -> None:
    curves = [validation_curve(sweep, trial, axis, sweep.record.metric) for trial in trials]
    for number, curve in enumerate(curve for curve in curves if len(curve.x)):
        arm = trials[0].arm
        figure.add_scatter(
            x=curve.x,
            y=curve.y,
            mode="lines+markers" if len(curve.x) < 3 else "lines",
            name=escape(arm),
            legendgroup=arm,
            showlegend=number == 0,
            line={"color": colour_of(sweep.record.arms, arm), "width": 1.8, "dash": dash},
            hovertemplate=f"{escape(curve.key)}<br>%{{x:.4s}} {axis}: %{{y:.4g}}<extra></extra>",
        )


def _fit(figure: go.Figure, arms: Sequence[ArmResult], reference: float | None) -> None:
    """Set the range so that nothing touches an edge, and draw the reference line with its name on the roomier side."""
    metrics = [arm.metric for arm in arms if arm.metric is not None]
    known = [reference, *(b for m in metrics for b in (m.low, m.high, *m.seeds.values()))]
    values = [value for value in known if value is not None]
    if not values:
        return
    low, high = min(values), max(values)
    pad = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    figure.update_xaxes(range=[low - pad, high + pad])
    if reference is None:
        return
    figure.add_vline(x=reference, line={"color": GREY, "dash": "dot", "width": 1.5})
    figure.add_annotation(
        x=reference,
        y=1.0,
        yref="paper",
        yanchor="bottom",
        xanchor="left" if reference < (low + high) / 2 else "right",
        showarrow=False,
        text=f"the generator's cross-entropy, {significant(reference)}",
        font={"color": GREY, "size": 12},
    )


def _logarithmic(figure: go.Figure) -> None:
    """A logarithmic y axis where the curves fall far, since the arms part at the low end."""
    values = np.concatenate([np.asarray(trace.y, dtype=np.float64) for trace in figure.data] or [np.ones(1)])
    if values.min() <= 0.0 or values.max() < 4.0 * values.min():
        return
    decades = range(math.floor(math.log10(values.min())), math.ceil(math.log10(values.max())) + 1)
    ticks = [digit * 10.0**decade for decade in decades for digit in (1, 2, 3, 5)]
    figure.update_yaxes(type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])


def _axis_title(arms: Sequence[ArmResult]) -> str:
    metrics = [arm.metric for arm in arms if arm.metric is not None]
    if not metrics:
        return ""
    split = "test" if all(metric.decides for metric in metrics) else "test (search only: validation)"
    if not any(metric.decides for metric in metrics):
        split = "validation"
    unit = metric_unit(metrics[0].name)
    return f"{split} {metrics[0].name}" + (f", {unit}" if unit else "")


def _label(arm: ArmResult) -> str:
    assert arm.metric is not None
    basis = plural(arm.metric.n, "seed") if arm.metric.decides else "search only"
    return f"{escape(arm.name)}<br><span style='font-size:11px'>{basis}</span>"
