"""Sudoku from files: CSV as of Sudoku-Extreme and lists of puzzles, chosen, checked and kept apart."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from hrm.data.dataset import Dataset, build_dataset
from hrm.data.keys import row_keys
from hrm.data.sudoku_forms import drawn_forms, symmetry_keys
from hrm.data.sudoku_grids import Grids, solve
from hrm.data.sudoku_puzzles import GridBatch, PuzzleBatch, Puzzles, make_puzzles, random_grids
from hrm.errors import SpecError
from hrm.spec import parse_spec
from hrm.tasks.sudoku import BLANK, SudokuSpec

SHARED = Path(__file__).parents[3] / "shared" / "data" / "sudoku"
ROWS = {"num_train": 8, "num_validation": 4, "num_test": 4}


def puzzles(seed: int, count: int, size: int = 9, min_givens: int = 45) -> Puzzles:
    grids = random_grids(GridBatch(size, seed, 0, count))
    return make_puzzles(PuzzleBatch(size, seed, min_givens, grids, np.ones(count, np.int64)))


@pytest.fixture(scope="module")
def train() -> Puzzles:
    return puzzles(1, 40)


@pytest.fixture(scope="module")
def test() -> Puzzles:
    return puzzles(2, 4)


def line(cells: Grids, blank: str = ".") -> str:
    return "".join(blank if cell == 0 else str(cell) for cell in cells.tolist())


def write_csv(path: Path, given: Puzzles, ratings: list[int] | None = None, blank: str = ".") -> dict[str, str]:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["source", "question", "answer", "rating"])
        for row, (question, answer) in enumerate(zip(given.puzzles, given.answers, strict=True)):
            writer.writerow(["mine", line(question, blank), line(answer), ratings[row] if ratings else row])
    return {"path": str(path)}


def build(tmp_path: Path, source: dict[str, str], test_source: dict[str, str], **fields: object) -> Dataset:
    recipe = {**ROWS, "source": source, "test_source": test_source, **fields}
    return build_dataset(parse_spec(SudokuSpec, recipe, "recipe"), tmp_path / "data")


def read(dataset: Dataset, split: str) -> dict[str, np.ndarray]:
    rows = dataset.split(split)
    return rows.gather(np.arange(len(rows)))


def problems(tmp_path: Path, source: dict[str, str], test_source: dict[str, str], **fields: object) -> list[str]:
    with pytest.raises(SpecError) as caught:
        build(tmp_path, source, test_source, **fields)
    return [str(problem) for problem in caught.value.problems]


def test_rows_of_a_csv_become_the_splits_with_rating_and_guesses(tmp_path: Path, train: Puzzles, test: Puzzles) -> None:
    sources = write_csv(tmp_path / "train.csv", train), write_csv(tmp_path / "test.csv", test, blank="0")
    dataset = build(tmp_path, *sources)
    pairs = enumerate(zip(train.puzzles, train.answers, strict=True))
    rows = {line(puzzle): (line(answer), at) for at, (puzzle, answer) in pairs}
    seen = set()
    for split in ("train", "validation"):
        columns = read(dataset, split)
        for inputs, labels, rating in zip(columns["inputs"], columns["labels"], columns["rating"], strict=True):
            assert rows[line(inputs - BLANK)] == (line(labels - BLANK), rating)
            seen.add(int(rating))
        solved = solve(columns["inputs"] - BLANK, 9)
        np.testing.assert_array_equal(columns["guesses"], solved.guesses)
    assert len(seen) == 12
    assert seen != set(range(12))  # drawn from all rows, not the first
    assert sorted(line(row - BLANK) for row in read(dataset, "test")["inputs"]) == sorted(map(line, test.puzzles))


def test_more_validation_rows_do_not_change_the_train_rows(tmp_path: Path, train: Puzzles, test: Puzzles) -> None:
    sources = write_csv(tmp_path / "train.csv", train), write_csv(tmp_path / "test.csv", test)
    one, two = (read(build(tmp_path, *sources, num_validation=count), "train") for count in (1, 9))
    np.testing.assert_array_equal(one["inputs"], two["inputs"])
    other = read(build(tmp_path, *sources, seed=1), "train")
    assert {row.tobytes() for row in one["inputs"]} != {row.tobytes() for row in other["inputs"]}


def test_only_rows_of_the_difficulty_asked_for_are_taken(tmp_path: Path, train: Puzzles, test: Puzzles) -> None:
    sources = write_csv(tmp_path / "train.csv", train), write_csv(tmp_path / "test.csv", test, [27, 28, 99, 0])
    dataset = build(tmp_path, *sources, min_difficulty=28, num_test=2)
    assert all(read(dataset, split)["rating"].min() >= 28 for split in dataset.manifest.rows)
    found = problems(tmp_path, *sources, min_difficulty=28)
    assert found == [
        "dataset sudoku: test_source: num_test asks for 4 rows of a rating >= 28 whose grids are no forms of another "
        "split's, and there are 2. Lower num_test or min_difficulty."
    ]


def test_a_list_of_puzzles_is_solved(tmp_path: Path, train: Puzzles, test: Puzzles) -> None:
    text = "# made here\n" + "\n".join(line(puzzle, "0") for puzzle in train.puzzles) + "\n\n"
    (tmp_path / "train.txt").write_text(text)
    (tmp_path / "test.txt").write_text("\n".join(line(puzzle) for puzzle in test.puzzles))
    dataset = build(tmp_path, {"path": str(tmp_path / "train.txt")}, {"path": str(tmp_path / "test.txt")})
    answers = {line(puzzle): line(answer) for puzzle, answer in zip(train.puzzles, train.answers, strict=True)}
    columns = read(dataset, "train")
    assert "rating" not in columns
    for inputs, labels in zip(columns["inputs"], columns["labels"], strict=True):
        assert answers[line(inputs - BLANK)] == line(labels - BLANK)


def test_a_list_of_6x6_puzzles_is_read_too(tmp_path: Path) -> None:
    for name, seed, count in (("train", 1, 40), ("test", 3, 3)):
        lines = "\n".join(line(puzzle) for puzzle in puzzles(seed, count, 6, 12).puzzles)
        (tmp_path / f"{name}.txt").write_text(lines)
    sources = {"path": str(tmp_path / "train.txt")}, {"path": str(tmp_path / "test.txt")}
    dataset = build(tmp_path, *sources, size=6, num_train=4, num_validation=2, num_test=2)
    kinds = [set(symmetry_keys(read(dataset, split)["labels"] - BLANK, 6).tolist()) for split in dataset.manifest.rows]
    assert len(set.union(*kinds)) == sum(map(len, kinds))


def test_forms_of_held_out_grids_are_passed_over_in_train(tmp_path: Path, train: Puzzles, test: Puzzles) -> None:
    places, names = drawn_forms(row_keys(9, np.arange(3)), 9)
    moved = np.take_along_axis(test.answers[:3], places, 1)
    disguised = np.take_along_axis(names, moved - np.int64(1), 1).astype(np.int8) + np.int8(1)
    both = Puzzles(*(np.concatenate([disguised, all_rows[:12]]) for all_rows in (train.answers,) * 3))
    with_blanks = both.puzzles.copy()
    with_blanks[:, 0] = 0
    train_source = write_csv(tmp_path / "train.csv", Puzzles(with_blanks, both.answers, both.guesses))
    dataset = build(tmp_path, train_source, write_csv(tmp_path / "test.csv", test))
    assert dataset.manifest.facts["rows_passed_over_as_forms_of_another_split"] <= 3
    kinds = [set(symmetry_keys(read(dataset, split)["labels"] - BLANK, 9).tolist()) for split in dataset.manifest.rows]
    assert [len(kind) for kind in kinds] == [8, 4, 4]
    assert len(set.union(*kinds)) == 16
    found = problems(tmp_path, train_source, {"path": str(tmp_path / "test.csv")}, num_validation=5)
    assert found[0].startswith("dataset sudoku: source: num_validation asks for 5 rows whose grids are no forms of ")


def test_every_wrong_row_is_named_with_its_file_and_number(tmp_path: Path, train: Puzzles, test: Puzzles) -> None:
    good = [f"x,{line(puzzle)},{line(answer)},0" for puzzle, answer in zip(train.puzzles, train.answers, strict=True)]
    question, answer = line(train.puzzles[0]), line(train.answers[0])
    twice = question.replace(".", "x", 1).replace(".", "y", 1)
    swapped = answer.translate(str.maketrans("12", "21"))
    no_solution = "11" + "." * 79
    wrong = [
        f"x,{question[1:]},{answer},0",
        f"x,{twice},{answer},0",
        f"x,{'.' * 81},{answer},0",
        f"x,{no_solution},,0",
        f"x,{question},{swapped},0",
        f"x,{question},{answer},hard",
    ]
    path = tmp_path / "train.csv"
    path.write_text("\n".join(["source,question,answer,rating", *good[:9], *wrong, *good[9:]]))
    found = problems(tmp_path, {"path": str(path)}, write_csv(tmp_path / "test.csv", test), num_train=42)
    rules = {
        10: "the question must have 81 cells, got 80.",
        11: "the question may hold .0123456789, got 'xy'.",
        12: "a puzzle must have one solution, this one has several.",
        13: "a puzzle must have one solution, this one has none.",
        14: f"the answer must be the puzzle's solution, got {swapped}.",
        15: "the rating must be a whole number, got 'hard'.",
    }
    assert sorted(text.rsplit(". ", 1)[0] + "." for text in found) == [
        f"{path}: row {row}: {rule}" for row, rule in rules.items()
    ]


def test_of_many_wrong_rows_the_first_ten_are_listed(tmp_path: Path, test: Puzzles) -> None:
    path = tmp_path / "train.txt"
    path.write_text("\n".join(["1" * 81] * 25))
    found = problems(tmp_path, {"path": str(path)}, write_csv(tmp_path / "test.csv", test), num_train=21)
    assert len(found) == 11
    assert found[-1] == "dataset sudoku: 15 more rows are wrong. Correct the source."


def test_a_file_of_misprints_alone_is_refused(tmp_path: Path, test: Puzzles) -> None:
    path = tmp_path / "train.txt"
    path.write_text("12..\n34..\n")
    found = problems(tmp_path, {"path": str(path)}, write_csv(tmp_path / "test.csv", test))
    rule = "the question must have 81 cells, got 4. Correct the row, or say another size than 9."
    assert sorted(found) == [f"{path}: line {number}: {rule}" for number in (1, 2)]


def test_a_file_without_puzzles_is_refused(tmp_path: Path, test: Puzzles) -> None:
    (tmp_path / "train.csv").write_text("name,age\na,1\n")
    found = problems(tmp_path, {"path": str(tmp_path / "train.csv")}, write_csv(tmp_path / "test.csv", test))
    assert found == [
        f"{tmp_path}/train.csv: row 1: there must be a column `question`, got name, age. Name the columns "
        "source,question,answer,rating."
    ]


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"source": {"path": "x.csv"}}, "recipe: source and test_source come together, got one of them. Give both."),
        (
            {"min_difficulty": 3},
            "recipe: min_difficulty is about the rows of a source, got 3 without one. Leave it out.",
        ),
        (
            {"source": {"path": "x"}, "test_source": {"path": "y"}, "min_givens": 3},
            "recipe: min_givens is about generated puzzles, got 3 with a source. Leave it out.",
        ),
    ],
)
def test_fields_that_mean_nothing_are_refused(fields: dict[str, object], problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(SudokuSpec, fields, "recipe")
    assert [str(found) for found in caught.value.problems] == [problem]


@pytest.mark.skipif(not SHARED.is_dir(), reason="the puzzle lists are not part of the project")
def test_the_rated_lists_are_read_and_solved(tmp_path: Path) -> None:
    sources = ({"path": str(SHARED / name)} for name in ("train.csv", "test.csv"))
    dataset = build(tmp_path, *sources, min_difficulty=0)
    given = {
        row["question"]: (row["answer"], int(row["rating"])) for row in csv.DictReader((SHARED / "train.csv").open())
    }
    columns = read(dataset, "train")
    for inputs, labels, rating in zip(columns["inputs"], columns["labels"], columns["rating"], strict=True):
        assert given[line(inputs - BLANK)] == (line(labels - BLANK), rating)
