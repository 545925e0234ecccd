"""Mazes from files in the Maze-Hard layout: records with a `question` and an `answer`, the cells row by row.

Every row is proved: a maze with one start and one goal, and an answer that is one of its shortest paths. What is wrong
is said of all rows at once, with file and row.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hrm.data.maze_grids import GOAL, MARKS, START, WALL, are_paths, path_steps, shortest_steps
from hrm.data.reading import read_records
from hrm.data.sources import SourceSpec
from hrm.errors import Problem, SpecError

_LISTED = 10
"""So many wrong rows are named, the others counted."""
_AT_ONCE = 1024
_TOKENS = np.zeros(128, dtype=np.uint8)
_TOKENS[list(MARKS.encode())] = np.arange(WALL, WALL + len(MARKS))


def read_mazes(source: SourceSpec, size: int) -> npt.NDArray[np.uint8]:
    """Inputs and labels [2, N, size * size] of all records, in their order. Raises SpecError with the wrong ones."""
    problems: list[Problem] = []
    mazes = [np.zeros((2, 0, size * size), dtype=np.uint8)]
    for path in source.locate():
        records, first = read_records(path), 1
        while chunk := list(islice(records, _AT_ONCE)):
            mazes.append(_read(path, first, chunk, size, problems))
            first += len(chunk)
    if problems:
        more = len(problems) - _LISTED
        rest = [Problem(problems[_LISTED].place, f"is wrong, too, and so are {more - 1} after it")] if more > 0 else []
        raise SpecError(*problems[:_LISTED], *rest)
    return np.concatenate(mazes, axis=1)


def _read(
    path: Path, first: int, records: list[dict[str, Any]], size: int, problems: list[Problem]
) -> npt.NDArray[np.uint8]:
    """The good records as tokens; the others become problems."""
    rules = [_rule_of_text(record, size) for record in records]
    good = [index for index, rule in enumerate(rules) if rule is None]
    tokens = np.array(
        [[_encoded(records[index][name]) for index in good] for name in ("question", "answer")], dtype=np.uint8
    ).reshape(2, len(good), size * size)
    for index, rule in zip(good, _rules_of_paths(*tokens), strict=True):
        rules[index] = rule
    for index, rule in enumerate(rules):
        if rule is not None:
            problems.append(Problem(f"{path}: row {first + index}", rule, "Correct the row or leave it out"))
    return tokens


def _rule_of_text(record: Mapping[str, Any], size: int) -> str | None:
    """What is wrong with the characters of a record, if something is."""
    for name in ("question", "answer"):
        text = record.get(name)
        if not isinstance(text, str):
            return f"must have a text `{name}`, got {', '.join(record) or 'nothing'}"
        if len(text) != size * size:
            return f"`{name}` must hold {size * size} cells (size is {size}), got {len(text)}"
        known = MARKS[:-1] if name == "question" else MARKS
        if strange := set(text) - set(known):
            return f"`{name}` may hold the characters {known!r}, got {''.join(sorted(strange))!r}"
        for mark in (MARKS[START - WALL], MARKS[GOAL - WALL]):
            if text.count(mark) != 1:
                return f"`{name}` must hold one {mark}, got {text.count(mark)}"
    return None


def _rules_of_paths(inputs: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> list[str | None]:
    """What is wrong with each answer, if something is."""
    found = are_paths(inputs, labels), path_steps(labels), shortest_steps(inputs)
    rules: list[str | None] = []
    for right, steps, shortest in zip(*found, strict=True):
        if shortest < 0:
            rules.append("no path joins S to G")
        elif not right:
            rules.append("`answer` must be `question` with one path of `o` from S to G, and it is not")
        else:
            rules.append(None if steps == shortest else f"`answer` must be {shortest} steps long, got {steps}")
    return rules


def _encoded(text: str) -> npt.NDArray[np.uint8]:
    return _TOKENS[np.frombuffer(text.encode("ascii"), dtype=np.uint8)]
