"""Mazes: generated ones are as long as the recipe says, their labels the path that a plain search finds first."""

from __future__ import annotations

import hashlib
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrm.data.dataset import SPLITS, Dataset, build_dataset
from hrm.data.maze_grids import GOAL, MARKS, OPEN, PATH, START, WALL, are_paths, first_path_labels, shortest_steps
from hrm.errors import SpecError
from hrm.spec import parse_spec
from hrm.tasks import Answers
from hrm.tasks.maze import MazeSpec

SMALL = MazeSpec(size=7, min_path=8, num_train=60, num_validation=20, num_test=40)
WORDS = ["<pad>", *MARKS]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return build_dataset(SMALL, tmp_path_factory.mktemp("data"))


def columns(dataset: Dataset, split: str) -> dict[str, np.ndarray]:
    rows = dataset.split(split)
    return rows.gather(np.arange(len(rows)))


def tokens(*lines: str) -> np.ndarray:
    """The tokens [1, n * n] of a maze written down."""
    return np.array([[WORDS.index(mark) for line in lines for mark in line]], dtype=np.int32)


def first_path(inputs: list[int], size: int) -> list[int] | None:
    """The label by a queue, cell by cell: down, left, right, up, and the first parent stays."""
    start, goal = inputs.index(START), inputs.index(GOAL)
    parents = {start: start}
    queue = deque([start])
    while queue and goal not in parents:
        cell = queue.popleft()
        row, column = divmod(cell, size)
        for r, c in ((row + 1, column), (row, column - 1), (row, column + 1), (row - 1, column)):
            if 0 <= r < size and 0 <= c < size and inputs[r * size + c] != WALL:
                if r * size + c not in parents:
                    queue.append(r * size + c)
                parents.setdefault(r * size + c, cell)
    if goal not in parents:
        return None
    labels, cell = list(inputs), parents[goal]
    while cell != start:
        labels[cell], cell = PATH, parents[cell]
    return labels


def random_mazes(count: int, size: int, walls: float) -> np.ndarray:
    """Inputs [count, size * size], solvable or not."""
    rng = np.random.RandomState(0)
    inputs = np.where(rng.random_sample((count, size * size)) < walls, WALL, OPEN)
    for row in inputs:
        row[rng.permutation(size * size)[:2]] = START, GOAL
    return inputs


def forms(maze: np.ndarray) -> set[bytes]:
    """A maze [n, n] turned and mirrored."""
    turned = [np.rot90(maze, turns) for turns in range(4)]
    return {form.tobytes() for square in turned for form in (square, np.fliplr(square))}


@pytest.mark.parametrize(("size", "walls"), [(3, 0.3), (8, 0.3), (9, 0.1), (16, 0.35), (17, 0.3), (33, 0.3), (64, 0.3)])
def test_many_searches_at_once_find_the_path_of_a_plain_search(size: int, walls: float) -> None:
    inputs = random_mazes(40, size, walls)
    expected = [first_path(row, size) for row in inputs.tolist()]
    assert None in expected or walls < 0.2
    solved = [row if path is None else path for row, path in zip(inputs.tolist(), expected, strict=True)]
    assert first_path_labels(inputs).tolist() == solved
    steps = [-1 if path is None else path.count(PATH) + 1 for path in expected]
    assert shortest_steps(inputs).tolist() == steps


def test_a_generated_maze_is_as_long_as_asked_and_its_label_is_the_first_path(dataset: Dataset) -> None:
    for split in SPLITS:
        read = columns(dataset, split)
        assert set(np.unique(read["inputs"])) == {WALL, OPEN, START, GOAL}
        for inputs, labels, rating in zip(read["inputs"], read["labels"], read["rating"], strict=True):
            assert labels.tolist() == first_path(inputs.tolist(), 7)
            assert rating == (labels == PATH).sum() + 2
            assert rating - 1 >= SMALL.min_path
        assert (read["puzzle_identifiers"] == 0).all()
    assert dataset.shape.vocab_size == 6
    assert dataset.manifest.facts["test"]["labels_that_are_the_first_path"] == 40
    assert dataset.manifest.facts["test"]["steps"]["min"] == 8


def test_no_maze_comes_twice_turned_or_mirrored(dataset: Dataset) -> None:
    seen: set[bytes] = set()
    for split in SPLITS:
        for inputs in columns(dataset, split)["inputs"]:
            own = forms(inputs.reshape(7, 7))
            assert not own & seen
            seen |= own


