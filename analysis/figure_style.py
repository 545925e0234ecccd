"""What every figure of a report shares: colours of middle brightness, grey letters on a clear background.

They work on a light and on a dark page.
"""

from __future__ import annotations

import html
import math
import textwrap
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import plotly.graph_objects as go

GREY = "#7d8590"
GRID = "rgba(125,133,144,0.22)"
TITLE_WIDTH = 30
"""Letters of a line of an axis's title that fit on a phone."""
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
    figure.update_xaxes(title={"text": "<br>".join(textwrap.wrap(x, TITLE_WIDTH)), "font": {"size": 13}}, **axis)
    figure.update_yaxes(title={"text": y, "font": {"size": 13}}, **axis)


def colour_of(names: Sequence[str], name: str) -> str:
    """Of one of the arms, the same in every figure."""
    return COLOURS[list(names).index(name) % len(COLOURS)]


def clear(colour: str, opacity: float) -> str:
    """One of COLOURS, as far as it covers."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def escape(text: str) -> str:
    """Text from data: plotly reads a little HTML."""
    return html.escape(text, quote=False)


def logarithmic(figure: go.Figure, values: npt.NDArray[np.float64]) -> None:
    """A logarithmic y axis where the curves fall far, since the arms part at the low end."""
    if not len(values) or values.min() <= 0.0 or values.max() < 4.0 * values.min():
        return
    decades = range(math.floor(math.log10(values.min())), math.ceil(math.log10(values.max())) + 1)
    ticks = [digit * 10.0**decade for decade in decades for digit in (1, 2, 3, 5)]
    figure.update_yaxes(type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks])


def rounded(values: Sequence[float] | npt.NDArray[np.float64]) -> list[float | None]:
    """Five digits, which is more than a screen shows and keeps a page small."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in np.asarray(values).tolist()]
