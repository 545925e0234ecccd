"""How a model comes to its answers: single rows, segment by segment, as plain data.

What it says at each segment and how sure it is, when it changes its mind, when it would halt, how far its states still
move. A few rows show how a model works; they measure nothing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from analysis.numbers import finite, listing, percent, plural

if TYPE_CHECKING:
    from hrm.trace import Trace

Mark = Callable[[int], str]
"""A token as a reader sees it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How a row lies on a page: a grid of so many columns, or a text."""

    kind: Literal["grid", "text"]
    columns: int = 0
    boxes: tuple[int, int] | None = None
    """Height and width of a Sudoku's boxes."""
    palette: Literal["", "maze", "arc"] = ""
    """Cells that are pictures, not digits."""
    shifted: bool = False
    """A text whose answer at a position is the token after it."""


@dataclass(frozen=True, slots=True)
class Step:
    """What the model says at a segment."""

    marks: list[str]
    sure: list[float]
    """The probability of each of them."""
    changed: list[int]
    """The positions at which it is another one than a segment before."""
    right: int
    """Of the scored positions."""
    loss: float
    """Nats per scored position."""
    halt: float | None
    """Sigmoid of the Q's first value: that the answer is right; None for a model without a Q."""
    go_on: float | None
    """Of its second, where the rule of training compares the two."""
    moved: dict[str, float]
    """By state, ||z_t - z_(t-1)|| / ||z_t||."""