def test_walls_start_and_goal_are_anywhere(tmp_path: Path) -> None:
    spec = MazeSpec(size=9, min_path=1, min_wall_fraction=0.2, max_wall_fraction=0.2, num_train=4000)
    inputs = columns(build_dataset(spec, tmp_path), "train")["inputs"]
    for token in (WALL, START, GOAL):
        share = (inputs == token).mean(axis=0)
        assert share.min() > share.mean() / 2, token
        assert share.max() < share.mean() * 2, token
    assert 0.15 < (inputs == WALL).mean() < 0.2  # which start and goal must be open shifts it


def test_more_train_mazes_leave_the_held_out_ones_as_they_are(dataset: Dataset, tmp_path: Path) -> None:
    larger = build_dataset(SMALL.model_copy(update={"num_train": 90}), tmp_path)
    for split in ("validation", "test"):
        np.testing.assert_array_equal(columns(larger, split)["inputs"], columns(dataset, split)["inputs"])
    np.testing.assert_array_equal(columns(larger, "train")["inputs"][:60], columns(dataset, "train")["inputs"])


def test_the_bytes_of_a_recipe_never_change(dataset: Dataset) -> None:
    digest = hashlib.sha256()
    for split in SPLITS:
        read = columns(dataset, split)
        digest.update(read["inputs"].astype("<i4").tobytes() + read["labels"].astype("<i4").tobytes())
    assert digest.hexdigest()[:16] == "4e02dca4e639fb6d"


def test_another_seed_is_other_mazes(dataset: Dataset, tmp_path: Path) -> None:
    other = build_dataset(SMALL.model_copy(update={"seed": 1}), tmp_path)
    one, two = (columns(built, "train")["inputs"] for built in (dataset, other))
    assert not {row.tobytes() for row in one} & {row.tobytes() for row in two}


def test_stored_forms_equal_those_made_on_the_fly(dataset: Dataset, tmp_path: Path) -> None:
    plain = columns(dataset, "train")
    stored, fly = (
        build_dataset(SMALL.model_copy(update={"augmentation": way}), tmp_path) for way in ("stored", "on_the_fly")
    )
    read, made = columns(stored, "train"), columns(fly, "train")
    assert read.keys() == made.keys()
    for name in read:
        np.testing.assert_array_equal(read[name], made[name])
    for built in (stored, fly):
        rows = built.split("train")
        assert rows.puzzle_indices.tolist() == list(range(60 * 8 + 1))
        assert rows.group_indices.tolist() == list(range(0, 60 * 8 + 1, 8))
        assert len(built.split("test")) == 40
    assert fly.manifest.rows["train"] == 60
    for name in ("inputs", "labels"):
        np.testing.assert_array_equal(read[name][::8], plain[name])
        for row, original in enumerate(plain[name]):
            own = {form.tobytes() for form in read[name][row * 8 : row * 8 + 8]}
            assert own == forms(original.reshape(7, 7))
    assert are_paths(read["inputs"], read["labels"]).all()
    np.testing.assert_array_equal(shortest_steps(read["inputs"]) + 1, read["rating"])


MAZE = ("S  #", " #  ", "   #", "#G  ")


@pytest.mark.parametrize(
    ("answer", "valid", "shortest"),
    [
        (("S  #", "o#  ", "oo #", "#G  "), True, True),
        (("Soo#", " #o ", " oo#", "#G  "), True, False),
        (("So #", "o#  ", "oo #", "#G  "), False, False),  # a cell beside the path
        (("S  #", "o#  ", "ooo#", "#Go "), False, False),  # the last cells of one path and all of another
        (("S  #", "o#  ", "o  #", "#G  "), False, False),  # a hole
        (("S  #", "o#o ", "oo #", "#G  "), False, False),  # a cell apart
        (("S  #", " o  ", " o #", "#G  "), False, False),  # through a wall
        (("oo #", "o#  ", "oo #", "#G  "), False, False),  # over the start
        (("S  #", "o#  ", "oo #", "#o  "), False, False),  # over the goal
        (("S   ", "o#  ", "oo #", "#G  "), False, False),  # a wall is gone
        (("S  #", "o#  ", "oo #", "#GS "), False, False),  # a second start
        (("S  #", "o## ", "oo #", "#G  "), False, False),  # a wall where none was
        (MAZE, False, False),
    ],
)
def test_a_valid_path_joins_start_and_goal_without_a_cell_to_spare(
    answer: tuple[str, ...], valid: bool, shortest: bool
) -> None:
    sums = scored(MAZE, ("S  #", "o#  ", "oo #", "#G  "), answer)
    assert sums["valid_path"] == (valid, 1)
    assert sums["valid_shortest_path"] == (shortest, 1)


