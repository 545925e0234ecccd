"""Behaviour as a reader sees it: metrics, segments, the halting Q, and what pairs of checkpoints have in common."""

from __future__ import annotations

from analysis.checkpoints.agreement import Pair
from analysis.checkpoints.behaviour import Behaviour, CheckpointBehaviour
from analysis.checkpoints.behaviour_figures import reliability_figure, segment_figure, way_figure
from analysis.numbers import percent, significant
from analysis.section import Block, Chart, Notes, Section, Table, Text


def behaviour_answer(behaviour: Behaviour) -> str:
    """The last checkpoint's metrics; of several trainings the lowest and the highest loss."""
    rows = f"On {behaviour.rows:,} rows of {behaviour.split}"
    if behaviour.trainings > 1:
        ranked = sorted(behaviour.checkpoints, key=lambda one: one.metrics["loss"].value)
        first, last = (f"{one.metrics['loss']}, {one.label}" for one in (ranked[0], ranked[-1]))
        return f"{rows} the losses of {len(ranked)} checkpoints go from {first}, to {last}."
    last_one = behaviour.checkpoints[-1]
    shown = ", ".join(f"{_words(name)} {last_one.metrics[name]}" for name in ("loss", "exact_accuracy"))
    return f"{rows}, {last_one.label}: {shown}."


def behaviour_sections(behaviour: Behaviour) -> list[Section]:
    """All that was measured."""
    return [
        *_metrics(behaviour),
        *_by_segment(behaviour),
        *_halting(behaviour),
        *_agreement(behaviour),
    ]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _metrics(behaviour: Behaviour) -> list[Section]:
    names = list(behaviour.checkpoints[0].metrics)
    rows = [
        [one.label, *(str(one.metrics[name]) if name in one.metrics else "–" for name in names)]
        for one in behaviour.checkpoints
    ]
    table = Table(["checkpoint", *map(_words, names)], rows, numeric=frozenset(range(1, len(names) + 1)))
    about = (
        f"{behaviour.task}, {behaviour.split}: {behaviour.rows:,} rows in {behaviour.groups:,} independent groups, at "
        "full depth, with the weights that evaluations use. Brackets are 95 % intervals."
    )
    return [Section("What they do on data", [Text(about), table, Notes(behaviour.notes)], level=2)]


def _by_segment(behaviour: Behaviour) -> list[Section]:
    last = behaviour.checkpoints[-1]
    if len(last.by_segment) < 2:
        return []
    states = list(last.by_segment[0].residuals)
    header = ["segment", "loss", "token accuracy", "exact accuracy", "changed", *(f"{name} moves" for name in states)]
    rows = [
        [
            str(one.segment),
            *map(str, one.metrics.values()),
            "–" if one.segment == 1 else percent(one.changed),
            *(significant(one.residuals[name], 3) for name in states),
        ]
        for one in last.by_segment
    ]
    legend = (
        f"{last.label}. Changed: the share of positions that say another thing than a segment before. A state moves by "
        "||z_t - z_(t-1)|| / ||z_t||, here the median over rows."
    )
    blocks: list[Block] = [
        Chart("by-segment", segment_figure(behaviour)),
        Table(header, rows, numeric=frozenset(range(1, len(header)))),
        Text(legend, quiet=True),
    ]
    return [Section("Segment by segment", blocks)]


def _halting(behaviour: Behaviour) -> list[Section]:
    known = [one for one in behaviour.checkpoints if one.calibration is not None]
    if not known:
        return []
    lines = [f"{one.label}: {one.calibration.verdict}." for one in known[-1:] if one.calibration]
    header = ["checkpoint", "calibration error", "by chance up to", "confidence minus solved", "Q is right", "guessing"]
    rows = [
        [
            one.label,
            str(one.calibration.error),
            f"{one.calibration.by_chance:.3f}",
            str(one.calibration.excess),
            str(one.calibration.right),
            percent(one.calibration.always),
        ]
        for one in known
        if one.calibration
    ]
    legend = (
        "The probability of being solved that the halting Q gives a row after the last segment, against whether it is. "
        "Calibration error: their distance by bins of equal size (ECE). Guessing: always the more frequent answer."
    )
    blocks: list[Block] = [
        Notes(lines),
        Chart("reliability", reliability_figure(behaviour)),
        Table(header, rows, numeric=frozenset(range(1, len(header)))),
        Text(legend, quiet=True),
    ]
    ended = [one for one in known if one.halting is not None]
    return [Section("Is the halting Q to be believed", [*blocks, *([_ended(ended)] if ended else [])])]


def _ended(known: list[CheckpointBehaviour]) -> Table:
    shown = ("exact_accuracy", "loss")
    header = ["ended by its Q", "segments", "exact accuracy", "against full depth", "loss", "against full depth"]
    rows = [
        [
            one.label,
            f"{one.halting.segments} of {one.halting.of}",
            *(str(part[name]) for name in shown for part in (one.halting.metrics, one.halting.lost)),
        ]
        for one in known
        if one.halting
    ]
    return Table(header, rows, numeric=frozenset(range(1, len(header))))


def _agreement(behaviour: Behaviour) -> list[Section]:
    if not behaviour.pairs:
        return []
    states = sorted({name for pair in behaviour.pairs for name in pair.alike})
    header = ["", "", "same tokens", "same rows", "both solve", "first", "second", "neither",
              *(f"CKA of {name}" for name in states), "barrier"]  # fmt: skip
    rows = [
        [
            pair.first,
            pair.second,
            str(pair.same_tokens),
            str(pair.same_rows),
            *(f"{pair.solved[who]:,}" for who in ("both", "first", "second", "neither")),
            *(significant(pair.alike.get(name), 3) for name in states),
            _barrier(pair),
        ]
        for pair in behaviour.pairs
    ]
    legend = (
        "Solved: every scored position right. CKA: 1 where one state is a rotation of the other, about 0 where they "
        "have nothing in common; of the states after the last segment, at one position of each row. Barrier: how far "
        "the loss rises above the line between both losses, on the straight way between the weights; up to 2 % is none."
    )
    ways = [pair for pair in behaviour.pairs if pair.barrier is not None]
    blocks: list[Block] = [Table(header, rows, numeric=frozenset(range(2, len(header)))), Text(legend, quiet=True)]
    if ways:
        blocks.append(Chart("between-weights", way_figure(ways)))
    return [Section("Do they agree", blocks)]


def _barrier(pair: Pair) -> str:
    if pair.barrier is None:
        return "–"
    word = {"barrier": "a barrier", "none": "none", "cannot tell": "cannot tell"}[pair.barrier.verdict]
    return f"{word}: {pair.barrier.height}"
