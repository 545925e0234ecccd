"""The turns and mirrorings of ARC tasks: which make other tasks of one, and whether one task is a form of another.

The eight are numbered as in sapientinc/HRM: nothing, rotations by 90, 180 and 270 degrees against the clock, mirrored
left to right, top to bottom, along the main diagonal, along the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hrm.data.arc_tasks import Grid, Pair

NUM_TURNS = 8
TRANSPOSES = np.array([0, 1, 0, 1, 0, 0, 1, 1], dtype=bool)
FLIPS_ROWS = np.array([0, 0, 1, 1, 0, 1, 0, 1], dtype=bool)
"""Whether the rows are read from the last to the first, before a transposition."""
FLIPS_COLUMNS = np.array([0, 1, 1, 0, 1, 0, 0, 1], dtype=bool)
INVERSE = np.array([0, 3, 2, 1, 4, 5, 6, 7])


def turned(grid: npt.NDArray[np.int8], turn: int) -> npt.NDArray[np.int8]:
    """The grid under one of the eight."""
    flipped = grid[:: -1 if FLIPS_ROWS[turn] else 1, :: -1 if FLIPS_COLUMNS[turn] else 1]
    return flipped.T if TRANSPOSES[turn] else flipped


def different_turns(pairs: Sequence[Pair]) -> list[int]:
    """The turns that give different tasks, whatever is recoloured: all eight, or of those that give the same one each.

    A turn gives the same task where it maps the pairs onto each other, up to a recolouring that keeps 0.
    """
    same = [turn for turn in range(NUM_TURNS) if turn == 0 or _assigned(pairs, pairs, turn) is not None]
    return [turn for turn in range(NUM_TURNS) if turn == min(_product(turn, first) for first in same)]


def as_form(pairs: Sequence[Pair], others: Sequence[Pair]) -> list[int] | None:
    """For each pair the number of the other pair that it becomes by one turn and one recolouring that keeps 0.

    None where no turn and recolouring make these pairs of the others, in whatever order.
    """
    if len(pairs) != len(others):
        return None
    found = (_assigned(pairs, others, turn) for turn in range(NUM_TURNS))
    return next((assigned for assigned in found if assigned is not None), None)


def _product(second: int, first: int) -> int:
    """The turn that is `first` and then `second`."""
    corners = np.arange(4, dtype=np.int8).reshape(2, 2)
    result = turned(turned(corners, first), second)
    return next(turn for turn in range(NUM_TURNS) if (turned(corners, turn) == result).all())


def _assigned(pairs: Sequence[Pair], others: Sequence[Pair], turn: int) -> list[int] | None:
    """`as_form` by this turn."""
    images = [(turned(first, turn), turned(second, turn)) for first, second in pairs]

    def assigned_from(colours: dict[int, int], taken: list[int]) -> list[int] | None:
        """`taken` and numbers for the images that are left."""
        if len(taken) == len(images):
            return taken
        for number in range(len(others)):
            extended = None if number in taken else _recolouring(images[len(taken)], others[number], colours)
            if extended is not None and (found := assigned_from(extended, [*taken, number])) is not None:
                return found
        return None

    return assigned_from({0: 0}, [])


def _recolouring(pair: Pair, onto: Pair, colours: dict[int, int]) -> dict[int, int] | None:
    """`colours` extended so that it takes one pair to the other; None if nothing does."""
    extended = dict(colours)
    for grid, target in zip(pair, onto, strict=True):
        if grid.shape != target.shape:
            return None
        for code in _codes(grid, target):
            colour, image = divmod(code, 10)
            if extended.setdefault(colour, image) != image:
                return None
    return extended if len(set(extended.values())) == len(extended) else None


def _codes(grid: Grid, target: Grid) -> list[int]:
    """Which colours stand on which, each pair of them once, as 10 * colour + colour of the target."""
    codes: list[int] = np.unique(10 * grid + target).tolist()
    return codes
