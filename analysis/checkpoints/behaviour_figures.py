"""The figures of behaviour: accuracy by segment, reliability of the halting Q, loss between two sets of weights."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from analysis.checkpoints.agreement import Pair
from analysis.checkpoints.behaviour import Behaviour
from analysis.figure_style import COLOURS, GREY, escape, style

SHOWN = len(COLOURS)
"""The most checkpoints in a figure: the last ones."""


def segment_figure(behaviour: Behaviour) -> go.Figure:
    """Exact accuracy after each segment, with its interval; token accuracy where no row is solved."""
    figure = go.Figure()
    solves = any(one.metrics["exact_accuracy"].value > 0.0 for one in behaviour.checkpoints)
    metric = "exact_accuracy" if solves else "token_accuracy"
    for number, one in enumerate(behaviour.checkpoints[-SHOWN:]):
        found = [segment.metrics[metric] for segment in one.by_segment]
        figure.add_scatter(
            x=[segment.segment for segment in one.by_segment],
            y=[estimate.value for estimate in found],
            error_y=_bars([(e.value, e.low, e.high) for e in found]),
            mode="lines+markers",
            name=escape(one.label),
            line={"color": COLOURS[number]},
        )
    style(figure, height=340, x="segment", y=metric.replace("_", " "))
    figure.update_xaxes(dtick=1 if len(behaviour.checkpoints[-1].by_segment) <= 16 else None)
    return figure


def reliability_figure(behaviour: Behaviour) -> go.Figure:
    """How often rows of a confidence are solved; a perfect Q lies on the diagonal."""
    figure = go.Figure()
    line = {"color": GREY, "dash": "dot"}
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", name="perfect", line=line, hoverinfo="skip")
    known = [one for one in behaviour.checkpoints if one.calibration is not None][-SHOWN:]
    for number, one in enumerate(known):
        bins = one.calibration.bins if one.calibration else []
        figure.add_scatter(
            x=[inside.confidence for inside in bins],
            y=[inside.solved.value for inside in bins],
            error_y=_bars([(inside.solved.value, inside.solved.low, inside.solved.high) for inside in bins]),
            mode="lines+markers",
            name=escape(one.label),
            line={"color": COLOURS[number]},
            hovertext=[f"{inside.rows} rows, {inside.low:.3f} to {inside.high:.3f}" for inside in bins],
        )
    style(figure, height=380, x="probability of being solved, by the halting Q", y="share that is solved")
    figure.update_xaxes(range=[-0.02, 1.02])
    figure.update_yaxes(range=[-0.05, 1.05])
    return figure


def way_figure(pairs: Sequence[Pair]) -> go.Figure:
    """The loss on the straight line between two sets of weights."""
    figure = go.Figure()
    for number, pair in enumerate(pairs[:SHOWN]):
        if pair.barrier is None:
            continue
        figure.add_scatter(
            x=pair.barrier.alphas,
            y=pair.barrier.losses,
            mode="lines+markers",
            name=escape(f"{pair.first} to {pair.second}"),
            line={"color": COLOURS[number]},
        )
    style(figure, height=340, x="share of the second's weights", y="loss, nats per token")
    return figure


def _bars(values: Sequence[tuple[float, float | None, float | None]]) -> dict[str, object]:
    return {
        "type": "data",
        "symmetric": False,
        "array": [0.0 if high is None else high - value for value, _, high in values],
        "arrayminus": [0.0 if low is None else value - low for value, low, _ in values],
        "thickness": 1.2,
    }
