"""The forms of ARC tasks, by comparison with numpy's own turns and with a read-out by trial."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest

from hrm.data.arc_forms import (
    BLACK,
    corners,
    inverse_colours,
    inverse_turns,
    laid_out,
    moved_to_corner,
    num_forms,
    read_out,
    turned_sizes,
    turns_and_colours,
)
from hrm.data.arc_rows import colours_and_turns
from hrm.data.arc_symmetry import different_turns, turned
from hrm.data.arc_tasks import ArcTask
from hrm.data.keys import row_keys

TURNS: list[Callable[[np.ndarray], np.ndarray]] = [
    lambda grid: grid,
    np.rot90,
    lambda grid: np.rot90(grid, 2),
    lambda grid: np.rot90(grid, 3),
    np.fliplr,
    np.flipud,
    np.transpose,
    lambda grid: np.fliplr(np.rot90(grid)),
]
"""The original's numbering."""


def some_grids(count: int, side: int) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Grids of all sizes, on canvases without ends, and their sizes."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, side + 1, (count, 2))
    grids = [rng.integers(0, 10, size) for size in sizes]
    canvases = np.zeros((count, side, side), dtype=np.int32)
    for canvas, grid in zip(canvases, grids, strict=True):
        canvas[: grid.shape[0], : grid.shape[1]] = grid + BLACK
    return grids, canvases.reshape(count, -1), sizes


