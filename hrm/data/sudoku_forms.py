"""The symmetries of Sudoku: forms of a puzzle that are as good as the puzzle, and a key that all forms of a grid share.

A form relabels the digits, shuffles the bands and the rows in each, the stacks and the columns in each, and may
transpose where boxes are square.
"""

from __future__ import annotations

from functools import cache
from itertools import permutations as orders_of
from itertools import product

import numpy as np
import numpy.typing as npt

from hrm.data.keys import Words, draws, integers, mixed, permutations
from hrm.data.sudoku_grids import BOXES, Grids

Places = npt.NDArray[np.int64]


def drawn_forms(keys: Words, size: int) -> tuple[Places, Places]:
    """A random form for each key [B]: the cell that each cell is taken from [B, n * n], and the digits' names [B, n].

    Digit d (from 0) is called `names[d]` (from 0) in the form. All forms are equally likely.
    """
    height, width = BOXES[size]
    rows, columns = line_orders(size, height), line_orders(size, width)
    numbers = draws(keys, 3 + size)
    down = size * rows[integers(numbers[:, 0], len(rows))]
    across = columns[integers(numbers[:, 1], len(columns))]
    if height == width:
        turned = (numbers[:, 2] >> np.uint64(63)).astype(np.bool_)[:, None]
        down, across = np.where(turned, across, down), np.where(turned, down, across)
    places = down[:, :, None] + across[:, None, :]
    return places.reshape(-1, size * size), permutations(numbers[:, 3:])


@cache
def line_orders(size: int, thickness: int) -> Places:
    """[K, n]: every order of n rows that keeps bands of `thickness` rows together (or of columns and stacks)."""
    inner = list(orders_of(range(thickness)))
    orders = [
        [band * thickness + line for band, lines in zip(bands, within, strict=True) for line in lines]
        for bands in orders_of(range(size // thickness))
        for within in product(inner, repeat=size // thickness)
    ]
    return np.array(orders)


def symmetry_keys(grids: Grids, size: int) -> Words:
    """[N]: a number of each filled grid [N, n * n] that all its forms share.

    Different numbers prove that no form of a grid is a form of the other. Equal ones of grids that are no forms of one
    another are rare at 9x9: the number is made of the lengths of the cycles in which the digits of two rows, or of two
    columns, are exchanged, for all pairs and by their bands.
    """
    height, width = BOXES[size]
    rows = grids.reshape(-1, size, size).astype(np.int64) - 1
    columns = rows.swapaxes(1, 2)
    by_row, by_column = _cycle_keys(rows, height), _cycle_keys(columns, width).swapaxes(1, 2)
    key = _nested(mixed(by_row + mixed(by_column)), height, width)
    if height != width:
        return key
    # Transposing exchanges what is known of rows and of columns: the sum of both ways round stays.
    return mixed(key) + mixed(_nested(mixed(by_column + mixed(by_row)).swapaxes(1, 2), width, height))


def _cycle_keys(rows: Places, height: int) -> Words:
    """[N, n, n] for rows [N, n, n] of digits from 0: a key of each cell, of the cycles through it to the other rows.

    From a column go to the digit that row a has there, and on to the column where row b has it: that permutes the
    columns. The length of the cycle of each column, and whether the rows share a band, survive every form.
    """
    count, size, _ = rows.shape
    where = rows.argsort(axis=2)
    band = np.arange(size) // height
    keys = np.zeros(rows.shape, np.uint64)
    for a, b in product(range(size), repeat=2):
        if a == b:
            continue
        step = np.take_along_axis(where[:, b], rows[:, a], axis=1)
        at, length = step, np.ones((count, size), np.int64)
        for _ in range(size):
            at_home = at == np.arange(size)
            length += ~at_home
            at = np.where(at_home, at, np.take_along_axis(step, at, axis=1))
        keys[:, a] += mixed((length * 2 + int(band[a] == band[b])).astype(np.uint64))
    return mixed(keys)


def _nested(cells: Words, height: int, width: int) -> Words:
    """[N]: a key of cell keys [N, n, n] that the order of bands, of rows in them, of stacks and of columns leaves."""
    count, size, _ = cells.shape
    boxes = cells.reshape(count, size // height, height, size // width, width)
    by_row = mixed(mixed(mixed(boxes.sum(axis=4)).sum(axis=3)).sum(axis=2)).sum(axis=1)
    by_column = mixed(mixed(mixed(boxes.sum(axis=2)).sum(axis=1)).sum(axis=2)).sum(axis=1)
    return mixed(by_row + mixed(by_column))
