"""The forms of an ARC task (turned, mirrored, recoloured, moved) and the canvas that its grids lie on; vectorised.

Tokens: 0 padding, 1 end, 2 and up the colours. A grid lies in a corner of a square canvas or moved away from it, with a
row of ends below it and a column of ends to its right, where there is room. Shapes: B rows, S cells per side.
"""

from __future__ import annotations

from math import perm

import numpy as np
import numpy.typing as npt

from hrm.data.arc_symmetry import FLIPS_COLUMNS, FLIPS_ROWS, INVERSE, TRANSPOSES
from hrm.data.keys import integers, mixed

PAD, END, BLACK = 0, 1, 2
NUM_COLOURS = 10
VOCABULARY = ["<pad>", "<end>", *map(str, range(NUM_COLOURS))]

Integers = npt.NDArray[np.integer]

_ROWS_IN_CACHE = 64
"""Laid out at once: more are slower."""
_RECOLOURINGS = np.array([perm(NUM_COLOURS - 1, used) for used in range(NUM_COLOURS)])


def num_forms(colours: Integers, turns: Integers) -> Integers:
    """[B]: how many different forms a task has (fewer, if a mere recolouring maps it onto itself).

    colours [B, 10]: the number of colours besides 0 that it uses, then 1 to 9, the used ones first. turns [B, 9]: the
    number of turns that make different tasks, then these.
    """
    forms: Integers = turns[:, 0] * _RECOLOURINGS[colours[:, 0]]
    return forms


