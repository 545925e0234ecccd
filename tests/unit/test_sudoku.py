"""Generated Sudoku: every puzzle has one solution, its label; no split sees a solution grid of another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from hrm.data.dataset import SPLITS, Dataset, build_dataset
from hrm.data.sudoku_grids import BOXES, is_complete, solve
from hrm.data.sudoku_puzzles import GridBatch, PuzzleBatch, every_grid, make_puzzles, random_grids
from hrm.errors import SpecError
from hrm.spec import parse_spec
from hrm.tasks import Answers
from hrm.tasks.sudoku import BLANK, SudokuSpec

SMALL = {
    4: SudokuSpec(size=4, num_train=300, num_validation=30, num_test=60),
    6: SudokuSpec(size=6, num_train=20, num_validation=5, num_test=5),
    9: SudokuSpec(num_train=6, num_validation=1, num_test=2),
}
"""At 4x4 more rows than solution grids."""


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
    for inputs, labels in list(every_row(dataset)):
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


def test_two_thirds_of_the_4x4_grids_are_for_train(tmp_path: Path) -> None:
    facts = build_dataset(SMALL[4], tmp_path).manifest.facts
    assert facts["distinct_solutions_by_split"] == {"train": 192, "validation": 30, "test": 48}  # 30 rows of 48 grids


def test_there_are_288_grids_of_4x4() -> None:
    grids = every_grid(4)
    assert len(grids) == 288
    assert is_complete(grids, 4).all()
    assert all(list(solutions_by_trial((grid + 1).tolist(), 4)) == [(grid + 1).tolist()] for grid in grids)


@pytest.mark.parametrize("size", BOXES)
def test_a_grid_is_complete_if_every_unit_holds_every_digit(size: int) -> None:
    grids = random_grids(GridBatch(size, 3, 0, 20))
    for grid in grids:
        assert all(len({grid[peer] for peer in peers(cell, size)} - {grid[cell]}) == size - 1 for cell in range(size))
    assert is_complete(grids, size).all()
    wrong = grids.astype(np.int64)
    wrong[:, 1] = np.where(np.arange(20) % 2, wrong[:, 0], -99)
    assert (is_complete(wrong, size).sum(axis=1) == 3 * size - 3).all()  # its row, its column, its box


def test_the_solver_counts_solutions_as_the_plainest_search_does() -> None:
    rng = np.random.RandomState(np.random.MT19937(0))
    grids = np.repeat(random_grids(GridBatch(6, 0, 0, 10)), 3, axis=0)
    puzzles = np.where(rng.random_sample(grids.shape) < 0.35, grids, 0)
    puzzles[::10, 0] = puzzles[::10, 0] % 6 + 1  # some without a solution
    solved = solve(puzzles, 6)
    for puzzle, count, answer in zip(puzzles, solved.counts, solved.answers, strict=True):
        every = solutions_by_trial((puzzle + 1).tolist(), 6)  # it does not look whether givens exclude one another
        valid = (found for found in every if is_complete(np.array([found]) - 1, 6).all())
        found = [solution for solution, _ in zip(valid, range(2), strict=False)]
        assert count == len(found)
        assert is_complete(answer[None], 6).all() == (count > 0)
        assert count != 1 or (answer + 1).tolist() == found[0]
    assert set(solved.counts.tolist()) == {0, 1, 2}


def test_guesses_are_of_the_puzzle_whatever_it_is_solved_with_and_whatever_its_digits_are_called() -> None:
    made = make_puzzles(PuzzleBatch(9, 0, 0, random_grids(GridBatch(9, 5, 0, 12)), np.ones(12, np.int64)))
    assert made.guesses.min() == 0 < made.guesses.max()
    alone = np.concatenate([solve(puzzle[None], 9).guesses for puzzle in made.puzzles])
    np.testing.assert_array_equal(alone, made.guesses)
    names = np.array([0, 4, 7, 1, 9, 8, 2, 3, 5, 6])
    np.testing.assert_array_equal(solve(names[made.puzzles], 9).guesses, made.guesses)


def test_a_hard_puzzle_takes_guesses_and_an_easy_one_none() -> None:
    def guesses(puzzle: str) -> int:
        return int(solve(np.array([[int(cell) for cell in puzzle.replace(".", "0")]]), 9).guesses[0])

    # Published by Arto Inkala in 2012 as the hardest.
    assert guesses("8..........36......7..9.2...5...7.......457.....1...3...1....68..85...1..9....4..") > 20
    assert guesses("53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79") == 0


def test_a_batch_changes_no_grid_and_no_puzzle() -> None:
    whole = random_grids(GridBatch(6, 0, 0, 12))
    parts = [random_grids(GridBatch(6, 0, start, start + 4)) for start in (0, 4, 8)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    counts = np.tile([1, 2, 3], 4)
    made = make_puzzles(PuzzleBatch(6, 0, 0, whole, counts))
    pieces = [make_puzzles(PuzzleBatch(6, 0, 0, grids, counts[:4])).puzzles for grids in parts[:1]]
    np.testing.assert_array_equal(made.puzzles[: len(pieces[0])], pieces[0])


def test_without_min_givens_no_given_can_be_spared(dataset: Dataset) -> None:
    size = size_of(dataset)
    puzzles = np.array([inputs for inputs, _ in every_row(dataset)])[:60] - BLANK
    rows, cells = np.nonzero(puzzles)
    spared = puzzles[rows]
    spared[np.arange(len(rows)), cells] = 0
    assert (solve(spared, size).counts == 2).all()


@pytest.mark.parametrize("size", BOXES)
def test_min_givens_leaves_that_many(size: int, tmp_path: Path) -> None:
    cells = size * size
    spec = SudokuSpec(size=size, num_train=8, num_validation=1, num_test=1, min_givens=cells - 3)
    dataset = build_dataset(spec, tmp_path)
    assert all((inputs != BLANK).sum() == cells - 3 for inputs, _ in every_row(dataset))
    assert dataset.manifest.facts["mean_givens_by_split"] == dict.fromkeys(SPLITS, cells - 3)


def answers_to(dataset: Dataset, tokens: np.ndarray) -> Answers:
    return Answers(columns(dataset, "test"), tokens, np.zeros(len(tokens)), None)


def scores(dataset: Dataset, tokens: np.ndarray) -> dict[str, float]:
    assert dataset.task is not None
    sums = dataset.task.score(answers_to(dataset, tokens), dataset.manifest.vocabulary)
    assert tuple(sums) == dataset.task.metrics
    return {name: sum_ / weight for name, (sum_, weight) in sums.items() if weight}


def test_the_right_answer_scores_all_there_is(dataset: Dataset) -> None:
    found = scores(dataset, columns(dataset, "test")["labels"])
    assert set(found.values()) == {1.0}
    guesses = columns(dataset, "test")["guesses"]
    assert ("exact_accuracy_guesses_0" in found) == bool((guesses == 0).any())
    assert ("exact_accuracy_guesses_1_to_9" in found) == bool(((guesses > 0) & (guesses < 10)).any())


def test_a_valid_grid_of_other_givens_is_not_valid_for_the_puzzle(dataset: Dataset) -> None:
    labels = columns(dataset, "test")["labels"]
    size = size_of(dataset)
    found = scores(dataset, np.where(labels == size + 1, 2, labels + 1))  # every digit is another
    assert (found["valid_grid"], found["valid_units"], found["blank_accuracy"]) == (0.0, 1.0, 0.0)


def test_one_wrong_cell_breaks_its_row_its_column_and_its_box(dataset: Dataset) -> None:
    read, size = columns(dataset, "test"), size_of(dataset)
    tokens = read["labels"].copy()
    blank = read["inputs"][0].tolist().index(BLANK)
    tokens[0, blank] = tokens[0, blank] % (size + 1) + 1
    found, rows = scores(dataset, tokens), len(tokens)
    assert found["valid_grid"] == pytest.approx((rows - 1) / rows)
    assert found["valid_units"] == pytest.approx(1 - 3 / (rows * 3 * size))
    assert found["blank_accuracy"] == pytest.approx(1 - 1 / (read["inputs"] == BLANK).sum())


def test_exact_accuracy_is_parted_by_guesses() -> None:
    labels = np.tile(every_grid(4)[0] + BLANK, (5, 1))
    tokens = labels.copy()
    tokens[1, 3] = tokens[4, 3] = 0
    rows = {"inputs": labels, "labels": labels, "guesses": np.array([0, 0, 9, 10, 2**30])}
    sums = SudokuSpec(size=4).score(Answers(rows, tokens, np.zeros(5), None), [])
    assert [sums[f"exact_accuracy_guesses_{name}"] for name in ("0", "1_to_9", "10_to_99", "100_plus")] == [
        (1.0, 2.0),
        (1.0, 1.0),
        (1.0, 1.0),
        (0.0, 1.0),
    ]


def test_the_bytes_of_a_recipe_never_change(dataset: Dataset) -> None:
    digest = hashlib.sha256()
    for inputs, labels in every_row(dataset):
        digest.update(inputs.astype("<i4").tobytes() + labels.astype("<i4").tobytes())
    expected = {4: "a6a79cd03d42dcca", 6: "551ca98620af0e1c", 9: "9ce2c0f7d3db468b"}
    assert digest.hexdigest()[:16] == expected[size_of(dataset)]


def test_another_seed_is_other_puzzles_on_other_grids(tmp_path: Path) -> None:
    one = columns(build_dataset(SMALL[6], tmp_path), "train")
    two = columns(build_dataset(SMALL[6].model_copy(update={"seed": 1}), tmp_path), "train")
    assert not {row.tobytes() for row in one["labels"]} & {row.tobytes() for row in two["labels"]}


def test_more_puzzles_than_there_are_is_refused_with_the_way_out(tmp_path: Path) -> None:
    spec = SudokuSpec(size=4, num_train=5000, num_validation=1, num_test=1, min_givens=15)
    with pytest.raises(SpecError, match=r"num_train: asks for 5000 distinct puzzles of 192 grids .*3072 were found"):
        build_dataset(spec, tmp_path)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"size": 5}, "recipe: size: must be one of 4, 6, 9, got 5. Give one of these."),
        ({"size": 4, "min_givens": 16}, "recipe: min_givens must be < 16 at size 4, got 16. Lower it."),
        ({"size": 4, "augmentations": 2}, "recipe: augmentations must be 0 at size 4, got 2: "),
        ({"stored": True}, "recipe: stored is about augmentations, got augmentations 0. Set augmentations, "),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(fields: dict[str, object], problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(SudokuSpec, fields, "recipe")
    assert [str(found).startswith(problem) for found in caught.value.problems] == [True]


def test_a_grid_is_rendered_with_its_boxes_apart() -> None:
    spec, words = SudokuSpec(size=4), ["<pad>", ".", "1", "2", "3", "4"]
    tokens = [2, 3, 4, 5, 1, 1, 2, 3, 3, 1, 5, 4, -100, 0, 3, 2]
    assert spec.render(tokens, words) == "1 2  3 4\n. .  1 2\n\n2 .  4 3\n? ?  2 1"
    six = SudokuSpec(size=6).render(list(range(2, 8)) * 6, [*words, "5", "6"])
    assert six == "\n\n".join(["1 2 3  4 5 6\n1 2 3  4 5 6"] * 3)