def scored(maze: tuple[str, ...], label: tuple[str, ...], answer: tuple[str, ...]) -> dict[str, tuple[float, float]]:
    rows = {"inputs": tokens(*maze), "labels": tokens(*label)}
    answers = Answers(rows, tokens(*answer), np.zeros(1), None)
    return MazeSpec(size=len(maze), min_path=1).score(answers, WORDS)


def test_a_ring_apart_from_the_path_makes_it_invalid() -> None:
    maze = ("SG   ", "     ", "     ", "     ", "     ")
    ring = ("SG   ", "     ", "  ooo", "  o o", "  ooo")
    assert scored(maze, maze, ring)["valid_path"] == (0, 1)
    assert scored(maze, maze, maze)["valid_shortest_path"] == (1, 1)


def test_another_shortest_path_than_the_label_is_valid_and_shortest() -> None:
    sums = scored(("S  ", "   ", "  G"), ("S  ", "o  ", "ooG"), ("Soo", "  o", "  G"))
    assert sums["valid_shortest_path"] == (1, 1)
    assert sums["valid_shortest_path_3_to_5_steps"] == (1, 1)
    assert sums["valid_shortest_path_0_to_2_steps"] == (0, 0)


def test_every_label_is_a_valid_shortest_path_and_every_empty_answer_none(dataset: Dataset) -> None:
    read = columns(dataset, "test")
    for answer, right in ((read["labels"], 40), (read["inputs"], 0)):
        sums = SMALL.score(Answers(read, answer, np.zeros(40), None), WORDS)
        assert tuple(sums) == SMALL.metrics
        assert sums["valid_path"] == sums["valid_shortest_path"] == (right, 40)
        by_length = [value for name, value in sums.items() if name.endswith("_steps")]
        assert tuple(map(sum, zip(*by_length, strict=True))) == (right, 40)
    sums = SMALL.score(Answers(read, read["labels"], np.zeros(40), None), WORDS)
    steps = read["rating"] - 1
    assert sums["valid_shortest_path_7_to_13_steps"][1] == ((steps >= 7) & (steps <= 13)).sum()


def test_a_thousand_large_mazes_are_scored_in_a_second() -> None:
    inputs = random_mazes(1000, 30, 0.3)
    labels = first_path_labels(inputs)
    answers = Answers({"inputs": inputs, "labels": labels}, labels, np.zeros(1000), None)
    began = time.process_time()
    MazeSpec(size=30, min_path=109).score(answers, WORDS)
    assert time.process_time() - began < 1


def test_more_mazes_than_there_are_is_refused_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = r"min_path 4: asks for 500 mazes, and no more than \d+ were found. Lower min_path or the numbers"
    with pytest.raises(SpecError, match=rule):
        build_dataset(MazeSpec(size=3, min_path=4, num_train=200), tmp_path)
    monkeypatch.setattr("hrm.data.maze_splits.LAST_DRAWS", 16)  # how long a search goes on that finds nothing
    with pytest.raises(SpecError, match="asks for 1300 mazes, and no more than 0 were found"):
        build_dataset(MazeSpec(size=3, min_path=8), tmp_path)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"size": 3, "min_path": 9}, "recipe: min_path must be < 9 at size 3, got 9. Lower min_path."),
        (
            {"min_wall_fraction": 0.5, "max_wall_fraction": 0.4},
            "recipe: min_wall_fraction must be <= max_wall_fraction, got 0.5 and 0.4. Swap them.",
        ),
        ({"num_train": None}, "recipe: num_train must be a number where mazes are generated, got null. Give one."),
        (
            {"test_source": {"path": "x"}},
            "recipe: test_source must be null where source is, got one. Give source, too.",
        ),
        (
            {"source": {"path": "x"}, "min_path": 12},
            "recipe: min_path must be left out with a source, got 12. Leave it out.",
        ),
        (
            {"source": {"path": "x"}, "num_test": None},
            "recipe: num_test must be a number where there is no test_source, got null. Give one.",
        ),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(MazeSpec, fields, "recipe")
    assert [str(found) for found in caught.value.problems] == [problem]


def test_a_maze_is_rendered_as_lines() -> None:
    spec = MazeSpec(size=4, min_path=1)
    row = tokens(*MAZE)[0].tolist()
    row[1:3] = PATH, -100
    assert spec.render(row, WORDS) == "So?#\n #  \n   #\n#G  "
