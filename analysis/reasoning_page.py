"""The page of reasoning: what a few rows show, then each of them with its drawing and its course over the segments."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from analysis.figure_style import COLOURS, GREY, escape, style
from analysis.numbers import percent, significant
from analysis.page import render_document
from analysis.reasoning import Example, Reasoning, findings
from analysis.reasoning_drawing import as_text, drawn, in_words
from analysis.reasoning_style import SCRIPT, STYLE
from analysis.section import Block, Cell, Chart, Drawing, Notes, Section, Table, Text

_CONTROL = "The slider goes with the arrow keys, too; on paper every segment is printed."
GUIDE = (
    "Green is right, orange is wrong (in pictures: an orange frame); the stronger the colour, the surer the model. A "
    f"blue frame marks what changed since the segment before. Bold cells are given. {_CONTROL}"
)
TEXT_GUIDE = (
    "The text as it is: green where the model foretells the token, orange where it does not, with its guess above; the "
    f"stronger the colour, the surer the model. A blue line marks what changed since the segment before. {_CONTROL}"
)


def render_reasoning(reasoning: Reasoning) -> str:
    """One HTML file."""
    return render_document(f"Reasoning: {reasoning.checkpoint}", sections(reasoning), lead=_lead(reasoning))


def sections(reasoning: Reasoning) -> list[Section]:
    """What the rows show together, then each."""
    guide = GUIDE if reasoning.layout.kind == "grid" else TEXT_GUIDE
    first: list[Block] = [
        Drawing(STYLE, ""),
        Notes(findings(reasoning)),
        Table(*_table(reasoning)),
        Text(guide, quiet=True),
    ]
    found = [Section("What these rows show", first)]
    for number, example in enumerate(reasoning.examples):
        drawing = Drawing(drawn(example, reasoning.layout), as_text(example, reasoning.layout))
        course = [Chart(f"course-{number}", course_figure(example))] if len(example.steps) > 1 else []
        found.append(Section(in_words(example), [drawing, *course]))
    return [*found, Section("", [Drawing(SCRIPT, "")])]


def course_figure(example: Example) -> go.Figure:
    """Over the segments: how much is right, how sure the model and its Q are; below, how far the states move."""
    steps, of = example.steps, max(example.of, 1)
    x = list(range(1, len(steps) + 1))
    states = list(steps[0].moved)
    figure = make_subplots(rows=2 if states else 1, cols=1, shared_xaxes=True, vertical_spacing=0.09)
    sure: list[float | None] = [
        sum(p for p, kept in zip(step.sure, example.scored, strict=True) if kept) / of for step in steps
    ]
    shares: dict[str, list[float | None]] = {"mean confidence": sure, "right": [step.right / of for step in steps]}
    if steps[0].halt is not None:
        shares["Q halt"] = [step.halt for step in steps]
    if steps[0].go_on is not None:
        shares["Q continue"] = [step.go_on for step in steps]
    for number, (name, values) in enumerate(shares.items()):
        line = {"color": COLOURS[number], "dash": "dot" if name == "Q continue" else "solid", "width": 1.8}
        _add(figure, 1, x, values, name, line)
    for number, name in enumerate(states):
        line = {"color": COLOURS[4 + number], "width": 1.8}
        _add(figure, 2, x, [step.moved[name] for step in steps], f"change of {name}", line)
    style(figure, height=400 if states else 260, x="", y="")
    figure.update_yaxes(title_text="share", range=[-0.03, 1.03], row=1, col=1)
    if states:
        figure.update_yaxes(title_text="relative change", type="log", row=2, col=1)
    figure.update_xaxes(tickmode="auto" if len(x) > 20 else "linear", dtick=1)
    figure.update_xaxes(title_text="segment", row=2 if states else 1, col=1)
    if example.halts is not None:
        figure.add_vline(x=example.halts, line={"color": GREY, "dash": "dot", "width": 1.5})
    return figure


def _add(
    figure: go.Figure, row: int, x: list[int], y: list[float | None], name: str, line: Mapping[str, object]
) -> None:
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines+markers",
        name=escape(name),
        line=line,
        marker={"size": 5},
        hovertemplate=f"{escape(name)}<br>segment %{{x}}: %{{y:.3g}}<extra></extra>",
        row=row,
        col=1,
    )


def _table(reasoning: Reasoning) -> tuple[list[str], list[list[Cell]], frozenset[int]]:
    header = [
        "row",
        "right at the first",
        "at the last",
        "solved from",
        "would halt at",
        "given up",
        "loss at the last",
    ]
    rows: list[list[Cell]] = [
        [
            str(example.row),
            percent(example.steps[0].right / max(example.of, 1)),
            percent(example.steps[-1].right / max(example.of, 1)),
            "–" if example.solved is None else str(example.solved),
            "–" if example.halts is None else str(example.halts),
            str(example.given_up),
            significant(example.steps[-1].loss, 2),
        ]
        for example in reasoning.examples
    ]
    return header, rows, frozenset(range(len(header)))


def _lead(reasoning: Reasoning) -> str:
    return f"How {reasoning.checkpoint} comes to its answers on {reasoning.split} of {reasoning.task}"
