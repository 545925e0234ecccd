"""The page of adaptive compute: what each rule saves, accuracy against compute, where rows halt, whether confidence is
to be believed, and what more for unsure rows brings."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from analysis.adaptive import Adaptivity, Outcome, cost_words, in_points, percentages
from analysis.checkpoints.row_intervals import Estimate
from analysis.figure_style import COLOURS, GREY, escape, style
from analysis.numbers import flop, significant
from analysis.page import render_document
from analysis.section import Block, Cell, Chart, Code, Notes, Section, Table, Text

RULE = (
    "Each threshold was chosen on {validation:,} rows of validation: the one with the fewest segments a row among "
    "those {kept}; of several as cheap, the most accurate. Then it was run on {test:,} rows of test, beside full "
    "depth. Intervals are of 95 %, over rows; differences are paired row by row. An accuracy is called worse or better "
    "where the interval of its difference leaves out 0, equal where it leaves out a loss beyond {points}, and "
    "else no difference is shown."
)
KEPT = "whose accuracy there is not below that of full depth on the same rows"
KEPT_BY_MARGIN = (
    "whose accuracy there cannot be more than {margin:g} below that of full depth on the same rows, as far as the 95 % "
    "interval of the difference tells"
)
COST = (
    "FLOPs are those of the segments and of the answers that were read, forward, by the model's formula, on all rows; "
    "seconds are "
    "measured in the same run on {device}, medians of the repetitions, and depend on what else the machine did."
)
CONFIDENCE = {
    "q": "Confidence is the sigmoid of the Q at the segment that gave the answer.",
    "least": "Confidence is the least probability among the tokens of the answer.",
    "mean": "Confidence is the mean probability of the tokens of the answer.",
}
MOST_POINTS = 80


def render_adaptivity(found: Adaptivity) -> str:
    """One HTML file."""
    return render_document(f"Adaptive compute: {found.checkpoint}", sections(found), lead=found.lead())


def sections(found: Adaptivity) -> list[Section]:
    """The whole page."""
    kept = KEPT if found.margin is None else KEPT_BY_MARGIN.format(margin=found.margin)
    rows = {"validation": found.validation_rows, "test": found.test_rows}
    how = RULE.format(**rows, kept=kept, points=in_points(found.tolerated))
    parts = [
        Section(
            "What halting saves",
            [
                Notes(found.findings()),
                outcome_table(found),
                Text(how, quiet=True),
                Text(f"{COST.format(device=found.device)} Here {cost_words(found.outcomes)}.", quiet=True),
            ],
        ),
        Section("Accuracy against compute", [Chart("curve", curve_figure(found)), choice_table(found)]),
        Section("Where rows halt", [Chart("segments", histogram_figure(found)), histogram_table(found)]),
        Section("Is the confidence to be believed?", _calibration(found)),
    ]
    if found.retried:
        parts.append(Section("More for unsure rows", [retry_table(found)]))
    return [*parts, Section("This report again", [Code(found.command)])] if found.command else parts


def outcome_table(found: Adaptivity) -> Table:
    """A row for each run on test."""
    header = [
        "rule",
        found.metric,
        "difference",
        "segments",
        "FLOPs",
        "FLOPs saved",
        "time",
        "time saved",
        "loss",
        "its difference",
    ]
    rows = [
        [
            one.name,
            str(one.accuracy),
            "–" if one.difference is None else str(one.difference),
            str(one.segments),
            flop(one.flops),
            "–" if one.saved is None else percentages(one.saved),
            f"{significant(one.seconds, 3)} s",
            time_words(one),
            str(one.loss),
            "–" if one.loss_difference is None else str(one.loss_difference),
        ]
        for one in found.outcomes
    ]
    return Table(header, rows, frozenset(range(1, len(header))))


def choice_table(found: Adaptivity) -> Table:
    """What validation said of the chosen thresholds."""
    header = ["rule", "segments on validation", f"{found.metric} there", "difference from full depth there"]
    rows: list[list[Cell]] = [
        [str(one.halt), significant(one.segments, 3), significant(one.accuracy, 4), str(one.difference)]
        for one in found.choices
    ]
    return Table(header, rows, frozenset({1, 2, 3}))


def histogram_table(found: Adaptivity) -> Table:
    """Rows by segments."""
    header = ["rule", *(str(segment) for segment in range(1, found.segments + 1))]
    rows: list[list[Cell]] = [
        [one.name, *(str(count) for count in _filled(one, found.segments))] for one in found.outcomes[1:]
    ]
    return Table(header, rows, frozenset(range(1, len(header))))


def retry_table(found: Adaptivity) -> Table:
    """A row for each rule."""
    header = ["rule", "below", "unsure rows", found.metric, "difference", "gained, lost", "segments more a row", "time"]
    rows: list[list[Cell]] = [
        [
            one.name,
            f"{one.below:g}",
            str(one.rows),
            str(one.accuracy),
            str(one.difference),
            f"{one.gained}, {one.lost}",
            str(one.cost),
            f"{one.seconds_more:+.2f} s",
        ]
        for one in found.retried
    ]
    return Table(header, rows, frozenset(range(1, len(header))))


def time_words(one: Outcome) -> str:
    """The median of the shares of time that were saved, and their range over the repetitions."""
    if not one.seconds_saved:
        return "–"
    saved = 100 * np.array(one.seconds_saved)
    return f"{np.median(saved):.0f} %" + (f" ({saved.min():.0f} to {saved.max():.0f})" if len(saved) > 1 else "")


def curve_figure(found: Adaptivity) -> go.Figure:
    """Validation as lines, the runs on test as points with their intervals."""
    figure = go.Figure()
    for number, one in enumerate(found.choices):
        points = one.points[:: max(1, len(one.points) // MOST_POINTS)]
        points = points if points[-1] is one.points[-1] else [*points, one.points[-1]]
        figure.add_scatter(
            x=[point.segments for point in points],
            y=[point.accuracy for point in points],
            mode="lines+markers" if one.halt.rule == "fixed" else "lines",
            name=escape(f"{one.halt.rule}, validation"),
            line={"color": COLOURS[number]},
            marker={"size": 5},
            hovertext=[f"threshold {point.threshold:.4g}" for point in points],
        )
    colours: dict[str, str] = {one.halt.rule: COLOURS[number] for number, one in enumerate(found.choices)}
    for run in found.outcomes:
        figure.add_scatter(
            x=[run.segments.value],
            y=[run.accuracy.value],
            error_x=_bar(run.segments),
            error_y=_bar(run.accuracy),
            mode="markers",
            name=escape(f"{run.name}, test"),
            marker={"color": colours.get(run.rule, GREY), "size": 10, "symbol": "diamond"},
        )
    style(figure, height=440, x="segments a row, mean", y=found.metric.replace("_", " "))
    return figure


def histogram_figure(found: Adaptivity) -> go.Figure:
    """Rows of test by the segments that were computed for them."""
    figure = go.Figure()
    for number, one in enumerate(found.outcomes[1:]):
        bars = _filled(one, found.segments)
        figure.add_bar(
            x=list(range(1, len(bars) + 1)),
            y=bars,
            name=escape(one.name),
            marker={"color": COLOURS[number % len(COLOURS)]},
        )
    style(figure, height=320, x="segments", y="rows")
    figure.update_xaxes(dtick=1 if found.segments <= 20 else None)
    return figure


def reliability_figure(found: Adaptivity) -> go.Figure:
    """How often rows of a confidence are right; a perfect one lies on the diagonal."""
    figure = go.Figure()
    line = {"color": GREY, "dash": "dot"}
    figure.add_scatter(x=[0, 1], y=[0, 1], mode="lines", name="perfect", line=line, hoverinfo="skip")
    for number, one in enumerate(found.outcomes):
        bins = one.calibration.bins if one.calibration else []
        figure.add_scatter(
            x=[inside.confidence for inside in bins],
            y=[inside.solved.value for inside in bins],
            mode="lines+markers",
            name=escape(one.name),
            line={"color": COLOURS[number % len(COLOURS)]},
            hovertext=[f"{inside.rows} rows, right {inside.solved}" for inside in bins],
        )
    style(figure, height=380, x="confidence", y="share that is right")
    figure.update_xaxes(range=[-0.02, 1.02])
    figure.update_yaxes(range=[-0.05, 1.05])
    return figure


def _calibration(found: Adaptivity) -> list[Block]:
    known = [one for one in found.outcomes if one.calibration is not None]
    if not known:
        return [Text(f"{CONFIDENCE[found.confidence]} There are too few rows to say.")]
    header = ["rule", "ECE", "by chance", "confidence minus right", "verdict"]
    rows: list[list[Cell]] = [
        [one.name, str(c.error), f"up to {c.by_chance:.3f}", str(c.excess), c.verdict]
        for one in known
        if (c := one.calibration) is not None
    ]
    table = Table(header, rows, frozenset({1, 2, 3}))
    return [Text(CONFIDENCE[found.confidence]), Chart("reliability", reliability_figure(found)), table]


def in_short(found: Adaptivity) -> list[list[str]]:
    """A header and rows for a terminal."""
    rows = [
        [
            one.name,
            f"{one.accuracy.value:.4f}",
            "–" if one.difference is None else str(one.difference),
            f"{one.segments.value:.2f}",
            "–" if one.saved is None else percentages(one.saved),
            f"{significant(one.seconds, 3)} s",
            time_words(one),
            "–" if one.calibration is None else f"{one.calibration.error.value:.3f}",
        ]
        for one in found.outcomes
    ]
    header = ["rule", found.metric, "difference", "segments", "FLOPs saved", "time", "time saved", "ECE"]
    return [header, *rows]


def _filled(one: Outcome, segments: int) -> list[int]:
    return [*one.histogram, *[0] * (segments - len(one.histogram))]


def _bar(estimate: Estimate) -> dict[str, object]:
    low, high = (estimate.value if bound is None else bound for bound in (estimate.low, estimate.high))
    return {
        "type": "data",
        "symmetric": False,
        "array": [high - estimate.value],
        "arrayminus": [estimate.value - low],
        "thickness": 1.2,
    }
