"""The figure of quality against compute.

Names from data are escaped, since plotly reads a little HTML in its texts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from analysis.curves import ArmCurves, Array, telling
from analysis.efficiency import Efficiency, mean_at_flops
from analysis.figure_style import GREY, colour_of, escape, logarithmic, rounded, style
from analysis.sweep import Sweep

DOTS = 400
"""Trials of an arm that are drawn where there are more: the best and the worst of each stretch."""


def compute_figure(sweep: Sweep, task: str, arms: Sequence[ArmCurves], efficiency: Efficiency) -> go.Figure:
    """Quality against compute: each trial at its end, the mean of each arm as it trains, the front as a wide line."""
    figure = go.Figure()
    for arm in sweep.record.arms:
        _ends(figure, sweep, task, arm)
    means = {each.arm: mean_at_flops(each.curves) for each in arms}
    for arm, (flops, mean) in means.items():
        figure.add_scatter(
            x=rounded(flops),
            y=rounded(mean),
            mode="lines",
            name=escape(arm),
            legendgroup=arm,
            line={"color": colour_of(sweep.record.arms, arm), "width": 2},
            hovertemplate=f"{escape(arm)}, best so far<br>%{{x:.4s}}FLOP: %{{y:.4g}}<extra></extra>",
        )
    figure.add_traces(_front(task, means, efficiency))
    style(figure, height=400, x="training FLOPs", y=f"validation {sweep.record.metric}, best so far")
    figure.update_xaxes(type="log")
    ordinate = np.concatenate([np.asarray(trace.y, dtype=np.float64) for trace in figure.data] or [np.ones(1)])
    if sweep.record.metric == "loss":
        logarithmic(figure, ordinate[np.isfinite(ordinate)])
    return figure


def _ends(figure: go.Figure, sweep: Sweep, task: str, arm: str) -> None:
    """The trials of an arm where they ended; replicas filled."""
    trials = [trial for trial in sweep.select(task=task, arm=arm) if trial.objective is not None]
    trials = [trial for trial in trials if math.isfinite(trial.objective or 0.0) and sweep.progress(trial).flops > 0.0]
    kept = telling(np.array([trial.objective for trial in trials], dtype=np.float64), DOTS)
    points = [(sweep.progress(trials[i]).flops, trials[i]) for i in kept]
    figure.add_scatter(
        x=rounded([flops for flops, _ in points]),
        y=rounded([trial.objective or 0.0 for _, trial in points]),
        mode="markers",
        legendgroup=arm,
        showlegend=False,
        customdata=[trial.key for _, trial in points],
        text=[f"{escape(trial.key)}, {trial.state}" for _, trial in points],
        marker={
            "color": colour_of(sweep.record.arms, arm),
            "size": 7,
            "opacity": 0.6,
            "symbol": ["circle" if trial.phase == "replica" else "circle-open" for _, trial in points],
        },
        hovertemplate="%{text}<br>%{x:.4s}FLOP: %{y:.4g}<extra></extra>",
    )


def _front(task: str, means: Mapping[str, tuple[Array, Array]], efficiency: Efficiency) -> list[go.Scatter]:
    """A wide grey line under the curve of whoever leads."""
    x: list[float | None] = []
    y: list[float | None] = []
    for lead in efficiency.front:
        if lead.task == task and lead.arm in means:
            flops, mean = means[lead.arm]
            inside = flops[(flops > lead.start) & (flops < lead.end)]
            part = np.concatenate([[lead.start], inside, [lead.end]])
            x += [*rounded(part), None]
            y += [*rounded(np.interp(part, flops, mean)), None]
    line = {"color": GREY, "width": 8}
    return [go.Scatter(x=x, y=y, mode="lines", line=line, opacity=0.35, name="best for its compute", hoverinfo="skip")]
