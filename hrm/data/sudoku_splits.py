"""Which Sudoku are in which split: generated ones, or rows of sources; no form of a solution grid is in two splits.

The 288 grids of 4x4 are forms of two grids, so at 4x4 the promise is of the grids themselves and not of their forms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from hrm.data.keys import Words, draws, permutations, row_keys
from hrm.data.sudoku_forms import symmetry_keys
from hrm.data.sudoku_grids import Grids, Numbers
from hrm.data.sudoku_puzzles import GridBatch, PuzzleBatch, Puzzles, every_grid, joined, make_puzzles, random_grids
from hrm.errors import Problem, SpecError

SHARES = ("train", "train", "validation", "train", "train", "test")
"""Kinds of grids are dealt out so: two thirds to train, a sixth to validation, a sixth to test."""
GRIDS_PER_DRAW, GRIDS_PER_BATCH = 2048, 512

Map = Callable[[Callable[[Any], Any], Sequence[Any], str], Iterator[Any]]
"""`DatasetWriter.map`."""


def kinds_of(grids: Grids, size: int) -> Words:
    """[N]: a number of each grid; grids of different numbers may be in different splits."""
    return row_keys(0, grids) if size == 4 else symmetry_keys(grids, size)


def generated_splits(size: int, seed: int, min_givens: int, rows: dict[str, int], work: Map) -> dict[str, Puzzles]:
    """So many distinct puzzles for each split. Raises SpecError where there are not enough."""
    grids = _dealt_grids(size, seed, rows, work)
    counts = {split: _evenly(rows[split], len(own)) for split, own in grids.items()}
    batches = [
        (split, PuzzleBatch(size, seed, min_givens, own[at : at + GRIDS_PER_BATCH], number))
        for split, own in grids.items()
        for at in range(0, len(own), GRIDS_PER_BATCH)
        if (number := counts[split][at : at + GRIDS_PER_BATCH]).any()
    ]
    made = list(work(make_puzzles, [batch for _, batch in batches], "batches of puzzles"))
    found = {split: joined([m for m, (s, _) in zip(made, batches, strict=True) if s == split]) for split in rows}
    for split, puzzles in found.items():
        if len(puzzles) < rows[split]:
            asked = f"asks for {rows[split]} distinct puzzles of {len(grids[split])} grids with min_givens {min_givens}"
            rule = f"{asked}, and no more than {len(puzzles)} were found"
            raise SpecError(Problem(f"dataset sudoku: num_{split}", rule, f"Lower num_{split} or min_givens"))
    # The grids in turn, so that rows near one another differ.
    return {split: puzzles.take(_in_turn(counts[split])) for split, puzzles in found.items()}


def _dealt_grids(size: int, seed: int, rows: dict[str, int], work: Map) -> dict[str, Grids]:
    """Distinct solution grids for each split: one per row, at 4x4 all there are."""
    owners: dict[int, str] = {}
    own: dict[str, dict[bytes, Grids]] = {split: {} for split in rows}
    for grids in _shuffled(every_grid(size), seed) if size == 4 else _drawn(size, seed, rows, work):
        for grid, kind in zip(grids, kinds_of(grids, size).tolist(), strict=True):
            split = owners.setdefault(kind, SHARES[len(owners) % len(SHARES)])
            own[split].setdefault(grid.tobytes(), grid)
        if size != 4 and all(len(own[split]) >= rows[split] for split in rows):
            break
    return {split: np.array(list(own[split].values())[: None if size == 4 else rows[split]]) for split in rows}


def _shuffled(grids: Grids, seed: int) -> Iterator[Grids]:
    yield grids[permutations(draws(row_keys(seed, np.zeros(1, np.int64)), len(grids))[0])]


def _drawn(size: int, seed: int, rows: dict[str, int], work: Map) -> Iterator[Grids]:
    """Random grids without end; at first about as many as it takes."""
    start, count = 0, max(rows[split] * len(SHARES) // SHARES.count(split) for split in rows)
    while True:
        starts = range(start, start + count, GRIDS_PER_DRAW)
        batches = [GridBatch(size, seed, at, min(at + GRIDS_PER_DRAW, start + count)) for at in starts]
        yield from work(random_grids, batches, "batches of grids")
        start, count = start + count, max(256, count // 8)


def _evenly(count: int, parts: int) -> Numbers:
    """`count` in so many whole parts, the first ones one larger."""
    return np.full(parts, count // parts) + (np.arange(parts) < count % parts)


def _in_turn(counts: Numbers) -> Numbers:
    """The order of rows that stand grid by grid, so that the first row of each grid comes first, then the seconds."""
    copies = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    order: Numbers = copies.argsort(kind="stable")
    return order
