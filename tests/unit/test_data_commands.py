"""`data build`, `list`, `show`, `verify`, `export` in this process: what they print and how they end."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrm.data.dataset import build_dataset, open_dataset
from hrm.data.original_folder import OriginalFolder
from hrm.tasks.sudoku import SudokuSpec
from orchestrator import cli

PUZZLES = SudokuSpec(size=4, num_train=9, num_validation=3, num_test=3, seed=1)
RECIPES = {
    "puzzles": PUZZLES.canonical(),
    "talk": {"kind": "red_team", "num_train": 16, "num_validation": 4, "num_test": 4, "phrasings": 1},
}


class Command:
    """Runs `data` commands and keeps what they said."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> int:
        code = cli.main(["data", *arguments])
        self.out, self.err = self._capsys.readouterr()
        return code

    def json(self, *arguments: str, code: int = 0) -> Any:
        """The value that the command prints with --json, alone on standard output."""
        assert self(*arguments, "--json") == code
        return json.loads(self.out)


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """In a working directory with the two recipes; the storage is `runs/`, as by default."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    Path("datasets").mkdir()
    for name, recipe in RECIPES.items():
        Path("datasets", f"{name}.yaml").write_text(json.dumps(recipe))
    return Command(capsys)


def folder() -> Path:
    return Path("runs/data", f"sudoku-{PUZZLES.hash()}")


def test_build_says_what_it_built_and_a_second_time_that_it_is_there(run: Command) -> None:
    assert run("build", "puzzles") == 0
    assert f"{folder()}: built in " in run.out
    assert "train                  9 rows" in run.out
    assert "6 tokens in the vocabulary, 16 in a row" in run.out
    assert open_dataset(PUZZLES, Path("runs/data")).manifest.fingerprint[:16] in run.out
    assert run.err == ""
    assert run("build", "datasets/puzzles.yaml") == 0
    assert f"{folder()}: there already" in run.out


def test_build_as_json_has_rows_bytes_fingerprint_and_seconds(run: Command) -> None:
    built = run.json("build", "puzzles")
    assert built["rows"] == {"train": 9, "validation": 3, "test": 3}
    assert built["fingerprint"] == open_dataset(PUZZLES, Path("runs/data")).manifest.fingerprint
    assert built["bytes"] == sum(path.stat().st_size for path in folder().iterdir() if path.name != "manifest.json")
    assert built["built"]
    assert built["seconds"] > 0
    assert "facts" in built
    assert not run.json("build", "puzzles")["built"]


class Terminal(io.StringIO):
    """Keeps what a terminal would show."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_build_shows_progress_on_standard_error(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        patch.setenv("TERM", "xterm")
        assert run.json("build", "puzzles")["rows"]["train"] == 9
    assert "train rows" in terminal.getvalue()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["build", "puzles"], "Did you mean `puzzles`? The recipes in datasets/ are puzzles, talk"),
        (["show", "nothing"], "The recipes in datasets/ are puzzles, talk; built in runs/data: none"),
        (["show", "talk"], "talk: is not built in runs/data. Build it: data build talk."),
        (["verify", "talk"], "talk: is not built in runs/data. Build it: data build talk."),
        (["export", "other", "--output", "out"], "there is no dataset recipe 'other'"),
        (["export", "puzzles", "--output", "datasets"], "datasets: is there already"),
        (["build", "datasets/broken.yaml"], "datasets/broken.yaml: size: must be one of 4, 6, 9, got 5"),
    ],
)
def test_wrong_input_ends_with_2_and_a_way_out(run: Command, arguments: list[str], said: str) -> None:
    Path("datasets/broken.yaml").write_text("{kind: sudoku, size: 5}")
    if "broken" not in arguments[1]:
        Path("datasets/broken.yaml").unlink()
    assert run(*arguments) == 2
    assert said in run.err
    assert run.json(*arguments, code=2)["problems"][0]["way_out"]


def test_list_names_the_recipe_of_every_dataset(run: Command) -> None:
    assert run("list") == 0
    assert "No datasets in runs/data" in run.out
    run("build", "puzzles")
    run("build", "talk")
    build_dataset(PUZZLES.model_copy(update={"seed": 2}), Path("runs/data"))
    listed = {row["folder"]: row for row in run.json("list")}
    assert listed[folder().name]["recipes"] == ["puzzles"]
    assert sorted(name for row in listed.values() for name in row["recipes"]) == ["puzzles", "talk"]
    assert len(listed) == 3
    assert run("list") == 0
    assert f"{folder().name}    puzzles " in run.out
    assert listed[folder().name]["fingerprint"][:16] in run.out


def test_list_shows_a_damaged_dataset_beside_the_good_ones(run: Command) -> None:
    run("build", "puzzles")
    run("build", "talk")
    (folder() / "manifest.json").unlink()
    assert run("list") == 0
    assert f"damaged: see data verify {folder().name}" in run.out
    assert "talk" in run.out


