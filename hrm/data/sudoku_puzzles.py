"""Generated Sudoku: random solution grids, and puzzles blanked from them that keep one solution.

Grid i is a function of (seed, i), a puzzle of (seed, grid, its number among the grid's puzzles): the batches, and
the processes that work on them, change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hrm.data.keys import Words, draws, integers, permutations, row_keys
from hrm.data.sudoku_grids import (
    Boards,
    Grids,
    Numbers,
    Search,
    bits,
    boards_of,
    can_be_solved,
    digits,
    digits_left,
    singles,
    solve,
)

ATTEMPTS = 200
"""So often a puzzle is drawn again that is there already."""


@dataclass(frozen=True, slots=True)
class GridBatch:
    """The random grids `start` up to `stop` of a seed."""

    size: int
    seed: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class PuzzleBatch:
    """Puzzles to be made of `grids` [G, n * n], so many of each as `counts` [G] says."""

    size: int
    seed: int
    min_givens: int
    grids: Grids
    counts: Numbers


@dataclass(frozen=True, slots=True)
class Puzzles:
    """N puzzles of one solution."""

    puzzles: npt.NDArray[np.int8]
    """[N, n * n]: the givens."""
    answers: npt.NDArray[np.int8]
    """[N, n * n]: the solution."""
    guesses: Numbers
    """[N]: see `hrm.data.sudoku_grids.Search`."""
    ratings: Numbers | None = None
    """[N]: what a source says of their difficulty."""

    def __len__(self) -> int:
        return len(self.puzzles)

    def take(self, rows: Numbers) -> Puzzles:
        """Those of the numbers `rows`, in that order."""
        ratings = None if self.ratings is None else self.ratings[rows]
        return Puzzles(self.puzzles[rows], self.answers[rows], self.guesses[rows], ratings)


def joined(parts: Sequence[Puzzles]) -> Puzzles:
    """One after the other; with ratings where all parts have them."""
    puzzles, answers, guesses = (
        np.concatenate([getattr(part, name) for part in parts]) for name in ("puzzles", "answers", "guesses")
    )
    ratings = [part.ratings for part in parts if part.ratings is not None]
    return Puzzles(puzzles, answers, guesses, np.concatenate(ratings) if len(ratings) == len(parts) else None)


def every_grid(size: int) -> Grids:
    """All grids of a size, in lexicographic order. There are 288 of 4x4; of the others far too many."""
    blank = boards_of(np.zeros((1, size * size), np.int8), size)
    found = [grids for _, grids in Search(size, 1, limit=2**62).run(blank)]
    return np.unique(np.concatenate(found), axis=0)


def random_grids(batch: GridBatch) -> Grids:
    """[N, n * n]: digits drawn in the cells that have the fewest left, again from nothing after a contradiction."""
    size = batch.size
    keys = row_keys(batch.seed, np.arange(batch.start, batch.stop))
    grids = np.zeros((len(keys), size * size), np.int8)
    blank = boards_of(grids[:1], size)
    boards, lanes, turn = np.repeat(blank, len(keys), axis=-1), np.arange(len(keys)), 0
    while len(lanes):
        after, possible = singles(boards, size)
        after[..., ~possible] = blank
        settled = (after == boards).all(axis=(0, 1))
        values = digits(after)
        full = settled & (values > 0).all(axis=1)
        grids[lanes[full]] = values[full]
        settled &= ~full
        after[..., settled] = _with_a_draw(
            after[..., settled], row_keys(turn, keys[lanes[settled]].view(np.int64)), size
        )
        boards, lanes, turn = after[..., ~full], lanes[~full], turn + 1
    return grids


def make_puzzles(batch: PuzzleBatch) -> Puzzles:
    """Distinct puzzles, those of a grid one after the other; fewer than asked for if no more were found.

    Cells are blanked in random order while the solution stays the only one and more than `min_givens` are left.
    """
    grids = np.repeat(np.arange(len(batch.grids)), batch.counts)
    copies = np.arange(len(grids)) - np.repeat(np.cumsum(batch.counts) - batch.counts, batch.counts)
    answers = batch.grids[grids].astype(np.int8)
    puzzles = np.zeros_like(answers)
    taken: set[bytes] = set()
    open_rows = np.arange(len(grids))
    for attempt in range(ATTEMPTS):
        own = answers[open_rows]
        keys = row_keys(batch.seed, own, copies[open_rows], np.full(len(open_rows), attempt))
        puzzles[open_rows] = _blanked(own, batch.min_givens, keys, batch.size)
        again = []
        for row in open_rows.tolist():
            key = puzzles[row].tobytes()  # equal puzzles have equal grids: no other batch holds this one
            if key in taken:
                again.append(row)
            taken.add(key)
        open_rows = np.array(again, dtype=np.int64)
        if not again:
            break
    kept = np.delete(np.arange(len(grids)), open_rows)
    solved = solve(puzzles[kept], batch.size)
    return Puzzles(puzzles[kept], answers[kept], solved.guesses)


def _with_a_draw(boards: Boards, keys: Words, size: int) -> Boards:
    """Boards with a digit put into a cell that has the fewest left; cell and digit are drawn."""
    left = digits_left(boards).reshape(size * size, -1).T.astype(np.int64)
    numbers = draws(keys, size * size + size)
    cells = (np.where(left == 1, 99, left) * 2**32 + integers(numbers[:, size:], 2**32)).argmin(axis=1)
    rows, columns = np.divmod(cells, size)
    lanes = np.arange(len(keys))
    allowed = (boards[rows, columns, lanes][:, None] & bits(size)) != 0
    chosen = np.where(allowed, numbers[:, :size] >> np.uint64(1), np.uint64(2**64 - 1)).argmin(axis=1)
    boards = boards.copy()
    boards[rows, columns, lanes] = bits(size)[chosen]
    return boards


def _blanked(grids: Grids, min_givens: int, keys: Words, size: int) -> Grids:
    order = permutations(draws(keys, size * size))
    puzzles, givens = grids.copy(), np.full(len(grids), size * size)
    for step in range(size * size):
        rows = np.flatnonzero(givens > min_givens)
        if not len(rows):
            break
        cells, lanes = order[rows, step], np.arange(len(rows))
        tried = puzzles[rows]
        tried[lanes, cells] = 0
        boards = boards_of(tried, size)
        boards.reshape(size * size, -1)[cells, lanes] &= ~bits(size)[grids[rows, cells] - 1]
        spared = ~can_be_solved(boards, size)  # no solution has another digit there
        puzzles[rows[spared], cells[spared]] = 0
        givens[rows[spared]] -= 1
    return puzzles
