"""Mazes from files: read as they are, proved row by row, held out so that no split sees another's."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from hrm.data.dataset import SPLITS, Dataset, build_dataset
from hrm.data.maze_grids import MARKS, Draw, dihedral, draw_mazes
from hrm.data.maze_sources import read_mazes
from hrm.data.sources import SourceSpec
from hrm.errors import SpecError
from hrm.tasks.maze import MazeSpec

Texts = list[tuple[str, str]]
"""Questions and answers."""


def generated(count: int, number: int = 0) -> Texts:
    """Mazes of 6x6 cells."""
    mazes = draw_mazes(Draw(size=6, min_path=6, min_wall_fraction=0.3, max_wall_fraction=0.4, seed=0, number=number))
    return [(text(question), text(answer)) for question, answer in zip(*mazes[:, :count], strict=True)]


def text(tokens: np.ndarray) -> str:
    return "".join(MARKS[token - 1] for token in tokens)


def turned(maze: str) -> str:
    return "".join(maze[cell] for cell in dihedral(6)[3])


def write(path: Path, mazes: Texts) -> SourceSpec:
    """The layout of Maze-Hard."""
    with path.open("w", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["source", "question", "answer", "rating"])
        lines.writerows(["", question, answer, answer.count("o") + 2] for question, answer in mazes)
    return SourceSpec(path=str(path))


def texts(dataset: Dataset, split: str) -> Texts:
    rows = dataset.split(split)
    read = rows.gather(np.arange(len(rows)))
    return [(text(question), text(answer)) for question, answer in zip(read["inputs"], read["labels"], strict=True)]


def recipe_of(folder: Path, train: Texts, test: Texts) -> MazeSpec:
    """All mazes of two files, five of the first for validation."""
    source, test_source = write(folder / "train.csv", train), write(folder / "test.csv", test)
    return MazeSpec(size=6, source=source, test_source=test_source, num_train=None, num_validation=5, num_test=None)


def test_validation_is_taken_from_the_source_and_test_from_its_own(tmp_path: Path) -> None:
    train, test = generated(30), generated(12, number=1)
    spec = recipe_of(tmp_path, train, test)
    dataset = build_dataset(spec, tmp_path / "data")
    validation, rest = texts(dataset, "validation"), texts(dataset, "train")
    assert len(validation) == 5
    assert rest == [maze for maze in train if maze not in validation]
    assert validation == [maze for maze in train if maze not in rest]
    assert validation != train[:5]
    assert texts(dataset, "test") == test
    fewer = build_dataset(spec.model_copy(update={"num_train": 20, "num_test": 3}), tmp_path / "data")
    assert texts(fewer, "train") == rest[:20]
    assert texts(fewer, "test") == test[:3]
    other = build_dataset(spec.model_copy(update={"seed": 1}), tmp_path / "data")
    assert texts(other, "validation") != validation


def test_without_a_test_source_the_test_is_taken_from_the_source(tmp_path: Path) -> None:
    mazes = generated(30)
    spec = MazeSpec(size=6, source=write(tmp_path / "all.csv", mazes), num_train=None, num_validation=4, num_test=6)
    dataset = build_dataset(spec, tmp_path / "data")
    found = {split: texts(dataset, split) for split in SPLITS}
    assert {split: len(rows) for split, rows in found.items()} == {"train": 20, "validation": 4, "test": 6}
    assert sorted(maze for rows in found.values() for maze in rows) == sorted(mazes)


def test_a_held_out_maze_that_is_a_turned_train_maze_is_refused_unless_allowed(tmp_path: Path) -> None:
    train = generated(20)
    test = [*generated(3, number=1), (turned(train[0][0]), turned(train[0][1]))]
    spec = recipe_of(tmp_path, train, test)
    rule = "dataset maze: test: no maze may be in two splits, turned or mirrored; 1 are, the first is row 3. Take"
    with pytest.raises(SpecError, match=rule):
        build_dataset(spec, tmp_path / "data")
    allowed = build_dataset(spec.model_copy(update={"allow_overlap": True}), tmp_path / "data")
    assert allowed.manifest.facts["forms_in_an_earlier_split"] == {"test": 1}


def test_labels_by_another_rule_are_counted(tmp_path: Path) -> None:
    mazes = [(turned(question), turned(answer)) for question, answer in generated(30)]
    spec = MazeSpec(size=6, source=write(tmp_path / "all.csv", mazes), num_train=None, num_validation=4, num_test=6)
    facts = build_dataset(spec, tmp_path / "data").manifest.facts
    assert 0 < facts["train"]["labels_that_are_the_first_path"] < 20


def test_every_wrong_row_is_named_with_its_file(tmp_path: Path) -> None:
    good = generated(3)
    path = tmp_path / "mazes.csv"
    open_maze = "S    G" + 30 * " "
    wrong = [
        (open_maze[:-1], open_maze),
        (open_maze, open_maze[:-1] + "x"),
        ("So   G" + 30 * " ", "SooooG" + 30 * " "),
        ("SS   G" + 30 * " ", "SooooG" + 30 * " "),
        (open_maze, "SoooGG" + 30 * " "),
        ("S #  G" + ("  #   " * 5), "S #  G" + ("  #   " * 5)),
        (open_maze, open_maze),
        (open_maze, "SooooG" + 29 * " " + "o"),
        (open_maze, "SooooGoooooo" + 24 * " "),
        (open_maze, "So  oG oooo " + 24 * " "),
    ]
    source = write(path, [*good, *wrong, *good])
    with pytest.raises(SpecError) as caught:
        read_mazes(source, 6)
    path_rule = "`answer` must be `question` with one path of `o` from S to G, and it is not"
    assert [str(problem) for problem in caught.value.problems] == [
        f"{path}: row {row}: {rule}. Correct the row or leave it out."
        for row, rule in enumerate(
            [
                "`question` must hold 36 cells (size is 6), got 35",
                "`answer` may hold the characters '# SGo', got 'x'",
                "`question` may hold the characters '# SG', got 'o'",
                "`question` must hold one S, got 2",
                "`answer` must hold one G, got 2",
                "no path joins S to G",
                path_rule,
                path_rule,
                path_rule,
                "`answer` must be 5 steps long, got 7",
            ],
            start=4,
        )
    ]
    write(path, [*good, *wrong, *wrong])
    with pytest.raises(SpecError) as caught:
        read_mazes(source, 6)
    assert len(caught.value.problems) == 11
    assert str(caught.value.problems[10]) == f"{path}: row 14: is wrong, too, and so are 9 after it."


def test_a_file_without_mazes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(SpecError, match=r"other.csv: row 1: must have a text `question`, got a, b"):
        read_mazes(SourceSpec(path=str(path)), 6)


@pytest.mark.parametrize(
    ("numbers", "rule"),
    [
        ({"num_train": 20}, "num_train: asks for 30 mazes .10 of them held out. of a source of 29. Lower the numbers"),
        ({"num_train": None, "num_test": 25}, "num_train: asks for 31 mazes .30 of them held out. of a source of 29"),
    ],
)
def test_more_mazes_than_the_source_holds_is_refused(numbers: dict[str, int | None], rule: str, tmp_path: Path) -> None:
    source = write(tmp_path / "all.csv", generated(29))
    spec = MazeSpec(size=6, source=source, num_validation=5, num_test=5).model_copy(update=numbers)
    with pytest.raises(SpecError, match=rule):
        build_dataset(spec, tmp_path / "data")


def test_more_test_mazes_than_the_test_source_holds_is_refused(tmp_path: Path) -> None:
    sources = {"source": write(tmp_path / "a.csv", generated(9)), "test_source": write(tmp_path / "b.csv", [])}
    spec = MazeSpec(size=6, num_train=None, num_validation=2, num_test=None, **sources)
    with pytest.raises(SpecError, match="test_source: num_test asks for 1 mazes of a source of 0"):
        build_dataset(spec, tmp_path / "data")
