"""What every figure of a report shares: colours of middle brightness, grey letters on a clear background.

They work on a light and on a dark page.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import plotly.graph_objects as go

GREY = "#7d8590"
GRID = "rgba(125,133,144,0.22)"
COLOURS = ("#4c8be0", "#e07b39", "#2fa36b", "#b565c9", "#d4524a", "#9a8f1f", "#1aa0a8", "#a9744f")


def style(figure: go.Figure, *, height: int, x: str, y: str, legend: bool = True) -> None:
    """Height in pixels, titles of the axes, and the looks that all share."""
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


def colour_of(names: Sequence[str], name: str) -> str:
    """Of one of the arms, the same in every figure."""
    return COLOURS[list(names).index(name) % len(COLOURS)]


def escape(text: str) -> str:
    """Text from data: plotly reads a little HTML."""
    return html.escape(text, quote=False)
