"""ARC tasks as JSON: every test input is a puzzle, compared with its output where one is given.

A task of the model's data has its puzzle identifier, any other the blank one: what a model of identifiers knows of a
task is in its identifier, so that it hardly solves others. One pass over the input as it is, no vote over its forms.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hrm.data.arc_forms import BLACK, PAD, corners, moved_to_corner, read_out
from hrm.data.arc_rows import canvas_of
from hrm.data.arc_tasks import Grid, grid_of
from hrm.puzzles import Build, Cell, Puzzle, PuzzleKind, Verdict, refused

UNKNOWN = "The model's data has no task {name!r}: it got the blank puzzle identifier."


class ArcPuzzles(PuzzleKind):
    """On one canvas."""

    def __init__(self, canvas: int, identifiers: Mapping[str, int]) -> None:
        """identifiers: by task the first of its puzzle identifiers."""
        self.canvas, self.identifiers = canvas, identifiers

    def each(self, text: str, place: str) -> Iterator[Build]:
        """A task (`train`, `test`), or tasks by name."""
        try:
            content = json.loads(text)
        except ValueError as error:
            raise refused(place, f"must be JSON, and is not: {error}", "Give a task of ARC as JSON") from error
        tasks = {Path(place).name.split(".json")[0]: content} if _is_task(content) else content
        if not isinstance(tasks, dict) or not tasks or not all(_is_task(task) for task in tasks.values()):
            raise refused(
                place, "must hold a task (`train` and `test`), or tasks by name", "Give a task of ARC as JSON"
            )
        for name, task in tasks.items():
            for number in range(1, len(task["test"]) + 1):
                yield partial(self._puzzle, name, task, number, place)

    def of_record(self, record: dict[str, Any], place: str) -> Puzzle:
        raise refused(place, "ARC tasks are JSON, and this is a table", "Give a .json file")

    def judge(self, puzzle: Puzzle, tokens: np.ndarray) -> Verdict:
        found = self._grid(puzzle, tokens)
        size = f"{found.shape[0]} by {found.shape[1]}"
        if not found.size:
            return Verdict(False, "not valid: the answer begins with no colour, so that it is no grid")
        if puzzle.answer is None:
            return Verdict(None, f"a grid of {size}; no output is given to compare it with")
        true = self._grid(puzzle, puzzle.answer)
        if found.shape == true.shape and (found == true).all():
            return Verdict(True, f"right: the given output, {size}")
        if found.shape != true.shape:
            return Verdict(False, f"wrong: {size}, where the output is {true.shape[0]} by {true.shape[1]}")
        return Verdict(False, f"wrong: {int((found != true).sum())} of {true.size} cells differ from the given output")

    def question(self, puzzle: Puzzle) -> list[list[Cell]]:
        return self._drawn(self._grid(puzzle, puzzle.inputs))

    def drawn(self, puzzle: Puzzle, tokens: np.ndarray) -> list[list[Cell]]:
        return self._drawn(self._grid(puzzle, tokens))

    def _puzzle(self, name: str, task: Any, number: int, place: str) -> Puzzle:
        """Of a test input, from 1. Raises SpecError for what is no grid, or too large."""
        identifier, pair = self.identifiers.get(name, 0), task["test"][number - 1]
        notes = () if identifier else (UNKNOWN.format(name=name),)
        where = f"{place}: {name}, test {number}" if name not in place else f"{place}: test {number}"
        inputs = self._canvas(pair, "input", where)
        answer = self._canvas(pair, "output", where) if pair.get("output") is not None else None
        return Puzzle(where, inputs, answer, identifier, notes)

    def _canvas(self, pair: Any, side: str, place: str) -> np.ndarray:
        grid = grid_of(pair.get(side))
        if grid is None or max(grid.shape) > self.canvas:
            rule = f"`{side}` must be rows of one length, of colours 0 to 9, at most {self.canvas} by {self.canvas}"
            raise refused(place, rule, "Correct the file")
        return canvas_of(grid, self.canvas, PAD)

    def _grid(self, puzzle: Puzzle, tokens: np.ndarray) -> Grid:
        """The grid of an answer, read out as for a vote; colours 0 to 9."""
        found = moved_to_corner(tokens[None].astype(np.int64), corners(puzzle.inputs[None]))
        height, width = (int(length) for length in read_out(found)[0])
        grid = found.reshape(self.canvas, self.canvas)[:height, :width] - BLACK
        return np.asarray(grid, dtype=np.int8)

    def _drawn(self, grid: Grid) -> list[list[Cell]]:
        return [[Cell(str(colour), f"colour {colour}") for colour in line] for line in grid.tolist()]


def _is_task(content: Any) -> bool:
    tests = content.get("test") if isinstance(content, dict) else None
    return isinstance(tests, list) and bool(tests) and all(isinstance(pair, dict) for pair in tests)
