"""Whether the arms' trainings have converged: the verdict by the validation curve, and what a longer one would gain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import plotly.graph_objects as go

from analysis.convergence import MARGIN, SHARE_MARGIN, Convergence
from analysis.curve_figures import BAND_OPACITY
from analysis.figure_style import COLOURS, clear, colour_of, escape, style
from analysis.numbers import listing, plural, significant, together
from analysis.section import Block, Cell, Chart, Link, Notes, Section, Table, Text
from analysis.sweep import Sweep

if TYPE_CHECKING:
    from analysis.report import Report

METHOD = (
    "Judged by validation curves alone. The late gain is that of a straight line over the last third of the "
    "reports (the last half where they are few), over replicas where there are three. Flat: its whole 95 % "
    f"interval lies within {100 * MARGIN:g} % of the value ({100 * SHARE_MARGIN:g} points of a share); what is "
    "neither surely moving nor surely flat is not decided. The gain of a training of twice the length is read off "
    "power laws and exponentials with an offset through the last two thirds, weighed by what the reports leave "
    "possible (dotted: their median, with their 95 % band); it is counted from where these curves stand at the end. A "
    "later, slower fall is not foreseen. Every verdict stands by itself: nothing is corrected for the "
    "number of arms. The training loss is the mean over the steps since the report before."
)


def sections(report: Report, sweep: Sweep, task: str) -> list[Section]:
    """Of the task's arms, and of each of their trainings by itself."""
    here = [each for each in report.convergence.arms if each.task == task]
    if not here:
        return []
    number = sweep.record.tasks.index(task)
    found = [Section("Convergence", blocks_of(here, sweep.record.arms, f"convergence-{number}"))]
    alone = [each for each in report.convergence.trainings if each.task == task]
    if alone:
        found.append(Section("Convergence of each training", [_alone_table(alone)], folded=True))
    return found


def blocks_of(judged: Sequence[Convergence], names: Sequence[str], chart: str) -> list[Block]:
    """The table, what it means in sentences, and the curves with what is expected of them; of arms or of trials."""
    lines = [f"{each.name}: {each.sentence}{_forecast_in_words(each)}." for each in judged]
    by_note: dict[str, list[str]] = {}
    for each in judged:
        for note in each.notes:
            by_note.setdefault(note, []).append(each.name)
    lines += [f"{listing(those)}: {note}." for note, those in by_note.items()]
    return [
        _table(judged, names),
        Notes(lines),
        Chart(chart, curves_figure(judged, names)),
        Text(METHOD, quiet=True),
    ]


def _forecast_in_words(each: Convergence) -> str:
    if each.forecast is None:
        return ""
    mean, low, high = together(each.forecast.gain, each.forecast.low, each.forecast.high)
    return f"; a training of twice the length would gain {mean} ({low} to {high}) if it went on as it went"


def curves_figure(judged: Sequence[Convergence], names: Sequence[str]) -> go.Figure:
    """Validation by steps, the fitted curve through its end and its 95 % interval up to twice the length."""
    figure = go.Figure()
    for each in judged:
        colour = colour_of(names, each.name) if each.name in names else COLOURS[0]
        if each.band is not None:
            _add_band(figure, each, colour)
        figure.add_scatter(
            x=each.steps,
            y=each.curve,
            mode="lines+markers" if len(each.steps) < 60 else "lines",
            name=escape(each.name),
            legendgroup=each.name,
            line={"color": colour, "width": 1.8},
            marker={"size": 5},
            hovertemplate=f"{escape(each.name)}<br>step %{{x:.0f}}: %{{y:.4g}}<extra></extra>",
        )
    style(figure, height=380, x="steps", y=f"validation {judged[0].metric}")
    _frame(figure, judged)
    return figure


def _add_band(figure: go.Figure, judged: Convergence, colour: str) -> None:
    band = judged.band
    assert band is not None
    x = [share * judged.steps[-1] for share in band.x]
    shared = {"legendgroup": judged.name, "showlegend": False, "hoverinfo": "skip", "mode": "lines"}
    figure.add_scatter(
        x=[*x, *reversed(x)],
        y=[*band.high, *reversed(band.low)],
        fill="toself",
        fillcolor=clear(colour, BAND_OPACITY),
        line={"width": 0},
        **shared,
    )
    figure.add_scatter(x=x, y=band.middle, line={"color": colour, "width": 1.4, "dash": "dot"}, **shared)


def _frame(figure: go.Figure, judged: Sequence[Convergence]) -> None:
    """The range of what was fitted, since a training's first reports would flatten all else."""
    last = [curve for each in judged for curve in each.curve[len(each.curve) // 3 :]]
    ends = [edge for each in judged if each.band for edge in (each.band.low[-1], each.band.high[-1])]
    low, high = min([*last, *ends]), max([*last, *ends])
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 1.0
    figure.update_yaxes(range=[low - pad, high + pad])


def _table(judged: Sequence[Convergence], names: Sequence[str]) -> Table:
    header = ["", "verdict", "late gain", "95 % interval", "gain of twice the length", "95 % interval"]
    header += ["best report", "loss above training's"]
    arms = [each.name for each in judged] if all(each.name in names for each in judged) else []
    return Table(header, [_row(each) for each in judged], frozenset(range(2, 8)), arms=arms)


def _row(each: Convergence) -> list[Cell]:
    trend, longer = ["–", "–"], ["–", "–"]
    if each.trend is not None:
        mean, low, high = together(each.trend.gain, each.trend.low, each.trend.high)
        trend = [mean, f"{low} to {high}"]
    if each.forecast is not None:
        mean, low, high = together(each.forecast.gain, each.forecast.low, each.forecast.high)
        longer = [mean, f"{low} to {high}"]
    best = f"{each.best_report} of {each.reports}"
    return [each.name, each.verdict, *trend, *longer, best, _gap_cell(each)]


def _gap_cell(each: Convergence) -> str:
    if each.gap is None:
        return "–"
    if not each.gap.comparable:
        return "not comparable"
    return significant(each.gap.validation - each.gap.training, 2)


def _alone_table(alone: Sequence[Convergence]) -> Table:
    rows: list[list[Cell]] = [
        [Link(each.name, trial=each.name), plural(each.reports, "report"), each.sentence] for each in alone
    ]
    return Table(["trial", "", "by itself"], rows)
