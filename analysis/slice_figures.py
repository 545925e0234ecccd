"""The figures of what a search found out: the best of k trials, importance, and slices through the space.

Names from data are escaped, since plotly reads a little HTML in its texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from analysis.curve_figures import CHIP
from analysis.figure_style import colour_of, escape, logarithmic, style
from analysis.numbers import percent, significant
from analysis.records import TrialRecord
from analysis.search_figures import SYMBOLS, thinned
from analysis.search_findings import Importance
from analysis.search_quality import SearchQuality
from analysis.search_space import Axis, space_of
from analysis.sensitivity import Around, Plane, Sensitivity
from analysis.sweep import Sweep

Drawn = dict[str, tuple[list[Any], list[Any]]]
"""By parameter the x and the y of a trace."""
MAX_DOTS = 600
"""Trials of a task: each is there once for every parameter."""


def best_of_figure(sweep: Sweep, qualities: Sequence[SearchQuality]) -> go.Figure:
    """For each arm the expected best of so many of its trials, and where 90 % of such choices lie."""
    figure = go.Figure()
    for each in qualities:
        ks = [point.k for point in each.expected]
        band = [point.high for point in each.expected] + [point.low for point in reversed(each.expected)]
        _band(figure, sweep, each.arm, ks + ks[::-1], band)
        figure.add_scatter(
            x=ks,
            y=[point.mean for point in each.expected],
            mode="lines+markers" if len(ks) < 30 else "lines",
            name=escape(each.arm),
            legendgroup=each.arm,
            line={"color": colour_of(sweep.record.arms, each.arm), "width": 2},
            hovertemplate=f"{escape(each.arm)}: best of %{{x}}, expected %{{y:.4g}}<extra></extra>",
        )
    style(figure, height=340, x="trials", y=f"best validation {sweep.record.metric}")
    logarithmic(figure, np.array([bound for each in qualities for b in each.expected for bound in (b.low, b.high)]))
    return figure


def importance_figure(sweep: Sweep, found: Sequence[Importance]) -> go.Figure:
    """Each parameter's share with its 95 % range, arm by arm; faint where chance does as much."""
    figure = go.Figure()
    parameters = list(dict.fromkeys(each.parameter for each in found))
    arms = list(dict.fromkeys(each.arm for each in found))
    for arm in arms:
        here = [each for each in found if each.arm == arm]
        figure.add_bar(
            x=[each.share for each in here],
            y=[escape(each.parameter) for each in here],
            orientation="h",
            name=escape(arm),
            legendgroup=arm,
            marker={
                "color": colour_of(sweep.record.arms, arm) if arm in sweep.record.arms else None,
                "opacity": [1.0 if each.p < 0.05 else 0.35 for each in here],
            },
            error_x={
                "array": [max(0.0, each.high - each.share) for each in here],
                "arrayminus": [max(0.0, each.share - each.low) for each in here],
                "color": "rgba(125,133,144,0.8)",
                "thickness": 1.2,
                "width": 3,
            },
            hovertext=[f"{percent(each.low)} to {percent(each.high)}" for each in here],
            hovertemplate=f"{escape(arm)}, %{{y}}: %{{x:.0%}} (%{{hovertext}})<extra></extra>",
        )
    height = 110 + (13 * len(arms) + 16) * max(1, len(parameters))
    style(figure, height=height, x="share of the variance", y="")
    figure.update_layout(bargap=0.3)
    figure.update_xaxes(range=[0, 1.02], tickformat=".0%")
    figure.update_yaxes(
        autorange="reversed", showgrid=False, ticklabelstandoff=8, categoryarray=list(map(escape, parameters))
    )
    return figure


def slice_figure(sweep: Sweep, task: str, found: Sequence[Sensitivity]) -> go.Figure:
    """Trials over one parameter, which a reader chooses; lines: around each arm's best, if that alone were another."""
    figure, drawn = go.Figure(), list[Drawn]()
    trials = [t for t in thinned(sweep.select(task=task, phase="search"), MAX_DOTS) if t.objective is not None]
    axes: dict[str, set[str]] = {}
    for each in found:
        own = [trial for trial in trials if trial.arm == each.arm]
        for axis in space_of(sweep.record, each.arm, own):
            axes.setdefault(axis.path, set()).add(_kind(axis))
    names = list(axes)
    for each in found:
        known = {around.parameter: around for around in each.around if (each.foretells or 0.0) > 0.0}
        drawn.append({name: _around_band(around) for name, around in known.items()})
        _band(figure, sweep, each.arm, *_first(drawn[-1], names))
        drawn.append({name: (_places(around.values), around.expected) for name, around in known.items()})
        _line(figure, sweep, each.arm, *_first(drawn[-1], names))
        for state in ("completed", "pruned"):
            group = [trial for trial in trials if trial.arm == each.arm and trial.state == state]
            ends = [each.expected.get(trial.key, trial.objective) for trial in group]
            drawn.append({name: _dots(group, name, ends) for name in names if group and name in group[0].parameters})
            _scatter(figure, sweep, each, state, group, *_first(drawn[-1], names))
    style(figure, height=400, x="", y=f"validation {sweep.record.metric}")
    values = [value for each in drawn for value in _first(each, names)[1]]
    if values:
        logarithmic(figure, np.array(values, dtype=np.float64))
        types = {name: "category" if "category" in kinds else min(kinds) for name, kinds in axes.items()}
        figure.update_layout(margin={"b": 64}, updatemenus=[_menu(drawn, types)])
        figure.update_xaxes(type=types[names[0]], nticks=6, tickangle=0, exponentformat="e")
    return figure


