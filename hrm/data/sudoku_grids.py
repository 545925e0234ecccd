"""Sudoku grids, many at once: what the givens force, all solutions, and how often the solver has to guess.

Cells hold 0 (blank) or the digits 1 .. n. A board [n, n, B] holds for each cell of B grids the digits that may still
stand there, as bits; the batch comes last, so that each step of the search is a few operations on long vectors.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import numpy.typing as npt

BOXES = {4: (2, 2), 6: (2, 3), 9: (3, 3)}
"""Size -> height and width of a box."""
LANES = 1024
"""Boards worked on together at most: few enough to stay in the processor's cache."""

Grids = npt.NDArray[np.integer]
Boards = npt.NDArray[np.uint16]
Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(slots=True)
class Search:
    """A search through all solutions of N puzzles, in no particular order; those of a puzzle end at `limit`."""

    size: int
    count: int
    limit: int
    effort: int = 0
    """Guesses, of all puzzles together, after which the search gives up; 0 for none."""
    gave_up: bool = field(init=False, default=False)
    guesses: Numbers = field(init=False)
    """[N]: the digits tried where nothing was forced, over the whole search tree. Of a puzzle whose search ended at the
    limit, of the part of the tree that was seen."""
    found: Numbers = field(init=False)
    """[N]: solutions so far."""

    def __post_init__(self) -> None:
        self.guesses, self.found = np.zeros(self.count, np.int64), np.zeros(self.count, np.int64)

    def run(self, boards: Boards) -> Iterator[tuple[Numbers, Grids]]:
        """Solutions as they are found: the puzzles they are of [M], and the grids [M, n * n]."""
        stack = [(boards[..., at : at + LANES], np.arange(at, min(at + LANES, self.count))) for at in _starts(boards)]
        while stack:
            if self.effort and self.guesses.sum() > self.effort:
                self.gave_up = True
                return
            here, owners = self._take(stack)
            after, possible = singles(here, self.size)
            settled = possible & ~_anywhere(after != here)
            moving = possible & ~settled
            if moving.any():  # not followed to their end: rounds of few boards cost as much as rounds of many
                stack.append((after[..., moving], owners[moving]))
            here, owners = after[..., settled], owners[settled]
            solved = ~_anywhere(_COUNTS[here] != 1)
            if solved.any():
                np.add.at(self.found, owners[solved], 1)
                yield owners[solved], digits(here[..., solved])
            self._branch(stack, here[..., ~solved], owners[~solved])

    def _take(self, stack: list[tuple[Boards, Numbers]]) -> tuple[Boards, Numbers]:
        """From the top of the stack as many boards as are worked on together, less those of puzzles at their limit."""
        taken: list[tuple[Boards, Numbers]] = []
        total = 0
        while stack and total + len(stack[-1][1]) <= LANES:
            boards, owners = stack.pop()
            open_ones = self.found[owners] < self.limit
            taken.append((boards, owners) if open_ones.all() else (boards[..., open_ones], owners[open_ones]))
            total += len(taken[-1][1])
        return np.concatenate([boards for boards, _ in taken], axis=-1), np.concatenate([own for _, own in taken])

    def _branch(self, stack: list[tuple[Boards, Numbers]], boards: Boards, owners: Numbers) -> None:
        """Try each digit of the cell that has the fewest."""
        if not len(owners):
            return
        rows, columns = np.divmod(_tried_cells(boards, self.size), self.size)
        choices = boards[rows, columns, np.arange(len(owners))]
        np.add.at(self.guesses, owners, _COUNTS[choices])
        for bit in bits(self.size):
            lanes = np.flatnonzero(choices & bit)
            if len(lanes):
                branch = boards[..., lanes]
                branch[rows[lanes], columns[lanes], np.arange(len(lanes))] = bit
                stack.append((branch, owners[lanes]))


@dataclass(frozen=True, slots=True)
class Solved:
    """What is known of N puzzles."""

    counts: Numbers
    """[N]: solutions, 2 for two or more."""
    answers: npt.NDArray[np.int8]
    """[N, n * n]: the solution (one of them, where there are several); blank where there is none."""
    guesses: Numbers
    """[N]: see `Search`. 0 where singles suffice. It does not depend on the digits' names."""


def solve(puzzles: Grids, size: int) -> Solved:
    """Solve puzzles [N, n * n], and find out which have one solution."""
    search = Search(size, len(puzzles), limit=2)
    answers = np.zeros(puzzles.shape, np.int8)
    for owners, grids in search.run(boards_of(puzzles, size)):
        answers[owners] = grids
    return Solved(np.minimum(search.found, 2), answers, search.guesses)


def solutions(puzzle: Grids, size: int, effort: int) -> tuple[int | None, npt.NDArray[np.int8]]:
    """How many solutions a puzzle [n * n] has (2 for more) and one of them; None where `effort` guesses do not tell."""
    search, answer = Search(size, 1, limit=2, effort=effort), np.zeros(size * size, np.int8)
    for _, grids in search.run(boards_of(puzzle[None], size)):
        answer = grids[0].astype(np.int8)
    count = min(int(search.found[0]), 2)
    return (None if search.gave_up and count < 2 else count), answer