@dataclass(frozen=True, slots=True)
class Example:
    """A row and how the model worked on it."""

    row: int
    question: list[str]
    answer: list[str]
    """Empty where nothing is scored."""
    scored: list[bool]
    given: list[bool]
    """Where the question holds the answer already; of a text, and of ARC's grids, nowhere."""
    steps: list[Step]
    settled: list[int]
    """By position the segment, from 1, since which its prediction is the last one."""
    halts: int | None
    """The segment at which the rule of training would have ended the row; None where that takes more than these, or
    there is no Q."""
    solved: int | None
    """The segment since which every scored position is right; None where the last one has an error."""
    given_up: int
    """Scored positions that were right at a segment and are wrong at the last."""

    @property
    def of(self) -> int:
        """How many positions are scored."""
        return sum(self.scored)


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Rows of a split of a task under one checkpoint."""

    checkpoint: str
    task: str
    split: str
    segments: int
    trained_segments: int
    layout: Layout
    examples: list[Example]

    def to_json(self) -> str:
        """Everything, for programs; what is not finite becomes null."""
        return json.dumps(finite(asdict(self) | {"findings": findings(self)}), allow_nan=False)


def layout_of(kind: str, length: int, boxes: tuple[int, int] | None, next_token: bool) -> Layout:
    """Of a row of `length` tokens of a task: a square of cells where it is one and no text."""
    side = math.isqrt(length)
    if next_token or side * side != length:
        return Layout("text", shifted=next_token)
    return Layout("grid", side, boxes, "maze" if kind == "maze" else "arc" if kind == "arc" else "")


def examples_of(trace: Trace, mark: Mark, *, filled_in: bool, q_continues: bool) -> list[Example]:
    """Each row of a trace. `filled_in`: the answer is the question filled in, so that cells of it are given.

    `q_continues`: the rule of training gives the Q's second value a meaning.
    """
    return [_example(trace, row, mark, filled_in, q_continues) for row in range(len(trace.numbers))]


def findings(reasoning: Reasoning) -> list[str]:
    """What these rows show, in sentences; of a few rows they are examples, not rates."""
    examples = reasoning.examples
    solved = [example for example in examples if example.solved is not None]
    lines = [f"Without an error at the end: {len(solved)} of {plural(len(examples), 'row')}."]
    if solved:
        lines.append(f"Those are right for good from segment {_spread([e.solved or 0 for e in solved])} on.")
    if lost := sum(example.given_up for example in examples):
        lines.append(f"{plural(lost, 'position')} were right at some segment and are wrong at the last.")
    lines += _halting(reasoning)
    lines += [_movement(examples, state) for state in examples[0].steps[0].moved] if reasoning.segments > 1 else []
    if reasoning.segments > reasoning.trained_segments:
        lines.append(
            f"It was trained with {plural(reasoning.trained_segments, 'segment')}; the others are beyond that."
        )
    return lines


def _example(trace: Trace, row: int, mark: Mark, filled_in: bool, q_continues: bool) -> Example:
    inputs, labels = (np.asarray(trace.rows[name][row]) for name in ("inputs", "labels"))
    scored, said, right = trace.scored[row], trace.predictions[:, row], trace.correct[:, row]
    same = said == said[-1]
    settled = len(said) - np.where(same.all(0), len(said), same[::-1].argmin(0)) + 1
    whole = trace.exact[:, row]
    unbroken = len(whole) - (len(whole) if whole.all() else int(whole[::-1].argmin())) + 1
    return Example(
        row=int(trace.numbers[row]),
        question=[mark(int(token)) for token in inputs],
        answer=[mark(int(token)) if kept else "" for token, kept in zip(labels, scored, strict=True)],
        scored=scored.tolist(),
        given=(scored & (inputs == labels) & filled_in).tolist(),
        steps=[_step(trace, segment, row, mark, q_continues) for segment in range(len(said))],
        settled=settled.tolist(),
        halts=None if trace.halts is None else int(trace.halts[row]) or None,
        solved=unbroken if whole[-1] else None,
        given_up=int((right.any(0) & ~right[-1]).sum()),
    )


def _step(trace: Trace, segment: int, row: int, mark: Mark, q_continues: bool) -> Step:
    said = trace.predictions[segment, row]
    changed = np.flatnonzero(said != trace.predictions[segment - 1, row]) if segment else np.empty(0, np.int64)
    q = None if trace.q is None else 1.0 / (1.0 + np.exp(-trace.q[segment, row].astype(np.float64)))
    return Step(
        marks=[mark(int(token)) for token in said],
        sure=[round(float(p), 4) for p in trace.probabilities[segment, row]],
        changed=changed.tolist(),
        right=int(trace.correct[segment, row].sum()),
        loss=float(trace.losses[segment, row]) / max(int(trace.scored[row].sum()), 1),
        halt=None if q is None else float(q[0]),
        go_on=None if q is None or not q_continues else float(q[1]),
        moved={name: float(values[segment, row]) for name, values in trace.residuals.items()},
    )


def _halting(reasoning: Reasoning) -> list[str]:
    asked = [example for example in reasoning.examples if example.steps[-1].halt is not None]
    ended = [example for example in asked if example.halts is not None]
    lines = []
    if ended:
        which = "them" if len(ended) == len(asked) else _rows(ended)
        at = _spread([e.halts or 0 for e in ended])
        lines.append(f"The rule of training would have ended {which} at segment {at}.")
    if early := [e for e in ended if e.solved is not None and (e.halts or 0) < e.solved]:
        lines.append(f"That is before the answer was whole in {_rows(early)}.")
    if going_on := [example for example in asked if example.halts is None]:
        which = _rows(going_on) if ended else "any of them"
        lines.append(
            f"It is open where the rule of training would have ended {which}: these are "
            f"{plural(reasoning.segments, 'segment')}, and it gives up to {reasoning.trained_segments}."
        )
    if sure := [e for e in asked if e.solved is None and (e.steps[-1].halt or 0.0) > 0.5]:
        lines.append(f"The Q takes a wrong answer for a right one in {_rows(sure)}.")
    return lines


def _rows(examples: Sequence[Example]) -> str:
    return listing([f"row {example.row}" for example in examples])


def _movement(examples: Sequence[Example], state: str) -> str:
    first, last = (float(np.mean([e.steps[at].moved[state] for e in examples])) for at in (0, -1))
    return f"At the first segment {state} moves by {percent(first)} of its size, at the last by {percent(last)}."


def _spread(segments: Iterable[int]) -> str:
    values = sorted(segments)
    if values[0] == values[-1]:
        return str(values[0])
    return f"{values[0]} to {values[-1]} (median {float(np.median(values)):g})"