def plane_figure(sweep: Sweep, found: Sensitivity, plane: Plane) -> go.Figure:
    """What is expected over two parameters that act together, and the arm's trials there."""
    figure = go.Figure()
    figure.add_heatmap(
        x=_places(plane.values), y=_places(plane.other_values), z=plane.expected, legendgroup=found.arm,
        colorscale="Viridis", colorbar={"thickness": 12, "title": {"text": escape(sweep.record.metric)}},
        hovertemplate="%{x}, %{y}: %{z:.4g} expected<extra></extra>",
    )  # fmt: skip
    trials = thinned(sweep.select(task=found.task, arm=found.arm, phase="search"), MAX_DOTS)
    shown = [trial for trial in trials if plane.one in trial.parameters and plane.other in trial.parameters]
    figure.add_scatter(
        x=_places([trial.parameters[plane.one] for trial in shown]),
        y=_places([trial.parameters[plane.other] for trial in shown]),
        mode="markers", legendgroup=found.arm, showlegend=False, customdata=[trial.key for trial in shown],
        hovertext=[f"{escape(trial.key)}, {trial.state}: {_words(trial, found)}" for trial in shown], hoverinfo="text",
        marker={"color": "rgba(255,255,255,0.85)", "size": 7, "line": {"color": "#24292f", "width": 1}},
    )  # fmt: skip
    style(figure, height=360, x=escape(plane.one), y=escape(plane.other))
    kinds = {axis.path: _kind(axis) for axis in space_of(sweep.record, found.arm, shown)}
    figure.update_xaxes(type=kinds.get(plane.one), nticks=6, tickangle=0, exponentformat="e")
    figure.update_yaxes(type=kinds.get(plane.other), nticks=6, exponentformat="e")
    return figure


def _kind(axis: Axis) -> str:
    return "category" if axis.named else "log" if axis.log else "linear"


def _menu(drawn: Sequence[Drawn], types: dict[str, str]) -> dict[str, Any]:
    """A button for each parameter, in the place of the axis's title."""
    buttons = [
        {
            "label": f"over {escape(name)}",
            "method": "update",
            "args": [
                {"x": [each.get(name, ([], []))[0] for each in drawn],
                 "y": [each.get(name, ([], []))[1] for each in drawn]},
                {"xaxis.type": kind, "xaxis.autorange": True},
            ],
        }
        for name, kind in types.items()
    ]  # fmt: skip
    return {"buttons": buttons, "active": 0, "direction": "up", "x": 0.5, "xanchor": "center", "y": 0.0,
            "yanchor": "top", "pad": {"t": 30}, **CHIP}  # fmt: skip


def _first(drawn: Drawn, parameters: Sequence[str]) -> tuple[list[Any], list[Any]]:
    return drawn.get(parameters[0], ([], [])) if parameters else ([], [])


def _around_band(around: Around) -> tuple[list[Any], list[Any]]:
    values = _places(around.values)
    return values + values[::-1], around.high + around.low[::-1]


def _dots(
    trials: Sequence[TrialRecord], parameter: str, ends: list[float | None]
) -> tuple[list[Any], list[float | None]]:
    return _places([trial.parameters.get(parameter) for trial in trials]), ends


def _places(values: Sequence[Any]) -> list[Any]:
    """Numbers as they are; all else as its name."""
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    return list(values) if numbers else [escape(str(value)) for value in values]


def _band(figure: go.Figure, sweep: Sweep, arm: str, x: Sequence[Any], y: Sequence[float]) -> None:
    figure.add_scatter(
        x=x, y=y, mode="lines", fill="toself", line={"width": 0}, opacity=0.18, legendgroup=arm, showlegend=False,
        fillcolor=colour_of(sweep.record.arms, arm), hoverinfo="skip",
    )  # fmt: skip


def _line(figure: go.Figure, sweep: Sweep, arm: str, x: Sequence[Any], y: Sequence[float]) -> None:
    figure.add_scatter(
        x=x, y=y, mode="lines", legendgroup=arm, showlegend=False,
        line={"color": colour_of(sweep.record.arms, arm), "width": 1.8},
        hovertemplate=f"{escape(arm)}, around its best<br>%{{x}}: %{{y:.4g}}<extra></extra>",
    )  # fmt: skip


def _scatter(
    figure: go.Figure,
    sweep: Sweep,
    of: Sensitivity,
    state: str,
    trials: Sequence[TrialRecord],
    x: list[Any],
    y: list[Any],
) -> None:
    text = [f"{escape(trial.key)}, {state}: {_words(trial, of)}" for trial in trials]
    figure.add_scatter(
        x=x, y=y, mode="markers", name=f"{escape(of.arm)}, {state}", legendgroup=of.arm, showlegend=bool(trials),
        customdata=[trial.key for trial in trials], hovertext=text, hoverinfo="text+x",
        marker={"color": colour_of(sweep.record.arms, of.arm), "size": 9, "opacity": 0.8, "symbol": SYMBOLS[state]},
    )  # fmt: skip


def _words(trial: TrialRecord, of: Sensitivity) -> str:
    expected = of.expected.get(trial.key)
    stood = significant(trial.objective)
    return stood if expected is None else f"{significant(expected)} expected, {stood} when it was pruned"
