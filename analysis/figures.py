"""The figures of a report, each as a plotly Figure.

All work on a light and on a dark page: clear background, grey letters, colours of middle brightness. Names from data
are escaped, since plotly reads a little HTML in its texts.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from analysis.arms import ArmResult, chosen_replicas
from analysis.curves import validation_curve
from analysis.numbers import metric_unit, plural, significant
from analysis.records import TrialRecord
from analysis.sweep import Sweep

GREY = "#7d8590"
GRID = "rgba(125,133,144,0.22)"
COLOURS = ("#4c8be0", "#e07b39", "#2fa36b", "#b565c9", "#d4524a", "#9a8f1f", "#1aa0a8", "#a9744f")
SYMBOLS = {
    "completed": "circle",
    "pruned": "triangle-down-open",
    "running": "diamond-open",
    "waiting": "circle-open-dot",
    "failed": "x",
}


def replica_dots(arms: Sequence[ArmResult], names: Sequence[str], reference: Mapping[str, Any] | None) -> go.Figure:
    """Each arm's values by seed, its mean and 95 % interval, and the generator's cross-entropy as a line."""
    figure = go.Figure()
    shown = [arm for arm in arms if arm.metric is not None]
    for arm in shown:
        _seed_dots(figure, arm, _colour(names, arm.name))
        _interval_bar(figure, arm, _colour(names, arm.name))
    _style(figure, height=110 + 52 * max(1, len(shown)), x=_axis_title(shown), y="", legend=False)
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
    _style(figure, height=380, x=title, y=f"validation {record.metric}")
    if record.metric == "loss":
        _logarithmic(figure)
    return figure


def search_plot(sweep: Sweep, task: str) -> go.Figure:
    """The objective of each search trial over its number: colour by arm, symbol by state.

    Trials without a value (failed before the first report, or waiting) stand in a row at the upper edge.
    """
    figure = go.Figure()
    trials = sweep.select(task=task, phase="search")
    for arm in sweep.record.arms:
        for state, symbol in SYMBOLS.items():
            group = [trial for trial in trials if trial.arm == arm and trial.state == state]
            _search_trace(figure, sweep, arm, symbol, [t for t in group if t.objective is not None], with_value=True)
            _search_trace(figure, sweep, arm, symbol, [t for t in group if t.objective is None], with_value=False)
    for arm in sweep.record.arms:
        if any(trial.arm == arm for trial in trials):
            _legend_entry(figure, _escape(arm), {"color": _colour(sweep.record.arms, arm), "symbol": "circle"})
    for state, symbol in SYMBOLS.items():
        if any(trial.state == state for trial in trials):
            _legend_entry(figure, state, {"color": GREY, "symbol": symbol})
    _style(figure, height=380, x="trial", y=f"best validation {sweep.record.metric}")
    figure.update_layout(yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True})
    return figure


def importance_bars(importance: Mapping[str, Mapping[str, float]]) -> go.Figure:
    """For each study, how much each searched parameter moved the objective."""
    figure = go.Figure()
    parameters = sorted({name for shares in importance.values() for name in shares})
    for number, (study, shares) in enumerate(importance.items()):
        figure.add_bar(
            x=[shares.get(name) for name in parameters],
            y=[_escape(name) for name in parameters],
            orientation="h",
            name=_escape(study),
            marker={"color": COLOURS[number % len(COLOURS)]},
            hovertemplate="%{y}: %{x:.2f}<extra></extra>",
        )
    height = 120 + (14 * len(importance) + 14) * max(1, len(parameters))
    _style(figure, height=height, x="importance (share of variance)", y="")
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
            name=_escape(arm),
            legendgroup=arm,
            showlegend=number == 0,
            line={"color": _colour(sweep.record.arms, arm), "width": 1.8, "dash": dash},
            hovertemplate=f"{_escape(curve.key)}<br>%{{x:.4s}} {axis}: %{{y:.4g}}<extra></extra>",
        )


def _search_trace(
    figure: go.Figure, sweep: Sweep, arm: str, symbol: str, trials: Sequence[TrialRecord], *, with_value: bool
) -> None:
    if not trials:
        return
    text = [f"{trial.key}, {trial.state}: {_short(trial.reason) or significant(trial.objective)}" for trial in trials]
    figure.add_scatter(
        x=[trial.number for trial in trials],
        y=[trial.objective if with_value else 0.98 for trial in trials],
        yaxis="y" if with_value else "y2",
        mode="markers",
        showlegend=False,
        marker={"color": _colour(sweep.record.arms, arm), "size": 9, "opacity": 0.8, "symbol": symbol},
        hovertext=[_escape(line) for line in text],
        hoverinfo="text",
    )


def _legend_entry(figure: go.Figure, name: str, marker: dict[str, Any]) -> None:
    figure.add_scatter(x=[None], y=[None], mode="markers", name=name, marker={"size": 9, **marker})


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


def _style(figure: go.Figure, *, height: int, x: str, y: str, legend: bool = True) -> None:
    axis = {"gridcolor": GRID, "linecolor": GRID, "zeroline": False, "automargin": True, "title_standoff": 10}
    figure.update_layout(
        template="none",
        height=height,
        margin={"l": 16, "r": 16, "t": 30, "b": 16},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"family": "system-ui, -apple-system, Segoe UI, Roboto, sans-serif", "size": 13, "color": GREY},
        showlegend=legend,
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "xanchor": "left", "x": 0.0},
        dragmode=False,
        modebar={"bgcolor": "rgba(0,0,0,0)", "color": GREY, "activecolor": COLOURS[0]},
        hovermode="closest",
    )
    figure.update_xaxes(title={"text": x, "font": {"size": 13}}, **axis)
    figure.update_yaxes(title={"text": y, "font": {"size": 13}}, **axis)


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
    return f"{_escape(arm.name)}<br><span style='font-size:11px'>{basis}</span>"


def _colour(names: Sequence[str], name: str) -> str:
    return COLOURS[list(names).index(name) % len(COLOURS)]


def _escape(text: str) -> str:
    return html.escape(text, quote=False)


def _short(text: str) -> str:
    return text if len(text) <= 90 else f"{text[:87]}..."
