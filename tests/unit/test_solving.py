"""`solve`: one command from a grid to an answer with its verdict; what is no puzzle for the model exits 2."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hrm.adaptive import adapt
from hrm.checkpoint import Checkpoint, open_checkpoint, write_checkpoint
from hrm.data.dataset import build_dataset
from hrm.halting_scores import Halt
from hrm.original.conversion import original_state_dict
from hrm.spec import parse_spec
from hrm.tasks import TaskSpec
from hrm.tasks.arc import ArcSpec
from hrm.tasks.maze import MazeSpec
from hrm.tasks.red_team import RedTeamSpec
from hrm.tasks.sudoku import SudokuSpec
from hrm.trial import TrialSpec
from orchestrator.cli import main

GIVENS = "1..." + "..3." + "...." + "...2"
MAZE = "S #  \n# #  \n     \n # # \n  # G"
Said = pytest.CaptureFixture[str]


def saved(folder: Path, task: TaskSpec, **model: Any) -> Path:
    """An untrained checkpoint of a task, whose Q tells rows apart."""
    kind = {
        "kind": "hrm",
        "hidden_size": 16,
        "num_heads": 2,
        "H_layers": 1,
        "L_layers": 1,
        "H_cycles": 1,
        "L_cycles": 1,
    }
    fields = {"halting": {"rule": "q", "segments": 4}, "causal": task.next_token}
    fields |= {"halting": {"segments": 4}} if task.next_token else {}
    data = {"task": task.model_dump(mode="json"), "model": kind | fields | model, "optimizer": {"kind": "adamw"}}
    trial = parse_spec(TrialSpec, data, "trial")
    torch.manual_seed(1)
    module = trial.model.build(build_dataset(task, folder / "data").shape)
    torch.nn.init.normal_(module.q_head.weight, std=2.0)  # type: ignore[union-attr,arg-type]
    module.q_head.bias.data.zero_()  # type: ignore[union-attr,operator]
    manifest = {
        "spec": trial.model_dump(mode="json"),
        "progress": {"step": 1},
        "validation": {},
        "num_parameters": module.num_parameters(),
    }
    path = folder / f"{task.kind}-checkpoint"
    write_checkpoint(path, Checkpoint(module.state_dict(), {}, {}, manifest))
    return path


def facts(capsys: Said, *arguments: object) -> dict[str, Any]:
    assert main(["solve", *map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def problem(capsys: Said, *arguments: object) -> str:
    code = main(["solve", *map(str, arguments)])
    captured = capsys.readouterr()
    assert code == 2, captured
    return captured.err


def test_a_sudoku_of_the_command_line_is_answered_with_its_verdict(tmp_path: Path, capsys: Said) -> None:
    path = saved(tmp_path, SudokuSpec.smoke())
    found = facts(capsys, path, GIVENS, "--storage", tmp_path)
    (one,) = found["puzzles"]
    assert one["place"] == "the grid"
    assert one["puzzle"] == ["1 .  . .", ". .  3 .", "", ". .  . .", ". .  . 2"]
    assert one["valid"] is False
    assert "not valid" in one["verdict"]
    assert 1 <= one["segments"] <= 4
    assert found["halt"] == "q >= 0.5"
    assert 0.0 < one["confidence"] < 1.0
    assert main(["solve", str(path), GIVENS, "--storage", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "1 .  . ." in shown
    assert one["verdict"] in shown
    assert f"{one['segments']} of at most 4 segments" in shown
    assert "\x1b[" not in shown, "no colours where there is no terminal"


def test_solve_answers_as_the_model_does_on_the_same_row(
    tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = SudokuSpec.smoke()
    path = saved(tmp_path, task)
    dataset = build_dataset(task, tmp_path / "data")
    rows = dataset.split("test").gather(np.arange(5))
    table = tmp_path / "rows.csv"
    questions = ["".join(dataset.manifest.vocabulary[token] for token in row) for row in rows["inputs"]]
    table.write_text("question\n" + "\n".join(questions))
    checkpoint = open_checkpoint(path)
    trial = parse_spec(TrialSpec, checkpoint.manifest["spec"], "trial")
    module = trial.model.build(dataset.shape)
    module.load_state_dict(checkpoint.model)
    expected = adapt(module, dataset.split("test").gather, np.arange(5), trial, Halt("residual", 3, 0.9))
    options = ("--halt", "residual", "--threshold", 0.9, "--segments", 3)
    found = facts(capsys, path, "--file", table, "--storage", tmp_path, *options)["puzzles"]
    assert [one["segments"] for one in found] == expected.segments.tolist()
    for one, tokens in zip(found, expected.tokens, strict=True):
        marks = "".join(one["answer"]).replace(" ", "")
        assert marks == "".join("?" if token == 0 else dataset.manifest.vocabulary[token] for token in tokens)
    few = facts(capsys, path, "--file", table, "--storage", tmp_path, "--limit", 2)
    assert [one["place"] for one in few["puzzles"]] == [f"{table}: row 1", f"{table}: row 2"]
    assert few["more_follow"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([*questions[:2], "no puzzle"])))
    assert main(["solve", str(path), "--storage", str(tmp_path), "--limit", "2"]) == 0
    assert "More follow, which were not looked at; --limit solves more of them" in capsys.readouterr().out


def test_the_standard_input_a_maze_and_an_arc_task_are_solved_too(
    tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, MazeSpec.smoke())
    monkeypatch.setattr("sys.stdin", io.StringIO(MAZE))
    (one,) = facts(capsys, path, "--storage", tmp_path)["puzzles"]
    assert one["place"] == "the standard input"
    assert one["puzzle"] == [line.rstrip() for line in MAZE.split("\n")]
    arc = saved(tmp_path, ArcSpec.smoke())
    file = tmp_path / "task.json"
    file.write_text(json.dumps({"train": [], "test": [{"input": [[1, 2]], "output": [[2, 1]]}]}))
    (one,) = facts(capsys, arc, "--file", file, "--storage", tmp_path)["puzzles"]
    assert one["puzzle"] == ["12"]
    assert one["puzzle_identifier"] == 0
    assert "blank puzzle identifier" in one["notes"][0]


def test_an_unsure_puzzle_is_given_more_and_says_so(tmp_path: Path, capsys: Said) -> None:
    path = saved(tmp_path, SudokuSpec.smoke(), start="random")
    (one,) = facts(capsys, path, GIVENS, "--storage", tmp_path, "--halt", "fixed", "--retry-below", 1.0)["puzzles"]
    assert (one["restarts"], one["segments_computed"]) == (4, 5 * 8)
    assert main(["solve", str(path), GIVENS, "--storage", str(tmp_path), "--halt", "fixed", "--retry-below", "1"]) == 0
    shown = capsys.readouterr().out
    assert "40 computed, 4 further starts" in shown
    assert f"{one['segments']} of at most 4 + 4 segments" in shown


def test_an_imported_original_checkpoint_solves_with_a_task(tmp_path: Path, capsys: Said) -> None:
    task = SudokuSpec.smoke()
    own = open_checkpoint(saved(tmp_path, task))
    torch.save(original_state_dict(own, own.model, "here"), tmp_path / "step_1")
    imported, recipe = tmp_path / "imported", tmp_path / "sudoku.yaml"
    fields = [f"--set={name}" for name in ("num_heads=2", "H_cycles=1", "L_cycles=1", "halt_max_steps=4")]
    assert main(["checkpoint", "import", str(tmp_path / "step_1"), "--output", str(imported), *fields]) == 0
    capsys.readouterr()
    recipe.write_text("kind: sudoku\nsize: 4\nnum_train: 32\nnum_validation: 8\nnum_test: 8\n")
    assert "Give --task" in problem(capsys, imported, GIVENS, "--storage", tmp_path)
    ours = facts(capsys, tmp_path / "sudoku-checkpoint", GIVENS, "--storage", tmp_path, "--halt", "fixed")
    theirs = facts(capsys, imported, GIVENS, "--storage", tmp_path, "--halt", "fixed", "--task", recipe)
    assert theirs["puzzles"][0]["answer"] == ours["puzzles"][0]["answer"]


def test_what_cannot_be_solved_is_refused_with_the_way_out(
    tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, text = saved(tmp_path, SudokuSpec.smoke()), saved(tmp_path, RedTeamSpec.smoke())
    where = ("--storage", tmp_path)
    assert "must have 16 cells" in problem(capsys, path, "123", *where)
    assert "given twice" in problem(capsys, path, "11" + "." * 14, *where)
    assert "puzzles are sudoku, maze and arc" in problem(capsys, text, GIVENS, *where)
    assert "is no whole checkpoint" in problem(capsys, tmp_path, GIVENS, *where)
    assert "there is no such folder" in problem(capsys, tmp_path / "nowhere", GIVENS, *where)
    assert "got both" in problem(capsys, path, GIVENS, "--file", "x.txt", *where)
    assert "no such file" in problem(capsys, path, "--file", tmp_path / "x.txt", *where)
    assert "must be >= 1" in problem(capsys, path, GIVENS, "--segments", 0, *where)
    assert "got 2.0" in problem(capsys, path, GIVENS, "--retry-below", 2, *where)
    assert "`margin` needs" in problem(capsys, path, GIVENS, "--halt", "margin", *where)
    for rule, threshold, said in (
        ("fixed", "1", "got 1 with fixed"),
        ("q", "90", "must be >= 0 and <= 1 for q, got 90"),
        ("q", "nan", "got nan"),
        ("margin", "-0.1", "got -0.1"),
        ("residual", "0", "must be > 0 and finite"),
        ("residual", "inf", "got inf"),
    ):
        assert said in problem(capsys, path, GIVENS, "--halt", rule, f"--threshold={threshold}", *where)
    (tmp_path / "grid.txt").write_text(GIVENS)
    assert "Give it with --file" in problem(capsys, path, tmp_path / "grid.txt", *where)
    assert "is a folder" in problem(capsys, path, "--file", tmp_path, *where)
    monkeypatch.setattr("sys.stdin", None)
    assert "needs a puzzle, got none" in problem(capsys, path, *where)
    assert "needs a puzzle, got none" in problem(capsys, path, "-", *where)
    plain = saved(tmp_path, MazeSpec.smoke(), halting={"segments": 4})
    assert "got 0.9 with fixed" in problem(capsys, plain, MAZE, "--threshold", 0.9, *where)


def test_the_adaptive_report_of_a_checkpoint_is_written_and_says_the_same_in_json(tmp_path: Path, capsys: Said) -> None:
    path = saved(tmp_path, SudokuSpec.smoke())
    options = [
        "--storage",
        str(tmp_path),
        "--output",
        str(tmp_path / "out"),
        "--repeats",
        "2",
        "--metric",
        "valid_grid",
    ]
    assert main(["checkpoint", "adapt", str(path), *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "out" / "report.json").read_text())
    assert (found["validation_rows"], found["test_rows"], found["segments"]) == (8, 8, 4)
    assert [one["rule"] for one in found["outcomes"]] == ["full", "fixed", "q", "residual"]
    assert found["retried"][0]["name"] == "full depth"
    full = found["outcomes"][0]
    assert full["flops"] == pytest.approx(8 * (4 * found["cost"]["segment"] + found["cost"]["answer"]))
    for one in found["outcomes"][1:]:
        assert one["flops"] == pytest.approx(full["flops"] * (1.0 - one["saved"]["value"]))
    assert "Accuracy against compute" in (tmp_path / "out" / "report.html").read_text()
    for wrong, said in (
        (["--metric", "blank_accuracy"], "no yes or no of every row"),
        (
            ["--metric", "nonsense"],
            "Give one of exact_accuracy, valid_grid, exact_accuracy_guesses_0.",
        ),
        (["--retry-segments", "0"], "must be >= 1 where --retry-below is 0.5 and there are no restarts, got 0"),
        (["--rules", "margin"], "`margin` needs"),
        (["--segments", "1"], "must be several segments"),
        (["--rows", "1"], "must be >= 2"),
    ):
        assert main(["checkpoint", "adapt", str(path), "--storage", str(tmp_path), *wrong]) == 2
        assert said in capsys.readouterr().err


def test_the_adaptive_report_of_a_text_model_is_about_the_next_token(tmp_path: Path, capsys: Said) -> None:
    path = saved(tmp_path, RedTeamSpec.smoke())
    options = ["--storage", str(tmp_path), "--output", str(tmp_path / "out"), "--repeats", "1"]
    assert main(["checkpoint", "adapt", str(path), *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["metric"] == "next_token_accuracy"
    assert [one["rule"] for one in found["outcomes"]] == ["full", "fixed", "residual"]
    assert found["confidence"] == "least"


def test_a_model_without_a_state_is_refused_as_such(
    tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, SudokuSpec.smoke())
    monkeypatch.setattr("hrm.models.Model.keeps_state", False)
    assert main(["checkpoint", "adapt", str(path), "--storage", str(tmp_path), "--segments", "4"]) == 2
    assert "must hand a state on" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, SudokuSpec.smoke())
    monkeypatch.setattr("orchestrator.adapting.depth", lambda *_, **__: pytest.fail("it was measured"))
    (tmp_path / "taken").write_text("a file")
    options = ["--storage", str(tmp_path), "--output", str(tmp_path / "taken" / "out")]
    assert main(["checkpoint", "adapt", str(path), *options]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_terminal_sees_what_is_being_measured_and_nobody_else_does(
    tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path, SudokuSpec.smoke())
    base = ["checkpoint", "adapt", str(path), "--storage", str(tmp_path), "--repeats", "1", "--rules", "q"]
    assert main(base) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main([*base, "--json"]) == 0
    assert capsys.readouterr().err == ""
    assert main(base) == 0
    told = capsys.readouterr().err
    assert "All 4 segments of 8 rows of validation" in told
    assert "Run 4 of 4: q >= " in told
    assert "retried below 0.5, 8 rows of test" in told
