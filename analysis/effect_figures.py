"""Differences with their intervals around the line of no difference."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from analysis.effects import Effect
from analysis.figure_style import GREY, colour_of, escape, style
from analysis.numbers import significant


def forest(effects: Sequence[tuple[str, Effect]], names: Sequence[str], title: str) -> go.Figure:
    """One line per arm; what one seed showed has no interval and an open mark. Empty where nothing is known."""
    figure = go.Figure()
    known = [(arm, found) for arm, found in effects if found.mean is not None]
    for arm, found in known:
        colour = colour_of(names, arm)
        bars = [] if found.low is None or found.high is None or found.mean is None else [found]
        figure.add_scatter(
            x=[found.mean],
            y=[escape(arm)],
            mode="markers",
            name=escape(arm),
            legendgroup=arm,
            marker={"color": colour, "size": 10, "symbol": "circle" if bars else "circle-open"},
            error_x={
                "type": "data",
                "array": [(bar.high or 0.0) - (bar.mean or 0.0) for bar in bars],
                "arrayminus": [(bar.mean or 0.0) - (bar.low or 0.0) for bar in bars],
                "color": colour,
                "thickness": 2.5,
                "width": 6,
            },
            hovertext=_hover(arm, found),
            hoverinfo="text",
        )
    style(figure, height=100 + 40 * max(1, len(known)), x=escape(title), y="", legend=False)
    figure.update_yaxes(autorange="reversed", showgrid=False, ticklabelstandoff=8)
    figure.add_vline(x=0.0, line={"color": GREY, "dash": "dot", "width": 1.5})
    return figure


def _hover(arm: str, found: Effect) -> str:
    if found.low is None:
        return f"{escape(arm)}: {significant(found.mean)} (one seed)"
    return f"{escape(arm)}: {significant(found.mean)}, {significant(found.low)} to {significant(found.high)}"