def some_forms(sizes: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turns, colours and offsets at random."""
    rng = np.random.default_rng(1)
    turns = np.arange(len(sizes)) % 8
    colours = np.array([[0, *rng.permutation(9) + 1] for _ in sizes])
    return turns, colours, rng.integers(0, side + 1 - turned_sizes(sizes, turns))


@pytest.mark.parametrize("side", [3, 30])
def test_a_grid_is_turned_recoloured_and_moved_as_numpy_does_it(side: int) -> None:
    grids, canvases, sizes = some_grids(400, side)
    turns, colours, offsets = some_forms(sizes, side)
    found = laid_out(canvases, sizes, turns, colours, offsets, -100).reshape(-1, side, side)
    for grid, turn, colour, (row, column), result in zip(grids, turns, colours, offsets, found, strict=True):
        expected = np.full((side + 1, side + 1), -100)
        form = colour[TURNS[turn](grid)]
        height, width = form.shape
        expected[row : row + height, column : column + width] = form + 2
        expected[row + height, column : column + width] = expected[row : row + height, column + width] = 1
        np.testing.assert_array_equal(result, expected[:side, :side])


@pytest.mark.parametrize("turn", range(8))
def test_turning_one_grid_and_turning_many_is_the_same(turn: int) -> None:
    grid = np.arange(6, dtype=np.int8).reshape(2, 3)
    np.testing.assert_array_equal(turned(grid, turn), TURNS[turn](grid))
    np.testing.assert_array_equal(turned(turned(grid, turn), int(inverse_turns(np.array([turn]))[0])), grid)


def test_what_was_done_to_a_grid_can_be_undone() -> None:
    side = 12
    _, canvases, sizes = some_grids(200, side)
    turns, colours, offsets = some_forms(sizes, side)
    moved = laid_out(canvases, sizes, turns, colours, offsets, 0)
    np.testing.assert_array_equal(corners(moved), offsets)
    back = moved_to_corner(moved, offsets)
    new_sizes = read_out(back)
    np.testing.assert_array_equal(new_sizes, turned_sizes(sizes, turns))
    corner = np.zeros_like(offsets)
    again = laid_out(back, new_sizes, inverse_turns(turns), inverse_colours(colours), corner, 0)
    np.testing.assert_array_equal(np.where(again >= BLACK, again, 0), canvases)


def test_the_read_out_is_the_largest_rectangle_of_colours_from_the_corner() -> None:
    rng = np.random.default_rng(2)
    canvases = np.where(rng.random((300, 25)) < 0.15, rng.integers(0, 2, (300, 25)), rng.integers(2, 12, (300, 25)))
    for canvas, size in zip(canvases.reshape(-1, 5, 5), read_out(canvases).tolist(), strict=True):
        full = [(h, w) for h in range(1, 6) for w in range(1, 6) if (canvas[:h, :w] >= 2).all()]
        area = max((h * w for h, w in full), default=0)
        lowest = min((h for h, w in full if h * w == area), default=0)
        assert size == [lowest, area // lowest if lowest else 0]


def a_task(*grids: list[list[int]]) -> ArcTask:
    """Pairs of a grid and itself."""
    pairs = tuple((np.array(grid, dtype=np.int8), np.array(grid, dtype=np.int8)) for grid in grids)
    return ArcTask("task", "training", pairs[:-1], pairs[-1:])


def every_form(task: ArcTask) -> set[bytes]:
    """By trying all turns, and all colours for those that are used."""
    used = sorted({colour for pair in task.pairs for grid in pair for colour in grid.ravel().tolist()} - {0})
    forms = set()
    for turn in range(8):
        for images in permutations(range(1, 10), len(used)):
            colours = np.zeros(10, dtype=np.int64)
            colours[used] = images
            pairs = [[colours[TURNS[turn](grid)] for grid in pair] for pair in task.pairs]
            forms.add(b"".join(sorted(b"".join(bytes(g.shape) + g.tobytes() for g in pair) for pair in pairs)))
    return forms


def made_forms(task: ArcTask, count: int) -> list[bytes]:
    """As the forms of a row are made."""
    colours, turns = (np.array([column] * count) for column in colours_and_turns(task))
    keys = np.repeat(row_keys(0, np.array([5])), count)
    which, recoloured = turns_and_colours(keys, colours, turns, np.arange(count))
    result = []
    for turn, colour in zip(which, recoloured, strict=True):
        assert sorted(colour.tolist()) == list(range(10))
        assert colour[0] == 0
        pairs = [[colour[TURNS[turn](grid)] for grid in pair] for pair in task.pairs]
        result.append(b"".join(sorted(b"".join(bytes(g.shape) + g.tobytes() for g in pair) for pair in pairs)))
    return result


@pytest.mark.parametrize(
    "task",
    [
        a_task([[1, 0], [0, 0]]),
        a_task([[1, 0, 0]], [[1, 1]]),
        a_task([[1, 2]]),
        a_task([[0]]),
        a_task([[3, 0]], [[0], [4]], [[4, 4]], [[3, 3]]),
    ],
    ids=["one colour", "lines", "mirrored by exchange of colours", "nothing to change", "pairs that change places"],
)
def test_no_form_comes_twice_until_all_have_come(task: ArcTask) -> None:
    columns = (np.array([column]) for column in colours_and_turns(task))
    count = int(num_forms(*columns)[0])
    expected = every_form(task)
    found = made_forms(task, 2 * count)
    assert count == len(expected)
    assert set(found[:count]) == expected
    assert found[count:] == found[:count]


def test_a_task_of_all_colours_has_all_forms_and_begins_with_itself() -> None:
    task = a_task([[1, 2, 3, 4, 5], [6, 7, 8, 9, 0]])
    colours, turns = (np.array([column] * 3000) for column in colours_and_turns(task))
    assert (num_forms(colours, turns) == 8 * math.factorial(9)).all()
    keys = row_keys(3, np.arange(3)).repeat(1000)
    which, recoloured = turns_and_colours(keys, colours, turns, np.tile(np.arange(1000), 3))
    forms = [(at // 1000, turn, *colour) for at, (turn, colour) in enumerate(zip(which, recoloured, strict=True))]
    assert len(set(forms)) == 3000
    assert np.bincount(which).tolist() == [375] * 8
    assert np.abs(np.array([np.bincount(recoloured[:, c], minlength=10)[1:] for c in range(1, 10)]) - 333).max() < 60
    for start in (0, 1000, 2000):
        assert (which[start], recoloured[start].tolist()) == (0, list(range(10)))
    alike = {form[1:] for form in forms[:1000]} & {form[1:] for form in forms[1000:2000]}
    assert len(alike) < 10  # another task, another draw


def test_turns_that_give_the_same_task_are_told() -> None:
    assert different_turns(a_task([[1, 2], [3, 0]]).pairs) == [0, 1, 2, 3]  # the diagonal exchanges 2 and 3
    assert different_turns(a_task([[1, 1, 0], [0, 0, 2]]).pairs) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert different_turns(a_task([[1, 0, 1], [0, 0, 0]]).pairs) == [0, 1, 2, 3]
    assert different_turns(a_task([[1, 0, 1], [0, 2, 0], [1, 0, 1]]).pairs) == [0]
