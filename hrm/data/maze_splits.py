"""Mazes of which no two are one maze turned or mirrored: searched for, and looked for across splits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from hrm.data.keys import row_keys
from hrm.data.maze_grids import Draw, dihedral, draw_mazes

FIRST_DRAWS, LAST_DRAWS = 16, 256
"""Draws of the first search; and of one that is the last if it finds no maze at all (after two million grids)."""
MIN_NEW_FRACTION = 0.01
"""Of the mazes that a search finds so many must be new ones, else there are hardly any left."""
AT_ONCE = 2048

Mazes = npt.NDArray[np.uint8]
"""[2, N, n * n]: inputs and labels."""
RunDraws = Callable[[Callable[[Draw], Mazes], Sequence[Draw]], Iterator[Mazes]]
"""Does the draws, in order, wherever that is fast."""


def distinct_mazes(draw: Draw, count: int, run: RunDraws) -> Mazes:
    """The first `count` mazes of the sequence of draws that are no forms of each other; fewer if no more are found."""
    found: dict[int, Mazes] = {}
    drawn, draws = draw.number, FIRST_DRAWS
    while len(found) < count:
        before, seen = len(found), 0
        for mazes in run(draw_mazes, [replace(draw, number=number) for number in range(drawn, drawn + draws)]):
            seen += mazes.shape[1]
            for index, key in enumerate(form_keys(mazes[0], draw.size).tolist()):
                found.setdefault(key, mazes[:, index])
            if len(found) >= count:
                break
        new, drawn = len(found) - before, drawn + draws
        if new <= MIN_NEW_FRACTION * seen and (seen or draws >= LAST_DRAWS):
            break
        draws = -(-max(count - len(found), 0) * drawn // len(found)) if found else 2 * draws
    nothing = np.zeros((2, 0, draw.size**2), dtype=np.uint8)
    return np.stack(list(found.values())[:count], axis=1) if found else nothing


def forms_in_earlier_splits(splits: Mapping[str, Mazes], size: int) -> dict[str, npt.NDArray[np.int64]]:
    """For each split the rows whose maze, in one of its forms, is in a split before it."""
    earlier = np.zeros(0, dtype=np.uint64)
    rows: dict[str, npt.NDArray[np.int64]] = {}
    for split, mazes in splits.items():
        keys = form_keys(mazes[0], size)
        rows[split] = np.flatnonzero(np.isin(keys, earlier))
        earlier = np.concatenate([earlier, keys])
    return rows


def form_keys(inputs: npt.NDArray[np.uint8], size: int) -> npt.NDArray[np.uint64]:
    """[N]: a number for each maze, the same for its eight forms."""
    keys = [np.min([row_keys(0, part[:, places]) for places in dihedral(size)], axis=0) for part in parts(inputs)]
    return np.concatenate(keys)


def parts(mazes: npt.NDArray[np.uint8]) -> list[npt.NDArray[np.uint8]]:
    """Some thousand mazes [N, n * n] at a time, for what takes much memory per maze."""
    return np.array_split(mazes, len(mazes) // AT_ONCE + 1)
