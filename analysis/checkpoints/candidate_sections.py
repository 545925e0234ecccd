"""Candidates as a reader sees them: which to use for what, on what evidence, and all that were measured."""

from __future__ import annotations

from pathlib import Path

import plotly.graph_objects as go

from analysis.checkpoints.candidates import Candidates, Scored, TrainingCandidates
from analysis.checkpoints.recommendation import Recommendation
from analysis.figure_style import COLOURS, GREY, escape, style
from analysis.numbers import flop, percent, significant
from analysis.section import Block, Chart, Notes, Section, Table, Text

SAID = 3
"""The most trainings whose recommendations stand in the head of a report."""
_FAMILIES = ("checkpoint", "raw", "average", "ensemble", "depth", "halting", "precision")
_NAMES = {"loss": "loss", "token_accuracy": "token accuracy", "exact_accuracy": "exact accuracy"}


def candidates_answer(candidates: Candidates) -> str:
    """Which to use for accuracy, by training; of many trainings only how many."""
    several = len(candidates.trainings) > 1
    told = [one for one in candidates.trainings if one.recommendations and one.checkpoints > 1]
    if len(told) > SAID:
        return f"What to use of each of the {len(told)} trainings stands below."
    return " ".join(
        (f"{Path(one.training).name}: " if several else "") + sentence(one.recommendations[0], one) for one in told
    )


def candidate_sections(candidates: Candidates) -> list[Section]:
    """A part for each training."""
    several = len(candidates.trainings) > 1
    return [
        section
        for number, one in enumerate(candidates.trainings, start=1)
        for section in _of_training(one, number, f": {Path(one.training).name}" if several else "")
    ]


def sentence(found: Recommendation, training: TrainingCandidates) -> str:
    """A recommendation with its evidence."""
    name = _NAMES[training.objective]
    rows = f"{training.reported_on:,} rows that it was not chosen by"
    apart = f"{name} differs by {found.difference} on {rows}" if found.difference else ""
    match found.verdict:
        case "nothing to try":
            return f"Use {found.choice}: there is nothing else to try."
        case "better":
            return f"Use {found.choice}: better than {found.against}, the last ({apart})."
        case "no other is better":
            rest = f" The most promising, {found.tried}: {apart}." if apart else ""
            return f"Use {found.choice}: nothing else is better.{rest}"
        case "as good":
            saves = f"takes {percent(found.saves)} less than {found.against}"
            return f"Use {found.choice}: it {saves} and loses no more than {_margin(found)} ({apart})."
        case "none as good":
            rest = f" The most promising, {found.tried}: {apart}." if apart else ""
            of = "" if found.choice == found.against else f" against {found.against}"
            return f"Stay with {found.choice}: nothing cheaper is sure to lose no more than {_margin(found)}{of}.{rest}"
        case "cannot tell":
            better = "better" if found.use == "accuracy" else f"as good as {found.against} within {_margin(found)}"
            return f"Use {found.choice}: cannot tell whether {found.tried} is {better} ({apart})."


def _margin(found: Recommendation) -> str:
    return significant(found.margin, 2)


def _of_training(training: TrainingCandidates, number: int, of: str) -> list[Section]:
    uses = Table(
        ["for", "use", "why"],
        [[one.use, one.choice, sentence(one, training)] for one in training.recommendations],
    )
    halves = (
        f"Chosen on {training.chosen_on:,} rows, measured here on {training.reported_on:,} others. Differences are "
        "paired row by row; brackets are 95 % intervals over rows. FLOPs are those of a row's forward passes by the "
        "model's formula, sizes those of the weights alone."
    )
    told: list[Block] = (
        [uses] if training.recommendations else [Text("Nothing is recommended here, for the reasons below.")]
    )
    blocks = [*told, Notes(training.notes)] if training.notes else told
    return [
        Section(f"Which to use{of}", blocks, level=2),
        Section(
            f"Candidates side by side{of}",
            [Text(halves), Chart(f"candidates-{number}", _figure(training)), _table(training)],
            folded=bool(of),
        ),
    ]


def _table(training: TrainingCandidates) -> Table:
    ranked = _ranked(training)
    header = ["candidate", *_NAMES.values(), f"against {training.reference}", "FLOPs per row", "size"]
    rows = [
        [
            one.name,
            *(str(one.metrics[name]) for name in _NAMES),
            "–" if one.name == training.reference else str(one.against),
            flop(one.flops),
            f"{one.bytes / 2**20:.1f} MiB",
        ]
        for one in ranked
    ]
    return Table(header, rows, numeric=frozenset(range(1, len(header))))


def _ranked(training: TrainingCandidates) -> list[Scored]:
    sign = -1.0 if training.maximise else 1.0
    return sorted(training.candidates, key=lambda one: sign * one.metrics[training.objective].value)


def _figure(training: TrainingCandidates) -> go.Figure:
    """The difference of each to the reference; the best on top."""
    figure, ranked = go.Figure(), _ranked(training)[::-1]
    for family in (name for name in _FAMILIES if any(one.family == name for one in ranked)):
        mine = [one for one in ranked if one.family == family]
        found = [one.against for one in mine]
        figure.add_scatter(
            x=[one.value for one in found],
            y=[escape(one.name) for one in mine],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [0.0 if one.high is None else one.high - one.value for one in found],
                "arrayminus": [0.0 if one.low is None else one.value - one.low for one in found],
                "thickness": 1.5,
            },
            mode="markers",
            name=family,
            marker={"size": 9, "color": COLOURS[_FAMILIES.index(family)]},
            hovertext=[f"{escape(one.name)}: {one.against}" for one in mine],
            hoverinfo="text",
        )
    figure.add_vline(x=0.0, line={"color": GREY, "dash": "dot"})
    better = "to the right is better" if training.maximise else "to the left is better"
    title = f"{_NAMES[training.objective]} minus that of {escape(training.reference)} ({better})"
    style(figure, height=110 + 26 * len(ranked), x=title, y="")
    figure.update_yaxes(categoryorder="array", categoryarray=[escape(one.name) for one in ranked])
    return figure