def turns_and_colours(
    keys: npt.NDArray[np.uint64], colours: Integers, turns: Integers, forms: Integers
) -> tuple[Integers, Integers]:
    """The turn [B] and the new colours [B, 10] of the forms [B]; form 0 changes nothing.

    A form's number is written in digits: which turn, then for each used colour which of the colours that are left. Each
    digit is shifted by a number that the task's key draws for the digits before it: a permutation of all forms, so that
    none comes twice. Unused colours take what is then left, in order.
    """
    digits, units = forms % turns[:, 0], turns[:, 0]
    which = np.take_along_axis(turns, digits[:, None] + 1, axis=1)[:, 0]
    left = colours[:, 1:]
    recoloured = np.zeros((len(left), NUM_COLOURS), dtype=np.int64)
    for place in range(NUM_COLOURS - 1):
        bases = np.where(place < colours[:, 0], left.shape[1], 1)
        digits = (forms // units + _shifts(keys, place, forms % units) % bases) % bases
        units = units * bases
        np.put_along_axis(recoloured, colours[:, place + 1, None], left[np.arange(len(left)), digits, None], axis=1)
        left = np.where(np.arange(left.shape[1] - 1) < digits[:, None], left[:, :-1], left[:, 1:])
    return which, recoloured


def _shifts(keys: npt.NDArray[np.uint64], place: int, before: Integers) -> Integers:
    """[B]: drawn for the digits before, as a number; 0 where these are 0, so that form 0 is the task itself."""
    words = before.astype(np.uint64) * np.uint64(NUM_COLOURS) + np.uint64(place)
    return np.where(before == 0, 0, integers(mixed(keys + mixed(words)), 2**31))


def turned_sizes(sizes: Integers, turns: Integers) -> Integers:
    """[B, 2]: heights and widths after the turns [B]."""
    return np.where(TRANSPOSES[turns][:, None], sizes[:, ::-1], sizes)


def laid_out(
    canvases: Integers, sizes: Integers, turns: Integers, colours: Integers, offsets: Integers, blank: int
) -> npt.NDArray[np.int32]:
    """Canvases [B, S * S] whose grids, of `sizes` [B, 2], lie in the corner -> turned, recoloured and moved.

    turns [B], colours [B, 10], offsets [B, 2] (rows down, columns to the right). Around grid and ends is `blank`.
    """
    result = np.empty(canvases.shape, dtype=np.int32)
    for start in range(0, len(canvases), _ROWS_IN_CACHE):
        here = slice(start, start + _ROWS_IN_CACHE)
        result[here] = _laid_out(canvases[here], sizes[here], turns[here], colours[here], offsets[here], blank)
    return result


def _laid_out(
    canvases: Integers, sizes: Integers, turns: Integers, colours: Integers, offsets: Integers, blank: int
) -> npt.NDArray[np.int32]:
    count, cells = canvases.shape
    side, rows = round(cells**0.5), np.arange(count)[:, None]
    tokens = np.concatenate((np.tile([PAD, END], (count, 1)), colours + BLACK), axis=1).astype(np.int32)
    # A canvas, recoloured, then as many ends, then blanks: places beside the grid are counted on and lead there.
    longer = np.full((count, 4 * cells + 1), blank, dtype=np.int32)
    longer[:, :cells] = tokens.reshape(-1).take(canvases + rows * tokens.shape[1], mode="clip")
    longer[:, cells : 2 * cells] = END
    down, right = _strides(sizes, turns, offsets, side)
    places = (down + rows * longer.shape[1])[:, :, None] + right[:, None, :]
    grids: npt.NDArray[np.int32] = longer.reshape(-1).take(places).reshape(count, cells)
    return grids


def _strides(sizes: Integers, turns: Integers, offsets: Integers, side: int) -> tuple[Integers, Integers]:
    """[B, S] twice: what a row and a column of the result add to the place that a cell is taken from; S * S for those
    just behind the grid, twice as much for all else."""
    flips_rows, flips_columns, transposes = (which[turns] for which in (FLIPS_ROWS, FLIPS_COLUMNS, TRANSPOSES))
    backwards = np.where(transposes, [flips_columns, flips_rows], [flips_rows, flips_columns])[:, :, None]
    factors = np.where(transposes, [[1], [side]], [[side], [1]])[:, :, None]
    lengths = turned_sizes(sizes, turns).T[:, :, None]
    places = np.arange(side) - offsets.T[:, :, None]
    taken = factors * np.where(backwards, lengths - 1 - places, places)
    outside = np.where(places == lengths, side**2, 2 * side**2)
    down, right = np.where((places >= 0) & (places < lengths), taken, outside)
    return down, right


def corners(canvases: Integers) -> Integers:
    """[B, 2]: the first row and the first column that hold more than padding."""
    side = round(canvases.shape[1] ** 0.5)
    filled = (canvases > PAD).reshape(-1, side, side)
    return np.stack((filled.any(axis=2).argmax(axis=1), filled.any(axis=1).argmax(axis=1)), axis=1)


def moved_to_corner(canvases: Integers, offsets: Integers) -> Integers:
    """Canvases [B, S * S] whose cell at `offsets` [B, 2] comes to be the first."""
    if not offsets.any():
        return canvases
    side = round(canvases.shape[1] ** 0.5)
    rows, columns = np.arange(side) + offsets.T[:, :, None]
    inside = (rows < side)[:, :, None] & (columns < side)[:, None, :]
    source = np.where(inside, rows[:, :, None] * side + columns[:, None, :], 0).reshape(len(canvases), -1)
    return np.where(inside.reshape(source.shape), np.take_along_axis(canvases, source, axis=1), PAD)


def read_out(canvases: Integers) -> Integers:
    """[B, 2]: height and width of the largest rectangle of colours from the first cell; of equal ones, the lowest.

    0 and 0 where the first cell is no colour.
    """
    side = round(canvases.shape[1] ** 0.5)
    blank = (canvases < BLACK).reshape(-1, side, side)
    lengths = np.where(blank.any(axis=2), blank.argmax(axis=2), side)
    widths = np.minimum.accumulate(lengths, axis=1)
    best = (widths * np.arange(1, side + 1)).argmax(axis=1)
    width = np.take_along_axis(widths, best[:, None], axis=1)[:, 0]
    return np.stack((np.where(width > 0, best + 1, 0), width), axis=1)


def inverse_colours(colours: Integers) -> Integers:
    """[B, 10]: what undoes a recolouring."""
    return colours.argsort(axis=1)


def inverse_turns(turns: Integers) -> Integers:
    """[B]: what undoes a turn."""
    return INVERSE[turns]
