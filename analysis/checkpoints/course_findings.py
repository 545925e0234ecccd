"""What changed over the checkpoints of one training, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from analysis.checkpoints.change import Course
from analysis.checkpoints.tensors import EVERYTHING
from analysis.checkpoints.wording import Finding, few, share
from analysis.numbers import listing, significant

if TYPE_CHECKING:
    from analysis.checkpoints.health import CheckpointHealth


def of_course(course: Course, checkpoints: Sequence[CheckpointHealth]) -> Iterator[Finding]:
    """Of one training's checkpoints, in the order of their steps."""
    span = f"From {course.labels[0]} to {course.labels[-1]}"
    yield from _moved(course, span)
    yield from _unchanged(course, span)
    yield from _puzzles(checkpoints, span)
    yield from _rows_still(course, checkpoints[-1], span)
    yield from _averages(course, span)
    if course.not_comparable:
        text = f"Not in all of them, or not of one shape, and so not compared: {few(course.not_comparable)}."
        yield Finding("notice", "change", text)


def _moved(course: Course, span: str) -> Iterator[Finding]:
    moved = [(drift.component, drift.relative[-1]) for drift in course.drifts]
    told = [f"{name} by {significant(100 * value, 2)} %" for name, value in moved if value]
    if told:
        text = (
            f"{span} these moved, in parts of their norm: {listing(told)}. That is how far, not whether it is enough."
        )
        yield Finding("fine", "change", text)


def _unchanged(course: Course, span: str) -> Iterator[Finding]:
    still = [drift for drift in course.tensors if drift.changed == 0.0]
    if len(still) == len(course.tensors):
        yield Finding("notice", "change", f"{span} not one value changed: these are copies of one checkpoint.")
        return
    buffers = [drift.name for drift in still if drift.buffer and drift.component != "puzzle table"]
    trained = [drift.name for drift in still if drift.name not in buffers]
    if buffers:
        yield Finding("fine", "change", f"{span} {few(buffers)} did not change: buffers that no training touches.")
    if trained:
        text = f"{span} {few(trained)} did not change in any value: nothing trained them there."
        yield Finding("notice", "change", text)


def _puzzles(checkpoints: Sequence[CheckpointHealth], span: str) -> Iterator[Finding]:
    tables = [table for checkpoint in checkpoints for table in checkpoint.tables if table.component == "puzzle table"]
    if len(tables) < 2 or tables[0].rows != tables[-1].rows or tables[0].zero_rows <= 1:
        return
    first, last = tables[0], tables[-1]
    text = (
        f"{span} the rows of the puzzle table that were never trained fell from {first.zero_rows:,} to "
        f"{last.zero_rows:,} of {last.rows:,} ({share(first.zero_rows, first.rows)} to "
        f"{share(last.zero_rows, last.rows)})."
    )
    yield Finding("notice", "rows never trained", text)


def _rows_still(course: Course, last: CheckpointHealth, span: str) -> Iterator[Finding]:
    """Rows of token tables that decay alone could have shrunk."""
    rows = {table.name: table.rows for table in last.tables if table.component != "puzzle table"}
    for drift in course.tensors:
        still = rows[drift.name] - drift.rows_moved if drift.name in rows and drift.rows_moved is not None else 0
        if still and drift.changed:
            text = f"{span} {still:,} of {rows[drift.name]:,} rows of {drift.name} kept their direction: not trained."
            yield Finding("notice", "embedding use", text)


def _averages(course: Course, span: str) -> Iterator[Finding]:
    """As reports of weights alone give them, with what they hide."""
    told = []
    for number, words in (("mean_absolute", "mean absolute weight"), ("std", "standard deviation")):
        changes = {c.weighting: c for c in course.changes if c.group == EVERYTHING and c.number == number}
        by_tensor, by_value = changes.get("tensor"), changes.get("parameter")
        if by_tensor and by_value and by_tensor.percent is not None and by_value.percent is not None:
            told.append(f"the {words} {by_tensor.percent:+.2f} % by tensor and {by_value.percent:+.2f} % by value")
    if told:
        yield Finding("fine", "change", f"{span}: {listing(told)}.")
