"""Puzzles as people write them become a task's rows; what is none is refused with its rule; answers are judged."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from hrm.data.arc_sources import ArcSource
from hrm.data.dataset import build_dataset
from hrm.data.sources import SourceSpec
from hrm.data.sudoku_grids import solve
from hrm.errors import SpecError
from hrm.puzzles import as_lines, made
from hrm.puzzles.arc import ArcPuzzles
from hrm.puzzles.maze import MazePuzzles
from hrm.puzzles.sudoku import SudokuPuzzles
from hrm.tasks.arc import ArcSpec
from hrm.tasks.maze import MazeSpec
from hrm.tasks.sudoku import SudokuSpec

EASY = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
SOLVED = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"
IN_LINES = "\n".join(EASY[start : start + 9] for start in range(0, 81, 9))
DRAWN = """\
5 3 . | . 7 . | . . .
6 . . | 1 9 5 | . . .
. 9 8 | . . . | . 6 .
------+-------+------
8 . . | . 6 . | . . 3
4 . . | 8 . 3 | . . 1
7 . . | . 2 . | . . 6
------+-------+------
. 6 . | . . . | 2 8 .
. . . | 4 1 9 | . . 5
. . . | . 8 . | . 7 9
"""
NINE, FOUR = SudokuPuzzles(9), SudokuPuzzles(4)
MAZE = "S #  \n# #  \n     \n # # \n  # G\n"
MAZES = MazePuzzles(5)


def tokens(text: str, marks: str, first: int) -> np.ndarray:
    return np.array([marks.index(mark) + first for mark in text])


@pytest.mark.parametrize(
    "text",
    [
        EASY,
        EASY.replace(".", "0"),
        EASY.replace(".", " "),
        EASY.replace(".", "_"),
        IN_LINES,
        IN_LINES.replace(".", " "),
        f"\n{IN_LINES}\n\n",
        DRAWN,
        f"# a comment\n{EASY}\n",
        f"# a comment\n{IN_LINES}\n",
    ],
)
def test_a_sudoku_is_read_in_every_way_that_people_write_it(text: str) -> None:
    (puzzle,) = NINE.parse(text, "the grid")
    assert np.array_equal(puzzle.inputs, tokens(EASY, ".123456789", 1))
    assert puzzle.answer is not None
    assert np.array_equal(puzzle.answer, tokens(SOLVED, "123456789", 2))
    assert not puzzle.notes


def test_a_sudoku_is_the_row_that_the_task_makes_of_it(tmp_path: Path) -> None:
    spec = SudokuSpec.smoke()
    dataset = build_dataset(spec, tmp_path)
    row = dataset.split("test").gather(np.arange(1))
    text = spec.render(row["inputs"][0].tolist(), dataset.manifest.vocabulary)
    (puzzle,) = FOUR.parse(text, "the grid")
    assert np.array_equal(puzzle.inputs, row["inputs"][0])
    assert puzzle.answer is not None
    assert np.array_equal(puzzle.answer, row["labels"][0])
    assert "\n".join(as_lines(FOUR.question(puzzle))) == text


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        (NINE, EASY[:-1], "must have 81 cells (the model is of 9 by 9), got 80"),
        (NINE, "1" * 16, "got 16"),
        (NINE, "", "got 0"),
        (NINE, EASY.replace("7", "x"), "got 'x'"),
        (FOUR, "5" + "." * 15, "may hold the digits 1 to 4"),
        (NINE, "55" + "." * 79, "5 is given twice in row 1"),
        (NINE, "5" + "." * 8 + "5" + "." * 71, "5 is given twice in column 1"),
        (NINE, "5" + "." * 9 + "5" + "." * 70, "5 is given twice in box 1"),
        (FOUR, "12.." + "..3." + "...." + "...3", "has no solution"),
        (NINE, f"# easy\n{EASY}\n{EASY[:-1]}\n{EASY}", "the grid: line 3: must have 81 cells"),
        (MAZES, MAZE.replace("S", " "), "must have one S, got 0"),
        (MAZES, MAZE.replace("G", " "), "must have one G, got 0"),
        (MAZES, MAZE.replace("S ", "SG"), "must have one G, got 2"),
        (MAZES, MAZE.replace("# #", "#x#"), "got 'x'"),
        (MAZES, "S #\n# #\n  G", "must have 5 lines of 5 cells, as the model's mazes, got 3 of 3"),
        (MAZES, "S #  \n###  \n     \n # # \n  # G\n", "has no way from S to G"),
        (MAZES, "S   G" + 20 * " " + "\n" + "S   G" + 19 * " ", "the grid: line 2: must have 25 cells"),
    ],
)
def test_what_is_no_puzzle_is_refused_with_its_rule(kind: SudokuPuzzles | MazePuzzles, text: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        kind.parse(text, "the grid")
    assert said in str(caught.value)
    assert str(caught.value).startswith("the grid")


def test_a_sudoku_of_several_solutions_is_solved_and_said_to_have_them() -> None:
    (puzzle,) = FOUR.parse("1" + "." * 15, "the grid")
    assert puzzle.answer is None
    assert "several solutions" in puzzle.notes[0]
    grid = solve(puzzle.inputs[None] - 1, 4).answers[0] + 1
    assert FOUR.judge(puzzle, grid).valid


def test_a_sudoku_that_no_one_can_tell_of_in_time_is_solved_and_said_to_be_such() -> None:
    (empty,) = NINE.parse("." * 81, "the grid")
    (impossible,) = NINE.parse(
        ".....5.8....6.1.43..........1.5........1.6...3.......553.....61........4.........", "the grid"
    )
    assert empty.answer is None
    assert impossible.answer is None
    assert "did not find out in time" in impossible.notes[0]


def test_a_sudoku_is_valid_by_its_rules_and_what_breaks_them_is_named() -> None:
    (puzzle,) = NINE.parse(EASY, "the grid")
    right = tokens(SOLVED, "123456789", 2)
    assert NINE.judge(puzzle, right).valid
    wrong = right.copy()
    wrong[2] = right[3]
    assert "row 1, column 3, box 1" in NINE.judge(puzzle, wrong).text
    names = np.array([0, 1, 3, 2, *range(4, 11)])
    renamed = NINE.judge(puzzle, names[right])
    assert renamed.valid is False
    assert "givens changed" in renamed.text
    assert "not each digit" not in renamed.text
    roles = {cell.role for line in NINE.drawn(puzzle, wrong) for cell in line}
    assert {"given", "filled", "wrong"} <= roles


def test_mazes_of_both_layouts_are_rows_of_the_task(tmp_path: Path) -> None:
    spec = MazeSpec.smoke()
    dataset = build_dataset(spec, tmp_path)
    row = dataset.split("test").gather(np.arange(1))
    text = spec.render(row["inputs"][0].tolist(), dataset.manifest.vocabulary)
    for layout in (text, text.replace("\n", ""), text.replace(" ", "."), f"\n{text}\n", f"{text}\n\n"):
        (puzzle,) = MAZES.parse(layout, "the grid")
        assert np.array_equal(puzzle.inputs, row["inputs"][0])
        assert puzzle.answer is not None
        assert np.array_equal(puzzle.answer, row["labels"][0])
    assert as_lines(MAZES.question(puzzle)) == [line.rstrip() for line in text.split("\n")]
    answered = spec.render(row["labels"][0].tolist(), dataset.manifest.vocabulary)
    (cleared,) = MAZES.parse(answered, "the grid")
    assert np.array_equal(cleared.inputs, row["inputs"][0])
    assert "taken out" in cleared.notes[0]


def test_a_maze_whose_open_lines_have_lost_their_spaces_is_the_same(tmp_path: Path) -> None:
    (whole,) = MAZES.parse("     \nS #  \n#    \n #   \n    G", "the grid")
    for text in ("\nS #\n#\n #\n    G", "\nS #\n#\n #\n    G\n", "\nS #\r\n#\r\n #\r\n    G\r\n"):
        (puzzle,) = MAZES.parse(text, "the grid")
        assert np.array_equal(puzzle.inputs, whole.inputs)
    (open_below,) = MAZES.parse("S   G\n\n\n\n\n", "the grid")
    assert (open_below.inputs.reshape(5, 5)[1:] == 2).all()


def test_a_path_is_valid_only_if_it_is_whole_and_the_best_only_if_no_shorter_one_is_there() -> None:
    (puzzle,) = MAZES.parse("S    \n     \n     \n     \nG    \n", "the grid")
    assert puzzle.answer is not None
    assert MAZES.judge(puzzle, puzzle.answer).text == "valid: a shortest path, 4 steps"
    longer = tokens("Soo  " + "  o  " + "  o  " + "ooo  " + "G    ", "# SGo", 1)
    judged = MAZES.judge(puzzle, longer)
    assert judged.valid is False
    assert judged.text == "a valid path of 8 steps, but 4 would do"
    broken = puzzle.answer.copy()
    broken[5] = 2
    assert "no single path" in MAZES.judge(puzzle, broken).text


def test_files_in_the_original_layout_are_read_row_by_row(tmp_path: Path) -> None:
    table = tmp_path / "puzzles.csv"
    table.write_text(f"source,question,answer,rating\nx,{EASY},{SOLVED},3\ny,{SOLVED},{SOLVED},0\n")
    found = made(NINE.read(table))
    assert [puzzle.place for puzzle in found.puzzles] == [f"{table}: row 1", f"{table}: row 2"]
    assert not found.more
    listed = tmp_path / "list.txt"
    listed.write_text(f"# a comment\n{EASY}\n{SOLVED}\n")
    assert [puzzle.place for puzzle in made(NINE.read(listed)).puzzles] == [f"{listed}: line 2", f"{listed}: line 3"]
    table.write_text(f"source,question,answer,rating\nx,{EASY[1:]},,3\ny,12,,0\n")
    with pytest.raises(SpecError) as caught:
        made(NINE.read(table))
    assert [problem.place for problem in caught.value.problems] == [f"{table}: row 1", f"{table}: row 2"]
    for content in (b"\xff\xfe\x00", b""):
        listed.write_bytes(content)
        with pytest.raises(SpecError, match=r"list\.txt"):
            made(NINE.read(listed))
    with pytest.raises(SpecError, match="no such file"):
        made(NINE.read(tmp_path / "none.txt"))
    with pytest.raises(SpecError, match="is a folder"):
        made(NINE.read(tmp_path))
    for content, said in (
        ("cells\n1\n", "must have a column `question`"),
        (f"a,{EASY},{SOLVED},3\n", "holds no row below its header. Give puzzles below a first line that names"),
        ("question,answer\n,3\n", "`question` is empty"),
    ):
        table.write_text(content)
        with pytest.raises(SpecError, match=said):
            made(NINE.read(table))


@pytest.mark.parametrize("name", ["puzzles.csv", "puzzles.txt", "puzzles.csv.gz"])
def test_only_so_many_puzzles_are_made_and_what_follows_is_not_judged(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    solved: list[str] = []
    own = NINE._puzzle
    monkeypatch.setattr(NINE, "_puzzle", lambda cells, place: solved.append(place) or own(cells, place))
    path, table = tmp_path / name, ".csv" in name
    lines = [EASY, SOLVED, "no puzzle", "11" + EASY[2:]]
    text = "\n".join(["source,question", *(f"x,{line}" for line in lines)] if table else lines)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    found = made(NINE.read(path), 2)
    assert found.more
    assert len(found.puzzles) == len(solved) == 2
    with pytest.raises(SpecError, match=r"3: must have 81 cells .*, got 9") as caught:
        made(NINE.read(path), 3)
    assert len(caught.value.problems) == 1


def test_a_damaged_gzip_is_refused_as_what_it_is(tmp_path: Path) -> None:
    packed = gzip.compress("\n".join(["question", *[EASY] * 50]).encode())
    for name in ("list.txt.gz", "table.csv.gz"):
        for content in (packed[:-12], packed[:20] + b"\x00\xff\x12" + packed[23:], b"no gzip"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(SpecError, match="cannot be read"):
                made(NINE.read(tmp_path / name))


TASK = {
    "train": [{"input": [[1]], "output": [[2]]}],
    "test": [{"input": [[1, 2, 0], [3, 4, 5]], "output": [[5, 4], [3, 2], [1, 0]]}, {"input": [[7]]}],
}


def test_every_test_input_of_an_arc_task_is_a_puzzle_and_its_output_judges_it(tmp_path: Path) -> None:
    arc = ArcPuzzles(6, {"known": 17})
    path = tmp_path / "known.json"
    path.write_text(json.dumps(TASK))
    first, second = made(arc.read(path)).puzzles
    assert (first.identifier, first.notes, second.place) == (17, (), f"{path}: test 2")
    assert first.answer is not None
    assert second.answer is None
    assert arc.judge(first, first.answer).text == "right: the given output, 3 by 2"
    other = first.answer.copy()
    other[0] = 9
    assert arc.judge(first, other).text == "wrong: 1 of 6 cells differ from the given output"
    assert "where the output is 3 by 2" in arc.judge(first, first.inputs).text
    assert arc.judge(second, second.inputs).valid is None
    assert "no grid" in arc.judge(second, np.zeros(36, np.int64)).text
    assert as_lines(arc.question(first)) == ["120", "345"]
    known, _, new, _ = arc.parse(json.dumps({"known": TASK, "new": TASK}), "the grid")
    assert (known.identifier, new.identifier) == (17, 0)
    assert "no task 'new': it got the blank puzzle identifier" in new.notes[0]


def test_an_arc_input_is_the_row_that_the_task_makes_of_it(tmp_path: Path) -> None:
    folder = tmp_path / "tasks" / "evaluation"
    folder.mkdir(parents=True)
    whole = {"train": TASK["train"], "test": TASK["test"][:1]}
    for name in ("one", "two"):
        (folder / f"{name}.json").write_text(json.dumps(whole))
    spec = ArcSpec(sources=(ArcSource(source=SourceSpec(path=str(folder)), held_out="all"),), canvas=6, augmentations=0)
    row = build_dataset(spec, tmp_path).split("test").gather(np.arange(1))
    (puzzle,) = ArcPuzzles(6, {}).parse(json.dumps(whole), "the grid")
    assert np.array_equal(puzzle.inputs, row["inputs"][0])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "must be JSON"),
        ("[1]", "must hold a task"),
        ('{"train": []}', "must hold a task"),
        ('{"train": [], "test": []}', "must hold a task"),
        ('{"train": [], "test": [{"input": [[1, 2], [3]]}]}', "must be rows of one length"),
        ('{"train": [], "test": [{"input": [[10]]}]}', "colours 0 to 9"),
        ('{"train": [], "test": [{"input": [[1, 1, 1, 1, 1, 1, 1]]}]}', "at most 6 by 6"),
    ],
)
def test_json_that_is_no_arc_task_is_refused(text: str, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        ArcPuzzles(6, {}).parse(text, "task.json")
