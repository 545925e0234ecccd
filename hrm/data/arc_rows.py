"""ARC tasks as the columns of a dataset, and back: which rows a split holds, and what forms are made from.

Beside the usual columns: `forms` [N], the form that a row is in; `pairs` [N, 2], its number among its task's pairs of
the split, and how many of these are moved about (no held-out one is); `sizes` [N, 4], heights and widths of input and
output in form 0; `colours` [N, 10] and `turns` [N, 9], see `arc_forms.num_forms`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from hrm.data.arc_forms import BLACK, END, NUM_COLOURS, PAD, Integers
from hrm.data.arc_symmetry import NUM_TURNS, different_turns
from hrm.data.arc_tasks import ArcTask, Grid, Pair
from hrm.data.checks import IGNORE

Columns = dict[str, np.ndarray]
_ROWS_OF_A_CHUNK = 4096


def members_of_splits(tasks: Sequence[ArcTask], validation_share: float) -> dict[str, list[int]]:
    """The numbers of the tasks that have rows in each split. Of the held-out names, at least two, those with the lowest
    hashes are for validation: a task's side depends on no order and no seed."""
    names = sorted({task.name for task in tasks if task.held_out}, key=lambda n: hashlib.sha256(n.encode()).digest())
    chosen = set(names[: min(max(1, round(validation_share * len(names))), len(names) - 1)])
    return {
        "train": list(range(len(tasks))),
        "validation": [at for at, task in enumerate(tasks) if task.held_out and task.name in chosen],
        "test": [at for at, task in enumerate(tasks) if task.held_out and task.name not in chosen],
    }


def colours_and_turns(task: ArcTask) -> tuple[list[int], list[int]]:
    """A task's row of the columns `colours` and `turns`."""
    used = sorted({colour for pair in task.pairs for grid in pair for colour in np.unique(grid).tolist()} - {0})
    others = [colour for colour in range(1, NUM_COLOURS) if colour not in used]
    turns = different_turns(task.pairs)
    return [len(used), *used, *others], [len(turns), *turns, *[0] * (NUM_TURNS - len(turns))]


def rows_of(task: ArcTask, split: str, canvas: int) -> Columns:
    """A task's rows of a split in form 0, without what all its rows share."""
    held_out = split != "train"
    pairs = task.tests if held_out else task.demonstrations if task.held_out else task.pairs
    count = len(pairs)
    return {
        "inputs": np.stack([canvas_of(pair[0], canvas, PAD) for pair in pairs]),
        "labels": np.stack([canvas_of(pair[1], canvas, IGNORE) for pair in pairs]),
        "forms": np.zeros(count, dtype=np.int32),
        "pairs": np.stack((np.arange(count), np.full(count, 0 if held_out else count)), axis=1),
        "sizes": np.array([_sizes(pair) for pair in pairs]),
    }


def in_chunks(parts: Sequence[Columns]) -> Iterator[Columns]:
    """The rows of many tasks, some thousands at a time."""
    ends = np.cumsum([len(part["inputs"]) for part in parts]) // _ROWS_OF_A_CHUNK
    for chunk in np.unique(ends).tolist():
        chosen = [part for part, end in zip(parts, ends.tolist(), strict=True) if end == chunk]
        yield {name: np.concatenate([part[name] for part in chosen]) for name in chosen[0]}


def cells_of(canvases: Integers, sizes: Integers) -> list[tuple[int, bytes]]:
    """Height and cells, row by row, of the grids of these sizes [B, 2] in the corners of canvases [B, S * S]."""
    side = round(canvases.shape[1] ** 0.5)
    grids = (canvases - BLACK).astype(np.uint8).reshape(-1, side, side)
    return [
        (height, grid[:height, :width].tobytes()) for grid, (height, width) in zip(grids, sizes.tolist(), strict=True)
    ]


def canvas_of(grid: Grid, side: int, blank: int) -> np.ndarray:
    """[side * side] int32: a grid in the corner, with its ends; around them is `blank`."""
    height, width = grid.shape
    canvas = np.full((side + 1, side + 1), blank, dtype=np.int32)
    canvas[height, :width] = canvas[:height, width] = END
    canvas[:height, :width] = grid + BLACK
    return canvas[:side, :side].ravel()


def _sizes(pair: Pair) -> tuple[int, ...]:
    return (*pair[0].shape, *pair[1].shape)
