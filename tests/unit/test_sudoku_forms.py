"""Forms of a Sudoku are Sudoku again, the same however they are made, and never a held-out grid."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from hrm.data.dataset import Dataset, Rows, build_dataset
from hrm.data.keys import draws, integers, permutations, row_keys
from hrm.data.sudoku_forms import drawn_forms, line_orders, symmetry_keys
from hrm.data.sudoku_grids import BOXES, Grids, is_complete, solve
from hrm.data.sudoku_puzzles import GridBatch, every_grid, random_grids
from hrm.tasks.sudoku import BLANK, SudokuSpec

EASY = SudokuSpec(num_train=5, num_validation=1, num_test=1, min_givens=40, augmentations=30)
SIX = SudokuSpec(size=6, num_train=40, num_validation=10, num_test=10, augmentations=30)


def spec_of(dataset: Dataset) -> SudokuSpec:
    assert isinstance(dataset.task, SudokuSpec)
    return dataset.task.recipe()


def in_form(grids: Grids, places: np.ndarray, names: np.ndarray) -> Grids:
    moved = np.take_along_axis(grids, places, axis=1).astype(np.int64)
    return np.take_along_axis(names, moved - 1, axis=1) + 1


@cache
def every_way_to_move(size: int) -> np.ndarray:
    height, width = BOXES[size]
    rows, columns = line_orders(size, height), line_orders(size, width)
    places = (rows[:, None, :, None] * size + columns[None, :, None, :]).reshape(-1, size, size)
    if height == width:
        places = np.concatenate([places, places.swapaxes(1, 2)])
    return places.reshape(len(places), -1)


def least_form(grid: Grids, size: int) -> bytes:
    """Of all forms of a grid the first in lexicographic order: two grids share it if they are forms of one another."""
    moved = grid[every_way_to_move(size)].astype(np.int64) - 1
    names = np.empty((len(moved), size), np.int64)
    np.put_along_axis(names, moved[:, :size], np.arange(size)[None], axis=1)  # the first row reads 1, 2, 3, ...
    return min(form.tobytes() for form in np.take_along_axis(names, moved, axis=1).astype(np.uint8))


@pytest.fixture(scope="module", params=[EASY, SIX], ids=["9x9", "6x6"])
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return build_dataset(request.param, tmp_path_factory.mktemp("data"))


def test_forms_made_on_the_fly_equal_the_stored_ones_row_by_row(dataset: Dataset, tmp_path: Path) -> None:
    spec, fly = spec_of(dataset), dataset.split("train")
    other = build_dataset(spec.model_copy(update={"stored": True}), tmp_path)
    stored = other.split("train")
    assert dataset.manifest.rows["train"] == spec.num_train
    assert len(fly) == len(stored) == other.manifest.rows["train"] == spec.num_train * 31
    np.testing.assert_array_equal(fly.puzzle_indices, stored.puzzle_indices)
    np.testing.assert_array_equal(fly.group_indices, stored.group_indices)
    one, two = fly.gather(np.arange(len(fly))), stored.gather(np.arange(len(fly)))
    assert set(one) == set(two)
    for name in one:
        np.testing.assert_array_equal(one[name], two[name], err_msg=name)
    some = np.array([spec.num_train * 31 - 1, 3, 40, 3])
    np.testing.assert_array_equal(fly.gather(some)["inputs"], one["inputs"][some])


def test_every_form_has_the_label_as_its_only_solution_and_is_another_puzzle(dataset: Dataset) -> None:
    spec, rows = spec_of(dataset), dataset.split("train")
    read = rows.gather(np.arange(len(rows)))
    solved = solve(read["inputs"] - BLANK, spec.size)
    assert (solved.counts == 1).all()
    np.testing.assert_array_equal(solved.answers, read["labels"] - BLANK)
    given = (read["inputs"] != BLANK).reshape(spec.num_train, 31, -1)
    assert (given.sum(-1) == given.sum(-1)[:, :1]).all()
    assert len({row.tobytes() for row in given[:, :2].reshape(-1, spec.size**2)}) == 2 * spec.num_train  # moved
    first_rows = read["labels"][:, : spec.size].reshape(spec.num_train, 31, -1)
    assert min(len(np.unique(rows, axis=0)) for rows in first_rows) > 25  # and relabelled
    assert len(np.unique(read["inputs"], axis=0)) == len(rows)


def test_form_0_is_the_row_as_it_is_stored(dataset: Dataset) -> None:
    stored = Rows(dataset.directory / "train.arrow").gather(np.arange(5))
    for name, column in dataset.split("train").gather(np.arange(5) * 31).items():
        np.testing.assert_array_equal(column, stored[name], err_msg=name)


def test_the_bytes_of_forms_never_change(dataset: Dataset) -> None:
    rows = dataset.split("train")
    read = rows.gather(np.arange(len(rows)))
    digest = hashlib.sha256(b"".join(read[name].astype("<i4").tobytes() for name in ("inputs", "labels")))
    assert digest.hexdigest()[:16] == {9: "43788de87892f27f", 6: "2f9ab44d03b3fc6a"}[spec_of(dataset).size]


def test_no_form_of_a_train_grid_is_held_out(tmp_path: Path) -> None:
    dataset = build_dataset(SIX, tmp_path)
    train = dataset.split("train")
    forms = {row.tobytes() for row in train.gather(np.arange(len(train)))["labels"]}
    kinds = {}
    for split in ("train", "validation", "test"):
        labels = dataset.split(split).gather(np.arange(SIX.num_validation))["labels"] - BLANK
        assert split == "train" or not {row.tobytes() for row in labels + BLANK} & forms
        kinds[split] = {least_form(grid, 6) for grid in labels}
    assert len(set.union(*kinds.values())) == sum(map(len, kinds.values()))


@pytest.mark.parametrize("size", BOXES)
def test_all_forms_of_a_grid_are_grids_and_share_its_key(size: int) -> None:
    grids = random_grids(GridBatch(size, 1, 0, 200))
    forms = in_form(grids, *drawn_forms(row_keys(2, np.arange(200)), size))
    assert is_complete(forms, size).all()
    np.testing.assert_array_equal(symmetry_keys(grids, size), symmetry_keys(forms, size))


def test_the_key_tells_grids_apart_that_are_no_forms_of_one_another() -> None:
    assert len(np.unique(symmetry_keys(random_grids(GridBatch(9, 0, 0, 1000)), 9))) == 1000
    grids = random_grids(GridBatch(6, 0, 0, 60))
    kinds = {least_form(grid, 6) for grid in grids}
    assert len(kinds) * 0.9 < len(np.unique(symmetry_keys(grids, 6))) <= len(kinds) <= 49


def test_the_grids_of_4x4_are_forms_of_two() -> None:
    assert len({least_form(grid, 4) for grid in every_grid(4)}) == 2


def test_every_form_is_equally_likely() -> None:
    keys = row_keys(0, np.arange(60_000))
    places, names = drawn_forms(keys, 4)
    forms, counts = np.unique(np.concatenate([places, names], axis=1), axis=0, return_counts=True)
    assert len(forms) == 8 * 8 * 2 * 24
    assert abs(counts - 60_000 / len(forms)).max() < 5.5 * (60_000 / len(forms)) ** 0.5


def test_forms_are_made_ten_times_faster_than_row_by_row() -> None:
    spec, rng = SudokuSpec(augmentations=1000), np.random.RandomState(0)
    grids = np.repeat(random_grids(GridBatch(9, 0, 0, 20)) + BLANK, 1001, axis=0).astype(np.int32)
    rows, forms = {"inputs": grids, "labels": grids}, np.tile(np.arange(1001), 20)

    def one_by_one(puzzle: Grids, answer: Grids) -> tuple[Grids, Grids]:
        names = np.concatenate([[0, 1], rng.permutation(9) + 2])
        lines = [np.concatenate([band * 3 + rng.permutation(3) for band in rng.permutation(3)]) for _ in range(2)]
        places = (lines[0][:, None] * 9 + lines[1]).ravel()
        return names[puzzle[places]], names[answer[places]]

    def seconds_per_row(work: Callable[[], object], count: int) -> float:
        start = time.process_time()
        work()
        return (time.process_time() - start) / count

    slow = min(seconds_per_row(lambda: [one_by_one(g, g) for g in grids[:500]], 500) for _ in range(3))
    fast = min(seconds_per_row(lambda: spec.form(rows, forms), len(grids)) for _ in range(3))
    assert fast * 10 < slow, (fast, slow)


def test_random_numbers_depend_on_the_row_alone() -> None:
    content = np.arange(24).reshape(6, 4)
    keys = row_keys(7, content, np.arange(6))
    np.testing.assert_array_equal(row_keys(7, content[4:5].astype(np.int8), np.array([4])), keys[4:5])
    np.testing.assert_array_equal(draws(keys, 9)[:, :3], draws(keys, 3))
    assert len({*keys.tolist(), *row_keys(8, content, np.arange(6)).tolist()}) == 12
    pairs = np.indices((50, 50)).reshape(2, -1)  # a seed and a row, a row and a form: small numbers that come both ways
    assert len(np.unique([row_keys(seed, np.arange(50)) for seed in range(50)])) == 2500
    assert len(np.unique(row_keys(0, *pairs))) == 2500
    assert (np.sort(permutations(draws(keys, 5))) == np.arange(5)).all()
    counts = np.bincount(integers(draws(row_keys(0, np.arange(6000)), 1)[:, 0], 6))
    assert abs(counts - 1000).max() < 150
    assert hex(int(draws(np.array([1], np.uint64), 1)[0, 0])) == "0x910a2dec89025cc1"  # splitmix64 from state 1
