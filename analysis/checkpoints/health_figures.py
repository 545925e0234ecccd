"""Figures of weights over the steps of a training."""

from __future__ import annotations

import plotly.graph_objects as go

from analysis.checkpoints.change import Course
from analysis.checkpoints.health import Health
from analysis.figure_style import COLOURS, escape, style


def drift_lines(course: Course) -> go.Figure:
    """How far each component is from the first checkpoint, where the distance is 0, which a logarithm cannot show."""
    figure = go.Figure()
    known = all(step is not None for step in course.steps)
    for number, drift in enumerate(course.drifts):
        far = [None if not value else 100.0 * value for value in drift.relative]
        if any(far):
            figure.add_scatter(
                x=course.steps if known else [escape(label) for label in course.labels],
                y=far,
                mode="lines+markers",
                name=escape(drift.component),
                line={"color": COLOURS[number % len(COLOURS)], "width": 1.8},
                hovertemplate=f"{escape(drift.component)}<br>%{{x}}: %{{y:.3g}} %<extra></extra>",
            )
    style(figure, height=340, x="step" if known else "", y="distance from the first, % of its norm")
    figure.update_yaxes(type="log", dtick=1)
    return figure


def untrained_bars(health: Health) -> go.Figure:
    """The share of the puzzle table's rows that were never trained, by checkpoint."""
    told = [(c.label, table) for c in health.checkpoints for table in c.tables if table.component == "puzzle table"]
    figure = go.Figure()
    figure.add_bar(
        x=[escape(label) for label, _ in told],
        y=[100.0 * table.zero_rows / table.rows for _, table in told],
        customdata=[f"{table.zero_rows:,} of {table.rows:,}" for _, table in told],
        marker={"color": COLOURS[0]},
        hovertemplate="%{x}: %{customdata} rows (%{y:.2f} %)<extra></extra>",
    )
    style(figure, height=280, x="", y="rows never trained, %", legend=False)
    figure.update_yaxes(range=[0, 100])
    figure.update_layout(bargap=0.4)
    return figure
