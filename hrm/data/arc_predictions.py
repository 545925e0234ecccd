"""What a model predicts for the forms of ARC tasks, as a table, and the vote over them.

A row is one prediction, turned and recoloured back. The vote is a function of the rows alone: evaluations keep no
state, and tables of several can be voted on together (`pyarrow.concat_tables`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

PASSES = (1, 2, 5, 10, 100, 1000)
"""The numbers of answers that are scored; ARC Prize allows two."""

SCHEMA = pa.schema(
    [
        ("task", pa.int32()),  # the puzzle identifier of its first form
        ("test", pa.int32()),  # which of the task's held-out pairs
        ("form", pa.int32()),
        ("blank", pa.bool_()),  # whether the model was not told the puzzle identifier
        ("confidence", pa.float64()),  # sigmoid of Q halt, 0 for a model without a Q
        ("height", pa.int32()),
        ("cells", pa.binary()),  # colours 0 to 9, row by row; empty where the model drew no grid
        ("correct", pa.bool_()),
    ]
)


@dataclass(slots=True)
class Candidate:
    """One grid that was predicted for a test input."""

    height: int
    cells: bytes
    correct: bool
    votes: int = 0
    confidence: float = 0.0
    """The mean over its votes."""


Test = tuple[int, int]
"""A task and one of its test inputs."""


def vote(predictions: pa.Table) -> dict[Test, list[Candidate]]:
    """The candidates of each test input, best first: by votes, then by mean confidence, then by their first form.

    An empty grid is no candidate. A prediction that is in the table twice has two votes.
    """
    tests: dict[Test, dict[tuple[int, bytes], Candidate]] = {}
    names = ("task", "test", "height", "cells", "confidence", "correct")
    ordered = predictions.sort_by([(name, "ascending") for name in ("task", "test", "form")])
    for task, test, height, cells, confidence, correct in zip(
        *(ordered[name].to_pylist() for name in names), strict=True
    ):
        candidates = tests.setdefault((task, test), {})
        if cells:
            candidate = candidates.setdefault((height, cells), Candidate(height, cells, correct))
            candidate.votes += 1
            candidate.confidence += (confidence - candidate.confidence) / candidate.votes
    return {test: sorted(found.values(), key=lambda c: (-c.votes, -c.confidence)) for test, found in tests.items()}


def passed(ranking: dict[Test, list[Candidate]], answers: int) -> dict[int, float]:
    """Task -> the share of its test inputs for which one of the first so many candidates is right."""
    solved: dict[int, list[bool]] = {}
    for (task, _), candidates in ranking.items():
        solved.setdefault(task, []).append(any(candidate.correct for candidate in candidates[:answers]))
    return {task: sum(tests) / len(tests) for task, tests in solved.items()}


def scores(predictions: pa.Table) -> dict[str, float]:
    """The mean over tasks of `passed`, as `pass_1`, `pass_2`, ...; `whole_tasks_2`: the share of tasks with every test
    input solved in two (HRM's way to count). With the suffix `_blank` the same without puzzle identifiers. What no row
    is about is left out.
    """
    result: dict[str, float] = {}
    for suffix, blank in (("", False), ("_blank", True)):
        ranking = vote(predictions.filter(pa.compute.equal(predictions["blank"], blank)))
        if not ranking:
            continue
        shares = {answers: list(passed(ranking, answers).values()) for answers in PASSES}
        result |= {f"pass_{answers}{suffix}": _mean(found) for answers, found in shares.items()}
        result[f"whole_tasks_2{suffix}"] = _mean(share == 1.0 for share in shares[2])
    return result


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)
