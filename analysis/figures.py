"""The figures of a report, each as a plotly Figure; those of the search are in `search_figures.py`.

Names from data are escaped, since plotly reads a little HTML in its texts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go

from analysis.arms import ArmResult
from analysis.figure_style import GREY, colour_of, escape, style
from analysis.numbers import metric_unit, plural, significant


def replica_dots(arms: Sequence[ArmResult], names: Sequence[str], reference: Mapping[str, Any] | None) -> go.Figure:
    """Each arm's values by seed, its mean and 95 % interval, and the generator's cross-entropy as a line."""
    figure = go.Figure()
    shown = [arm for arm in arms if arm.metric is not None]
    for arm in shown:
        _seed_dots(figure, arm, colour_of(names, arm.name))
        _interval_bar(figure, arm, colour_of(names, arm.name))
    style(figure, height=110 + 52 * max(1, len(shown)), x=_axis_title(shown), y="", legend=False)
    figure.update_yaxes(autorange="reversed", showgrid=False, ticklabelstandoff=8)
    figure.update_layout(margin_t=44)
    _fit(figure, shown, None if reference is None else reference["generator_cross_entropy"])
    return figure


def _seed_dots(figure: go.Figure, arm: ArmResult, colour: str) -> None:
    metric = arm.metric
    assert metric is not None
    symbol = "circle" if metric.decides else "circle-open"
    figure.add_scatter(
        x=list(metric.seeds.values()),
        y=[_label(arm)] * metric.n,
        mode="markers",
        legendgroup=arm.name,
        customdata=[arm.trials.get(seed) for seed in metric.seeds],
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
        legendgroup=arm.name,
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
        text=f"the generator's<br>cross-entropy, {significant(reference)}",
        align="left" if reference < (low + high) / 2 else "right",
        font={"color": GREY, "size": 12},
    )


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
