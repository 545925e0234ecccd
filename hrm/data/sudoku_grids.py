"""Sudoku grids as sets of cells: all solutions, random solutions, and puzzles that have only one.

A set of cells is an int: row r, column c of an n x n grid is bit r * n + c. A grid is one such set per digit, so that a
step of the search is a few operations on whole boards.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, reduce
from operator import or_

import numpy as np

BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}
"""Size -> height and width of a box."""

Cells = int
Boards = list[Cells]
"""For each digit the cells where it stands, or still may."""


class Geometry:
    """Which cells exclude each other at one size, and the search that this allows."""

    def __init__(self, size: int) -> None:
        height, width = BOXES[size]
        row, column = np.divmod(np.arange(size * size), size)
        box = row // height * size + column // width
        self.size = size
        self.all: Cells = (1 << size * size) - 1
        self.units = [_cells(kind == name) for kind in (row, column, box) for name in set(kind.tolist())]
        members = [[unit for unit in self.units if unit >> cell & 1] for cell in range(size * size)]
        self.strangers = [self.all & ~reduce(or_, units) for units in members]
        """For each cell the cells that share no row, column or box with it."""

    @staticmethod
    @cache
    def of(size: int) -> Geometry:
        """The geometry of a size."""
        return Geometry(size)

    def grids(self, rng: np.random.RandomState | None = None) -> Iterator[Boards]:
        """Every filled grid; with `rng` the first one is a random one."""
        return self._solutions([self.all] * self.size, self.all, rng)

    def blanked(self, grid: Boards, min_givens: int, rng: np.random.RandomState) -> Cells:
        """The cells that stay given when cells are blanked in random order as long as the solution stays unique."""
        given, count = self.all, self.size**2
        for index in rng.permutation(self.size**2).tolist():
            if count <= min_givens:
                break
            cell = 1 << index
            if self._is_forced(grid, given & ~cell, cell):
                given, count = given & ~cell, count - 1
        return given

    def count_solutions(self, tokens: np.ndarray, limit: int = 2) -> int:
        """How many grids a puzzle of tokens [n * n] (below 2: blank) allows, counted up to `limit`."""
        grid = [_cells(tokens == digit + 2) for digit in range(self.size)]
        given = reduce(or_, grid)
        solutions = self._solutions([self._candidates(board, given) for board in grid], self.all & ~given)
        return sum(1 for _, _ in zip(range(limit), solutions, strict=False))

    def tokens(self, grid: Boards) -> np.ndarray:
        """A filled grid as tokens [n * n]: digit + 1."""
        tokens = np.zeros(self.size**2, dtype=np.int32)
        for digit, board in enumerate(grid):
            tokens[self.mask(board)] = digit + 2
        return tokens

    def mask(self, cells: Cells) -> np.ndarray:
        """A set of cells as booleans [n * n]."""
        return np.array([cells >> index & 1 for index in range(self.size**2)], dtype=bool)

    def _is_forced(self, grid: Boards, given: Cells, cell: Cells) -> bool:
        """True if no solution of the givens has another digit than `grid` in `cell`."""
        boards = [self._candidates(board & given, given) & ~(board & cell) for board in grid]
        return next(self._solutions(boards, self.all & ~given), None) is None

    def _candidates(self, board: Cells, given: Cells) -> Cells:
        """Where a digit given at `board` may stand, if `given` cells have their digit."""
        free = self.all & ~given
        rest = board
        while rest:
            cell = rest & -rest
            free &= self.strangers[cell.bit_length() - 1]
            rest ^= cell
        return board | free

    def _solutions(self, boards: Boards, unset: Cells, rng: np.random.RandomState | None = None) -> Iterator[Boards]:
        """Every way to fill the unset cells: singles as far as they lead, then branches."""
        boards = list(boards)
        while unset:
            once = twice = thrice = 0
            for board in boards:
                thrice |= twice & board
                twice |= once & board
                once |= board
            if once != self.all:
                return  # a cell has no candidate left
            if naked := unset & ~twice:
                for digit in range(self.size):
                    self._place(boards, digit, boards[digit] & naked)
                unset &= ~naked
            elif single := self._hidden_single(boards, unset):
                digit, cell = single
                if not cell:
                    return
                boards = [board & ~cell for board in boards]
                self._place(boards, digit, cell)
                unset &= ~cell
            else:
                yield from self._branches(boards, unset, (twice & ~thrice & unset) or unset, rng)
                return
        if reduce(or_, boards) == self.all:
            yield boards

    def _branches(
        self, boards: Boards, unset: Cells, choice: Cells, rng: np.random.RandomState | None
    ) -> Iterator[Boards]:
        cell = choice & -choice
        digits = [digit for digit, board in enumerate(boards) if board & cell]
        for digit in digits if rng is None else rng.permutation(digits).tolist():
            branch = [board & ~cell for board in boards]
            self._place(branch, digit, cell)
            yield from self._solutions(branch, unset & ~cell, rng)

    def _hidden_single(self, boards: Boards, unset: Cells) -> tuple[int, Cells] | None:
        """A digit and the only unset cell of a unit where it may stand; no cell if it may stand nowhere in a unit."""
        for digit, board in enumerate(boards):
            for unit in self.units:
                places = board & unit
                if not places & (places - 1) and (not places or places & unset):
                    return digit, places
        return None

    def _place(self, boards: Boards, digit: int, cells: Cells) -> None:
        """Put a digit into cells. Two that exclude each other leave one of them without a candidate."""
        while cells:
            cell = cells & -cells
            boards[digit] = boards[digit] & self.strangers[cell.bit_length() - 1] | cell
            cells ^= cell


def _cells(mask: np.ndarray) -> Cells:
    return sum(1 << index for index in np.flatnonzero(mask).tolist())
