"""The figures of a search, of ten trials or of ten thousand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from analysis.curves import telling
from analysis.figure_style import GREY, colour_of, escape, logarithmic, style
from analysis.front import Front, done
from analysis.numbers import significant
from analysis.records import TrialRecord
from analysis.sweep import Sweep

MAX_DOTS = 2000
"""Of the search trials of a task: more would make the page heavy and show nothing more."""
SYMBOLS = {
    "completed": "circle",
    "pruned": "triangle-down-open",
    "running": "diamond-open",
    "waiting": "circle-open-dot",
    "failed": "x",
}


def search_plot(sweep: Sweep, task: str) -> go.Figure:
    """The objective of each search trial over its number: colour by arm, symbol by state.

    Trials without a value (failed before the first report, or waiting) stand in a row at the upper edge. Of more than
    MAX_DOTS trials the best and the worst of each stretch are drawn.
    """
    figure = go.Figure()
    trials = thinned(sweep.select(task=task, phase="search"), MAX_DOTS)
    for arm in sweep.record.arms:
        for state, symbol in SYMBOLS.items():
            group = [trial for trial in trials if trial.arm == arm and trial.state == state]
            _search_trace(figure, sweep, arm, symbol, [t for t in group if t.objective is not None], with_value=True)
            _search_trace(figure, sweep, arm, symbol, [t for t in group if t.objective is None], with_value=False)
    for arm in sweep.record.arms:
        if any(trial.arm == arm for trial in trials):
            _legend_entry(figure, escape(arm), arm, {"color": colour_of(sweep.record.arms, arm), "symbol": "circle"})
    for state, symbol in SYMBOLS.items():
        if any(trial.state == state for trial in trials):
            _legend_entry(figure, state, "", {"color": GREY, "symbol": symbol})
    style(figure, height=380, x="trial", y=f"best validation {sweep.record.metric}")
    values = [trial.objective for trial in trials if trial.objective is not None and math.isfinite(trial.objective)]
    if sweep.record.metric == "loss" and values:
        logarithmic(figure, np.array(values))
    figure.update_layout(yaxis2={"overlaying": "y", "range": [0, 1], "visible": False, "fixedrange": True})
    return figure


def front_plot(sweep: Sweep, fronts: Sequence[Front]) -> go.Figure:
    """Every completed trial by the first two objectives, one colour per arm; the front's trials are joined."""
    figure = go.Figure()
    for front in fronts:
        colour = colour_of(sweep.record.arms, front.arm)
        trials = done(sweep, front.task, front.arm)[:MAX_DOTS]
        _front_trace(figure, front.arm, [(t.key, t.values) for t in trials], colour, mode="markers", opacity=0.45)
        points = [(point.trial, point.values) for point in front.points]
        _front_trace(figure, front.arm, points, colour, mode="lines+markers", name=escape(front.arm), showlegend=True)
    across, up = map(escape, fronts[0].objectives[:2])
    style(figure, height=380, x=across, y=up)
    return figure


def _front_trace(
    figure: go.Figure, arm: str, points: Sequence[tuple[str, list[float]]], colour: str, **looks: Any
) -> None:
    figure.add_scatter(
        **{"showlegend": False, **looks},
        x=[values[0] for _, values in points],
        y=[values[1] for _, values in points],
        legendgroup=arm,
        customdata=[key for key, _ in points],
        text=[escape(key) for key, _ in points],
        marker={"color": colour, "size": 7},
        line={"color": colour, "width": 1},
        hovertemplate="%{text}<br>%{x:.4g}, %{y:.4g}<extra></extra>",
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
        legendgroup=arm,
        customdata=[trial.key for trial in trials],
        marker={"color": colour_of(sweep.record.arms, arm), "size": 9, "opacity": 0.8, "symbol": symbol},
        hovertext=[escape(line) for line in text],
        hoverinfo="text",
    )


def thinned(trials: list[TrialRecord], limit: int = MAX_DOTS) -> list[TrialRecord]:
    """Of each arm and state its share of a limit: those with the lowest and the highest value of each stretch."""
    groups: dict[tuple[str, str], list[TrialRecord]] = {}
    for trial in trials:
        groups.setdefault((trial.arm, trial.state), []).append(trial)
    kept = []
    for group in groups.values():
        values = np.array([0.0 if trial.objective is None else trial.objective for trial in group])
        kept += [group[i] for i in telling(values, max(4, limit * len(group) // len(trials)))]
    return kept


def _legend_entry(figure: go.Figure, name: str, group: str, marker: dict[str, Any]) -> None:
    marker = {"size": 9, **marker}
    figure.add_scatter(x=[None], y=[None], mode="markers", name=name, legendgroup=group, marker=marker)


def _short(text: str) -> str:
    return text if len(text) <= 90 else f"{text[:87]}..."
