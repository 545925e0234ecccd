"""Stored predictions: judged again without a model, alone or together, and nothing else is taken for them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from hrm.context import LocalContext
from hrm.data.predictions import read_predictions, write_predictions
from hrm.errors import SpecError
from hrm.tasks.red_team import RedTeamSpec
from hrm.tasks.sudoku import SudokuSpec
from hrm.train import train
from orchestrator.cli import main
from tests.conftest import TINY_TRANSFORMER, MakeTrial

TASK = RedTeamSpec.smoke()
RIGHT, WRONG = (
    "<system> jailbreak <user> ok <assistant> jailbreak",
    "<system> jailbreak <user> ok <assistant> evasion_techniques",
)


def conversations(*texts: str) -> pa.Table:
    return pa.table({"row": list(range(len(texts))), "given": [2] * len(texts), "text": list(texts)})


def test_several_files_are_judged_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "one.arrow", tmp_path / "two.arrow"]
    write_predictions(conversations(RIGHT), TASK, files[0])
    write_predictions(conversations(WRONG, WRONG, RIGHT), TASK, files[1])
    assert main(["checkpoint", "judge", *map(str, files), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["predictions"] == 4
    assert found["metrics"]["coherence"] == 0.5
    assert main(["checkpoint", "judge", str(files[0])]) == 0
    assert "1 predictions on red_team: generated_strategy_accuracy 1.0000" in capsys.readouterr().out


def test_what_evaluate_keeps_is_judged_as_it_was_measured(
    make_trial: MakeTrial, make_context: Callable[..., LocalContext], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    context = make_context()
    folder = context.trial_directory / next(train(make_trial(model=TINY_TRANSFORMER), context)).checkpoint
    storage = ["--storage", str(context.data_root.parent), "--json"]
    kept = tmp_path / "kept.arrow"
    assert main(["checkpoint", "evaluate", str(folder), "--predictions", str(kept), *storage]) == 0
    measured = json.loads(capsys.readouterr().out)["metrics"]
    (tmp_path / "again.yaml").write_text(TASK.model_dump_json())
    again = ["--task", str(tmp_path / "again.yaml"), "--predictions", str(tmp_path / "again.arrow")]
    assert main(["checkpoint", "evaluate", str(folder), *again, *storage]) == 0
    capsys.readouterr()
    assert main(["checkpoint", "judge", str(kept), str(tmp_path / "again.arrow"), "--json"]) == 0
    judged = json.loads(capsys.readouterr().out)["metrics"]
    assert "coherence" in judged
    assert measured | judged == measured


def test_predictions_about_different_tasks_are_not_mixed(tmp_path: Path) -> None:
    for name, task in (("one", TASK), ("two", SudokuSpec.smoke())):
        write_predictions(conversations(RIGHT), task, tmp_path / name)
    with pytest.raises(SpecError, match=r"two: is about another task than .*one\. Judge it alone"):
        read_predictions([tmp_path / "one", tmp_path / "two"])


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.arrow"
    with pytest.raises(SpecError, match="cannot be read as predictions"):
        read_predictions([other])
    other.write_bytes(b"no arrow")
    with pytest.raises(SpecError, match="cannot be read as predictions"):
        read_predictions([other])
    with pa.OSFile(str(other), "wb") as file, pa.ipc.new_file(file, pa.schema([("task", pa.int32())])):
        pass
    with pytest.raises(SpecError, match="does not say which task"):
        read_predictions([other])