def can_be_solved(boards: Boards, size: int) -> Mask:
    """[B]: which boards [n, n, B] allow a solution."""
    search = Search(size, boards.shape[-1], limit=1)
    for _ in search.run(boards):
        pass
    return search.found > 0


def is_complete(grids: Grids, size: int) -> Mask:
    """[N, 3 * n]: which rows, columns and boxes of grids [N, n * n], of any values, hold every digit once."""
    height, width = BOXES[size]
    known = (grids >= 1) & (grids <= size)
    marks = np.where(known, 1 << (np.where(known, grids, 1).astype(np.int64) - 1), 0).reshape(-1, size, size)
    boxes = marks.reshape(-1, size // height, height, size // width, width).swapaxes(2, 3).reshape(-1, size, size)
    units = np.concatenate([marks, marks.swapaxes(1, 2), boxes], axis=1)
    complete: Mask = np.bitwise_or.reduce(units, axis=-1) == (1 << size) - 1
    return complete


def boards_of(grids: Grids, size: int) -> Boards:
    """Boards of grids [N, n * n]: the digits that are given, and every digit where a cell is blank."""
    marks = np.append(np.uint16((1 << size) - 1), bits(size))
    return np.ascontiguousarray(marks[grids].T).reshape(size, size, -1)


def digits(boards: Boards) -> npt.NDArray[np.int8]:
    """The grids [B, n * n] of boards; a cell with several digits is blank."""
    return np.ascontiguousarray(_DIGITS[boards].reshape(-1, boards.shape[-1]).T)


def digits_left(boards: Boards) -> npt.NDArray[np.uint8]:
    """Of each cell, how many digits may still stand there."""
    return _COUNTS[boards]


@cache
def bits(size: int) -> Boards:
    """[n]: the bit of each digit."""
    return np.left_shift(1, np.arange(size)).astype(np.uint16)


def singles(boards: Boards, size: int) -> tuple[Boards, Mask]:
    """One round of naked, then hidden singles: the boards after it, and [B] which are not contradicted.

    A naked single is a cell with one digit left, a hidden single a digit with one cell left in a row, column or box.
    """
    full = np.uint16((1 << size) - 1)
    single = np.where(boards & (boards - np.uint16(1)), np.uint16(0), boards)
    left = boards.copy()
    for shape in _unit_shapes(size):
        own = single.reshape(shape)
        units = left.reshape(shape)
        units &= ~np.bitwise_or.reduce(own, axis=_MEMBERS, keepdims=True) | own
    only, shared = np.zeros_like(left), np.zeros_like(left)
    lost = np.zeros(boards.shape[-1], np.bool_)
    for shape in _unit_shapes(size):
        once, twice = _once_and_twice(left.reshape(shape))
        lost |= _anywhere(once != full)
        for cells, found in ((only, once & ~twice), (shared, twice)):
            units = cells.reshape(shape)
            units |= found
    only &= left
    lost |= _anywhere((single & shared) | (only & (only - np.uint16(1))))
    return np.where(only, only, left), ~lost


def _tried_cells(boards: Boards, size: int) -> Numbers:
    """[B]: the cell with the fewest digits, but more than one; of several the one that would force the most others."""
    counts = _COUNTS[boards].astype(np.int16)
    pairs = (counts == 2).astype(np.int16)
    forcing = np.zeros_like(pairs)
    for shape in _unit_shapes(size):
        units = forcing.reshape(shape)
        units += pairs.reshape(shape).sum(axis=_MEMBERS, keepdims=True, dtype=np.int16)
    cost = np.where(counts == 1, 10_000, 100 * counts - forcing)
    cells: Numbers = cost.reshape(size**2, -1).argmin(axis=0)
    return cells


def _anywhere(cells: npt.NDArray[np.generic]) -> Mask:
    """[B]: which boards [..., B] have a cell that is not 0."""
    found: Mask = np.logical_or.reduce(cells.reshape(math.prod(cells.shape[:-1]), cells.shape[-1]) != 0, axis=0)
    return found


def _unit_shapes(size: int) -> list[tuple[int, ...]]:
    """How a board is seen as rows, columns or boxes: the cells of a unit lie along the axes `_MEMBERS`."""
    height, width = BOXES[size]
    return [
        (size, size, 1, 1, -1),
        (1, size, size, 1, -1),
        (size // height, height, size // width, width, -1),
    ]


_MEMBERS = (1, 3)


def _once_and_twice(units: Boards) -> tuple[Boards, Boards]:
    """Which digits have a cell in a unit, and which have more than one."""
    once = np.zeros_like(units[:, :1, :, :1])
    twice = np.zeros_like(once)
    for row in range(units.shape[1]):
        for column in range(units.shape[3]):
            cells = units[:, row : row + 1, :, column : column + 1]
            twice |= once & cells
            once |= cells
    return once, twice


def _starts(boards: Boards) -> range:
    return range(0, boards.shape[-1], LANES)


_VALUES = np.arange(1 << max(BOXES))
_COUNTS = sum((_VALUES >> digit & 1 for digit in range(max(BOXES))), np.zeros_like(_VALUES)).astype(np.uint8)
"""Of each set of digits, how many they are."""
_DIGITS = np.zeros_like(_VALUES, dtype=np.int8)
_DIGITS[1 << np.arange(max(BOXES))] = np.arange(1, max(BOXES) + 1)
