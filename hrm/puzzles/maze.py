"""A maze as lines of text: `#` walls, `S` start, `G` goal, spaces or `.` open cells; or in one line, as in Maze-Hard.

A path of `o` that is drawn in it is taken out. Refused: another size than the model's, none or several of S and G,
other characters, and mazes without a way from S to G.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from hrm.data.maze_grids import (
    GOAL,
    MARKS,
    OPEN,
    PATH,
    START,
    WALL,
    are_paths,
    first_path_labels,
    path_steps,
    shortest_steps,
)
from hrm.puzzles import Build, Cell, Puzzle, PuzzleKind, Verdict, refused, text_of

_ROLES = {WALL: "wall", OPEN: "", START: "end", GOAL: "end", PATH: "path"}
_KNOWN = f"{MARKS}."


class MazePuzzles(PuzzleKind):
    """Of one size."""

    def __init__(self, size: int) -> None:
        self.size = size

    def each(self, text: str, place: str) -> Iterator[Build]:
        """One maze in lines; or mazes of one line each."""
        lines = text.splitlines()
        listed = [(at, line) for at, line in enumerate(lines, 1) if line]
        if any(len(line) == self.size**2 for _, line in listed):
            for at, line in listed:
                yield partial(self._in_a_line, line, f"{place}: line {at}" if len(listed) > 1 else place)
        else:
            yield partial(self._in_lines, lines, place)

    def of_record(self, record: dict[str, Any], place: str) -> Puzzle:
        return self._in_a_line(text_of(record, "question", place), place, "`question` ")

    def judge(self, puzzle: Puzzle, tokens: np.ndarray) -> Verdict:
        least = int(shortest_steps(puzzle.inputs[None])[0])
        if not are_paths(puzzle.inputs[None], tokens[None])[0]:
            return Verdict(False, f"not valid: no single path from S to G over open cells ({least} steps would do)")
        steps = int(path_steps(tokens[None])[0])
        if steps > least:
            return Verdict(False, f"a valid path of {steps} steps, but {least} would do")
        return Verdict(True, f"valid: a shortest path, {steps} steps")

    def question(self, puzzle: Puzzle) -> list[list[Cell]]:
        return self._drawn(puzzle.inputs)

    def drawn(self, puzzle: Puzzle, tokens: np.ndarray) -> list[list[Cell]]:
        return self._drawn(tokens)

    def _in_lines(self, lines: list[str], place: str) -> Puzzle:
        """Open cells at the end of a line may be missing; empty lines around the maze are left out."""
        while len(lines) > self.size and not (lines[0] and lines[-1]):
            lines = lines[:-1] if not lines[-1] else lines[1:]
        widest = max(map(len, lines), default=0)
        if len(lines) != self.size or widest > self.size:
            rule = (
                f"must have {self.size} lines of {self.size} cells, as the model's mazes, got {len(lines)} of {widest}"
            )
            raise refused(place, rule, "Give a maze of that size, or a checkpoint of this one")
        return self._puzzle("".join(line.ljust(self.size) for line in lines), place)

    def _in_a_line(self, cells: str, place: str, name: str = "") -> Puzzle:
        if len(cells) != self.size**2:
            rule = f"{name}must have {self.size**2} cells (the model's mazes are of {self.size} by {self.size})"
            raise refused(place, f"{rule}, got {len(cells)}", "Give mazes of that size, open cells at the end, too")
        return self._puzzle(cells, place)

    def _puzzle(self, cells: str, place: str) -> Puzzle:
        if strange := set(cells) - set(_KNOWN):
            rule = f"may hold # (wall), space or . (open), S, G and o (a path), got {''.join(sorted(strange))!r}"
            raise refused(place, rule, "Correct the maze")
        for mark in (MARKS[START - WALL], MARKS[GOAL - WALL]):
            if cells.count(mark) != 1:
                raise refused(place, f"must have one {mark}, got {cells.count(mark)}", "Correct the maze")
        drawn_in = MARKS[PATH - WALL] in cells
        plain = cells.replace(".", " ").replace(MARKS[PATH - WALL], " ")
        inputs = np.array([MARKS.index(mark) + WALL for mark in plain])
        if shortest_steps(inputs[None])[0] < 0:
            raise refused(place, "has no way from S to G", "Open a wall")
        notes = ("The path that is drawn in it was taken out.",) if drawn_in else ()
        return Puzzle(place, inputs, first_path_labels(inputs[None])[0].astype(np.int64), notes=notes)

    def _drawn(self, tokens: np.ndarray) -> list[list[Cell]]:
        cells = [
            Cell(MARKS[token - WALL], _ROLES[token]) if WALL <= token <= PATH else Cell("?", "wrong")
            for token in tokens.tolist()
        ]
        return [cells[start : start + self.size] for start in range(0, len(cells), self.size)]
