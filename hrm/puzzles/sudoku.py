"""A Sudoku as people write it: 16, 36 or 81 characters, in one line or in several, blanks as `.`, `0`, `_` or spaces.

Refused: another number of cells than the model's, other characters, givens that repeat a digit in a row, a column or a
box, and puzzles without any solution. One of several solutions may be solved: any valid grid is then right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from hrm.data.sudoku_grids import BOXES, is_complete, solutions
from hrm.puzzles import Build, Cell, Puzzle, PuzzleKind, Verdict, refused, text_of
from hrm.tasks.sudoku import BLANK

_RULE_LINE = re.compile(r"[\s\-+=|]*[\-+=][\s\-+=|]*")
EFFORT = 20_000
"""Guesses after which our solver does not ask any longer how many solutions there are."""
SEVERAL = "It has several solutions: any valid grid is right."
UNTOLD = "Our solver did not find out in time whether it has one solution, several or none."
MISSING = 3
"""So many broken units are named."""


class SudokuPuzzles(PuzzleKind):
    """Of one size."""

    def __init__(self, size: int) -> None:
        self.size, self.digits = size, "123456789"[:size]

    def each(self, text: str, place: str) -> Iterator[Build]:
        """One puzzle, or a list of one to a line; lines that begin with # are comments."""
        lines = [(at, line) for at, line in enumerate(text.splitlines(), 1) if not line.lstrip().startswith("#")]
        cells = self.size**2
        listed = [(at, line if len(line) == cells else line.strip()) for at, line in lines if line.strip()]
        fits = [len(line) == cells for _, line in listed]
        one = "\n".join(line for _, line in lines)
        if len(listed) > 1 and any(fits) and (all(fits) or len(self._cells(one)) != cells):
            for at, line in listed:
                yield partial(self._puzzle, line, f"{place}: line {at}")
        else:
            yield partial(self._puzzle, self._cells(one), place)

    def of_record(self, record: dict[str, Any], place: str) -> Puzzle:
        return self._puzzle(text_of(record, "question", place), place)

    def judge(self, puzzle: Puzzle, tokens: np.ndarray) -> Verdict:
        given = puzzle.inputs != BLANK
        changed = np.flatnonzero(given & (tokens != puzzle.inputs))
        broken = np.flatnonzero(~is_complete(tokens[None] - BLANK, self.size)[0])
        if not len(changed) and not len(broken):
            return Verdict(True, "valid: each digit once in every row, column and box, all givens kept")
        parts = []
        if len(broken):
            more = f" and {len(broken) - MISSING} more" if len(broken) > MISSING else ""
            named = ", ".join(self._unit(int(unit)) for unit in broken[:MISSING])
            parts.append(f"not each digit once in {named}{more}")
        if len(changed):
            row, column = divmod(int(changed[0]), self.size)
            parts.append(f"{len(changed)} givens changed, the first at row {row + 1}, column {column + 1}")
        return Verdict(False, f"not valid: {'; '.join(parts)}")

    def question(self, puzzle: Puzzle) -> list[list[Cell]]:
        return self._drawn(puzzle.inputs, ["given"] * len(puzzle.inputs))

    def drawn(self, puzzle: Puzzle, tokens: np.ndarray) -> list[list[Cell]]:
        right = tokens == puzzle.answer if puzzle.answer is not None else np.ones(len(tokens), dtype=bool)
        roles = np.where(right, np.where(puzzle.inputs != BLANK, "given", "filled"), "wrong")
        return self._drawn(tokens, roles.tolist())

    def _cells(self, text: str) -> str:
        """The characters of the cells: without what only separates, or with spaces as blanks where that fits."""
        lines = [line for line in text.strip("\r\n").splitlines() if not _RULE_LINE.fullmatch(line)]
        compact = re.sub(r"[\s|]", "", "".join(lines))
        if len(compact) == self.size**2:
            return compact
        if len(lines) == self.size and max(map(len, lines)) <= self.size:
            return "".join(line.ljust(self.size) for line in lines).replace(" ", ".")
        if len(lines) == 1 and len(lines[0]) == self.size**2:
            return lines[0].replace(" ", ".")
        return compact

    def _puzzle(self, cells: str, place: str) -> Puzzle:
        """Raises SpecError for what is none, or contradicts itself."""
        if len(cells) != self.size**2:
            rule = f"must have {self.size**2} cells (the model is of {self.size} by {self.size}), got {len(cells)}"
            raise refused(place, rule, "Give every cell, blanks as `.` or `0`, or a checkpoint of that size")
        if strange := set(cells) - set(f".0_ {self.digits}"):
            rule = f"may hold the digits 1 to {self.size}, and . 0 _ or a space for a blank, got "
            raise refused(place, rule + repr("".join(sorted(strange))), "Correct the grid")
        grid = np.array([self.digits.find(cell) + 1 for cell in cells])
        if clash := self._clash(grid):
            raise refused(place, f"contradicts itself: {clash}", "Correct the givens")
        count, solution = solutions(grid, self.size, EFFORT)
        if count == 0:
            raise refused(place, "has no solution, though no given repeats another", "Correct the givens")
        notes = () if count == 1 else (SEVERAL if count else UNTOLD,)
        return Puzzle(place, grid + BLANK, solution.astype(np.int64) + BLANK if count == 1 else None, notes=notes)

    def _clash(self, grid: np.ndarray) -> str:
        """The first digit that a row, a column or a box holds twice."""
        for unit, cells in enumerate(_units(self.size)):
            found = grid[cells][grid[cells] > 0]
            twice = found[np.bincount(found, minlength=10)[found] > 1]
            if len(twice):
                return f"{int(twice[0])} is given twice in {self._unit(unit)}"
        return ""

    def _unit(self, number: int) -> str:
        kind, at = divmod(number, self.size)
        return f"{('row', 'column', 'box')[kind]} {at + 1}"

    def _drawn(self, tokens: np.ndarray, roles: list[str]) -> list[list[Cell]]:
        height, width = BOXES[self.size]
        lines: list[list[Cell]] = []
        for row in range(self.size):
            if row and row % height == 0:
                lines.append([])
            line: list[Cell] = []
            for column in range(self.size):
                at = row * self.size + column
                gap = "" if not column else "  " if column % width == 0 else " "
                known = BLANK < tokens[at] <= BLANK + self.size
                mark = self.digits[tokens[at] - BLANK - 1] if known else "." if tokens[at] == BLANK else "?"
                line += [Cell(gap), Cell(mark, roles[at])] if gap else [Cell(mark, roles[at])]
            lines.append(line)
        return lines


def _units(size: int) -> list[np.ndarray]:
    """The cells of each row, column and box, in the order of `is_complete`."""
    cells, (height, width) = np.arange(size * size).reshape(size, size), BOXES[size]
    boxes = cells.reshape(size // height, height, size // width, width).swapaxes(1, 2).reshape(size, size)
    return [*cells, *cells.T, *boxes]