def test_show_puts_a_puzzle_and_its_answer_side_by_side(run: Command) -> None:
    run("build", "puzzles")
    rows = open_dataset(PUZZLES, Path("runs/data")).split("test").gather(np.arange(3))
    assert run("show", "puzzles", "--split", "test", "--row", "2") == 0
    lines = run.out.splitlines()
    assert lines[0] == f"{folder()}: test, row 2 of 3"
    words = ["<pad>", ".", "1", "2", "3", "4"]
    first = [[words[token] for token in rows[column][2, :4]] for column in ("inputs", "labels")]
    assert lines[2].split() == ["input", "answer"]
    assert lines[3].split() == [*first[0], *first[1]]
    assert "puzzle_identifiers: 0" in run.out


@pytest.mark.parametrize("name", ["puzzles", "datasets/puzzles.yaml", folder().name, str(folder())])
def test_a_dataset_is_called_by_recipe_path_or_folder(run: Command, name: str) -> None:
    run("build", "puzzles")
    shown = run.json("show", name, "--row", "4")
    rows = open_dataset(PUZZLES, Path("runs/data")).split("train").gather(np.array([4]))
    assert shown["inputs"] == rows["inputs"][0].tolist()
    assert shown["labels"] == rows["labels"][0].tolist()
    assert shown["columns"] == {name: values[0] for name, values in rows.items() if name not in ("inputs", "labels")}
    assert shown["of"] == 9
    assert run.json("verify", name)[0]["files"] == 4


def test_show_prints_text_as_text(run: Command) -> None:
    run("build", "talk")
    assert run("show", "talk", "--split", "validation") == 0
    assert "\ntext\nsystem: " in run.out
    assert "\nassistant: " in run.out


@pytest.mark.parametrize("row", ["9", "-1"])
def test_a_row_that_is_not_there_is_refused(run: Command, row: str) -> None:
    run("build", "puzzles")
    assert run("show", "puzzles", "--row", row) == 2
    assert f"--row: must be >= 0 and < 9, the rows of train, got {row}" in run.err


def test_verify_names_every_damaged_file_of_every_dataset_and_ends_with_2(run: Command) -> None:
    run("build", "puzzles")
    run("build", "talk")
    assert run("verify") == 0
    assert run.out.count("as they were built") == 2
    content = bytearray((folder() / "train.arrow").read_bytes())
    content[-40] ^= 1
    (folder() / "train.arrow").write_bytes(content)
    manifest = next(Path("runs/data").glob("red_team-*/manifest.json"))
    manifest.write_text(manifest.read_text().replace('"vocab_size": ', '"vocab_size": 1'))
    assert run("verify") == 2
    assert f"{folder()}/train.arrow: is damaged: sha256 must be" in run.err
    assert f"Delete the folder {folder()} and build the dataset again" in run.err
    assert f"{manifest}: does not match its own fingerprint" in run.err
    assert len(run.json("verify", code=2)["problems"]) == 2


def test_verify_refuses_a_folder_under_another_name(run: Command) -> None:
    run("build", "puzzles")
    folder().rename("runs/data/sudoku-0123456789abcdef")
    assert run("verify") == 2
    assert f"its recipe belongs to a folder named {folder().name}" in run.err


def test_export_builds_what_is_not_built_and_writes_a_folder_of_the_original(run: Command) -> None:
    assert run("export", "puzzles", "--output", "out/puzzles") == 0
    assert "out/puzzles: train 9, validation 3, test 3 rows" in run.out
    exported = OriginalFolder(Path("out/puzzles"))
    rows = open_dataset(PUZZLES, Path("runs/data")).split("train").gather(np.arange(9))
    written = np.load("out/puzzles/train/all__inputs.npy")
    assert written.dtype == np.uint8
    assert (written == rows["inputs"]).all()
    assert exported.vocabulary == ["<pad>", ".", "1", "2", "3", "4"]
    assert run.json("export", folder().name, "--output", "again")["rows"]["train"] == 9


def test_export_of_a_next_token_dataset_is_refused(run: Command) -> None:
    assert run("export", "talk", "--output", "out") == 2
    assert "its labels are the next tokens" in run.err
    assert not Path("out").exists()


def test_an_exported_folder_comes_back_through_a_recipe(run: Command) -> None:
    run("export", "puzzles", "--output", "out")
    Path("datasets/back.yaml").write_text("{kind: original_folder, source: {path: out}}")
    back = run.json("build", "back")
    assert back["rows"] == {"train": 9, "validation": 3, "test": 3}
    shown = run.json("show", Path(back["dataset"]).name, "--row", "7")
    assert shown["inputs"] == run.json("show", "puzzles", "--row", "7")["inputs"]
    assert {"back", "puzzles"} == {name for row in run.json("list") for name in row["recipes"]}
    assert run("show", "back") == 0
    assert "input" in run.out
