"""Generated Sudoku: every puzzle has one solution, its label; no split sees a solution grid of another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from hrm.data.dataset import SPLITS, Dataset, build_dataset
from hrm.data.sudoku_grids import BOXES, Geometry
from hrm.errors import SpecError
from hrm.spec import parse_spec
from hrm.tasks.sudoku import BLANK, SudokuSpec

SMALL = {
    4: SudokuSpec(size=4, num_train=300, num_validation=30, num_test=60),
    6: SudokuSpec(size=6, num_train=20, num_validation=5, num_test=5),
    9: SudokuSpec(num_train=6, num_validation=1, num_test=2, augmentations=20),
}
"""At 4x4 more rows than solution grids, at 9x9 with further forms of the train puzzles."""


@pytest.fixture(scope="module", params=SMALL, ids=lambda size: f"{size}x{size}")
def dataset(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return build_dataset(SMALL[request.param], tmp_path_factory.mktemp("data"))


def size_of(dataset: Dataset) -> int:
    return round(dataset.manifest.sequence_length**0.5)


def columns(dataset: Dataset, split: str) -> dict[str, np.ndarray]:
    rows = dataset.split(split)
    return rows.gather(np.arange(len(rows)))


def every_row(dataset: Dataset) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for split in SPLITS:
        read = columns(dataset, split)
        yield from zip(read["inputs"], read["labels"], strict=True)


@cache
def peers(cell: int, size: int) -> list[int]:
    """The cells in its row, its column and its box."""
    (row, column), (height, width) = divmod(cell, size), BOXES[size]
    places = [divmod(other, size) for other in range(size * size)]
    return [
        r * size + c
        for r, c in places
        if r == row or c == column or (r // height == row // height and c // width == column // width)
    ]


def solutions_by_trial(tokens: list[int], size: int) -> Iterator[list[int]]:
    """Every solution, by trying each digit in the cell that leaves the fewest: the plainest search."""
    digits = set(range(2, size + 2))
    blank = [cell for cell, token in enumerate(tokens) if token == BLANK]
    left = {cell: digits - {tokens[peer] for peer in peers(cell, size)} for cell in blank}
    if not blank:
        yield tokens
        return
    cell = min(blank, key=lambda cell: len(left[cell]))
    for digit in left[cell]:
        yield from solutions_by_trial([*tokens[:cell], digit, *tokens[cell + 1 :]], size)


def test_every_puzzle_has_one_solution_and_it_is_the_label(dataset: Dataset) -> None:
    size = size_of(dataset)
    for inputs, labels in list(every_row(dataset))[:: 9 if size == 9 else 1]:
        assert list(solutions_by_trial(inputs.tolist(), size)) == [labels.tolist()]


def test_tokens_are_the_originals(dataset: Dataset) -> None:
    size = size_of(dataset)
    assert dataset.shape.vocab_size == size + 2
    assert dataset.shape.num_puzzle_identifiers == 1
    for split in SPLITS:
        read = columns(dataset, split)
        assert set(np.unique(read["inputs"])) == set(range(1, size + 2))
        assert set(np.unique(read["labels"])) == set(range(2, size + 2))
        assert (read["puzzle_identifiers"] == 0).all()
        given = read["inputs"] != BLANK
        assert (read["inputs"] == read["labels"])[given].all()


def test_no_solution_grid_is_in_two_splits_and_no_puzzle_comes_twice(dataset: Dataset) -> None:
    grids = [{row.tobytes() for row in columns(dataset, split)["labels"]} for split in SPLITS]
    assert len(set.union(*grids)) == sum(map(len, grids))
    for split in SPLITS:
        inputs = columns(dataset, split)["inputs"]
        assert len({row.tobytes() for row in inputs}) == len(inputs)


def test_the_4x4_grids_are_shared_out_in_proportion_to_the_rows(tmp_path: Path) -> None:
    facts = build_dataset(SMALL[4], tmp_path).manifest.facts
    assert facts["distinct_solutions_by_split"] == {"train": 220, "validation": 22, "test": 44}


def test_there_are_288_grids_of_4x4() -> None:
    geometry = Geometry.of(4)
    tokens = {tuple(geometry.tokens(grid).tolist()) for grid in geometry.grids()}
    assert len(tokens) == 288
    for grid in tokens:
        assert list(solutions_by_trial(list(grid), 4)) == [list(grid)]
        rows = np.array(grid).reshape(4, 4)
        boxes = rows.reshape(2, 2, 2, 2).swapaxes(1, 2).reshape(4, 4)
        assert all(set(line) == {2, 3, 4, 5} for lines in (rows, rows.T, boxes) for line in lines.tolist())


def test_without_min_givens_no_given_can_be_spared(dataset: Dataset) -> None:
    geometry = Geometry.of(size_of(dataset))
    for inputs, _ in list(every_row(dataset))[::10]:
        for cell in np.flatnonzero(inputs != BLANK):
            spared = inputs.copy()
            spared[cell] = BLANK
            assert geometry.count_solutions(spared) == 2


@pytest.mark.parametrize("size", BOXES)
def test_min_givens_leaves_that_many(size: int, tmp_path: Path) -> None:
    cells = size * size
    spec = SudokuSpec(size=size, num_train=8, num_validation=1, num_test=1, min_givens=cells - 3)
    dataset = build_dataset(spec, tmp_path)
    assert all((inputs != BLANK).sum() == cells - 3 for inputs, _ in every_row(dataset))
    assert dataset.manifest.facts["mean_givens_by_split"] == dict.fromkeys(SPLITS, cells - 3)


def test_a_puzzle_and_its_forms_are_a_group_and_each_form_a_puzzle(tmp_path: Path) -> None:
    plain = build_dataset(SMALL[9].model_copy(update={"augmentations": 0}), tmp_path)
    dataset = build_dataset(SMALL[9], tmp_path)
    rows, read = dataset.split("train"), columns(dataset, "train")
    assert rows.puzzle_indices.tolist() == list(range(6 * 21 + 1))
    assert rows.group_indices.tolist() == list(range(0, 6 * 21 + 1, 21))
    np.testing.assert_array_equal(read["inputs"][::21], columns(plain, "train")["inputs"])
    np.testing.assert_array_equal(read["labels"][::21], columns(plain, "train")["labels"])
    given = (read["inputs"] != BLANK).reshape(6, 21, 81)
    assert (given.sum(-1) == given.sum(-1)[:, :1]).all()
    assert len({row.tobytes() for row in given.reshape(-1, 81)}) == 6 * 21  # moved, not only relabelled
    digits = np.sort([np.bincount(row, minlength=11)[2:] for row in read["inputs"]]).reshape(6, 21, 9)
    assert (digits == digits[:, :1]).all()
    assert len(np.unique(read["labels"][:, :9], axis=0)) == 6 * 21  # relabelled, not only moved


def test_the_bytes_of_a_recipe_never_change(dataset: Dataset) -> None:
    digest = hashlib.sha256()
    for inputs, labels in every_row(dataset):
        digest.update(inputs.astype("<i4").tobytes() + labels.astype("<i4").tobytes())
    expected = {4: "65595f281479447c", 6: "34a744cd19bb6cee", 9: "82e61273e0a3c57e"}
    assert digest.hexdigest()[:16] == expected[size_of(dataset)]


def test_another_seed_is_other_puzzles_on_other_grids(tmp_path: Path) -> None:
    one = columns(build_dataset(SMALL[6], tmp_path), "train")
    two = columns(build_dataset(SMALL[6].model_copy(update={"seed": 1}), tmp_path), "train")
    assert not {row.tobytes() for row in one["labels"]} & {row.tobytes() for row in two["labels"]}


def test_more_puzzles_than_there_are_is_refused_with_the_way_out(tmp_path: Path) -> None:
    spec = SudokuSpec(size=4, num_train=5000, num_validation=1, num_test=1, min_givens=15)
    with pytest.raises(SpecError, match=r"num_train: asks for 5000 distinct puzzles of 285 grids .*4560 were found"):
        build_dataset(spec, tmp_path)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"size": 5}, "recipe: size: must be one of 4, 6, 9, got 5. Give one of these."),
        ({"size": 4, "min_givens": 16}, "recipe: min_givens must be < 16 at size 4, got 16. Lower it."),
        ({"size": 6, "augmentations": 2}, "recipe: augmentations must be 0 at size 6, got 2: "),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(fields: dict[str, int], problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(SudokuSpec, fields, "recipe")
    assert [str(found).startswith(problem) for found in caught.value.problems] == [True]


def test_a_grid_is_rendered_with_its_boxes_apart() -> None:
    spec, words = SudokuSpec(size=4), ["<pad>", ".", "1", "2", "3", "4"]
    tokens = [2, 3, 4, 5, 1, 1, 2, 3, 3, 1, 5, 4, -100, 0, 3, 2]
    assert spec.render(tokens, words) == "1 2  3 4\n. .  1 2\n\n2 .  4 3\n? ?  2 1"
    six = SudokuSpec(size=6).render(list(range(2, 8)) * 6, [*words, "5", "6"])
    assert six == "\n\n".join(["1 2 3  4 5 6\n1 2 3  4 5 6"] * 3)
