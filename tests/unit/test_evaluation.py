"""`checkpoint evaluate`: the metrics that the training reported, for our checkpoints and for imported ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import MakeTrial

from hrm.context import LocalContext
from hrm.data.dataset import build_dataset
from hrm.tasks.red_team import RedTeamSpec
from hrm.tasks.sudoku import SudokuSpec
from hrm.train import train
from orchestrator.cli import main

HRM = {"kind": "hrm", "hidden_size": 16, "num_heads": 2, "H_layers": 1, "L_layers": 1, "puzzle_embedding_size": 16}
HALTING = {"rule": "q_with_target", "segments": 3}
Said = Callable[..., tuple[int, dict[str, object]]]


@pytest.fixture
def said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    def call(*arguments: object) -> tuple[int, dict[str, object]]:
        capsys.readouterr()
        code = main(["checkpoint", *map(str, arguments), "--storage", str(tmp_path), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return call


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_checkpoint_measures_what_its_training_reported_and_so_does_its_import(
    make_trial: MakeTrial, tmp_path: Path, said: Said, precision: str
) -> None:
    task = SudokuSpec.smoke().model_dump(mode="json")
    fields = {"precision": precision, "ema": 0.5, "loss": "stablemax", "batch_size": 8}
    trial = make_trial(task=task, model={**HRM, "halting": HALTING}, **fields)
    build_dataset(trial.task, tmp_path / "data")
    context = LocalContext(tmp_path / "trial", tmp_path / "data")
    report = next(train(trial, context))
    folder = context.trial_directory / report.checkpoint
    threads = torch.get_num_threads()
    try:
        code, facts = said("evaluate", folder)
        assert code == 0
        assert facts["metrics"] == pytest.approx(report.validation, rel=1e-6)
        assert said("evaluate", folder, "--split", "test")[1]["metrics"] != facts["metrics"]

        said("export", folder, "--output", tmp_path / "step_2")
        told = ("num_heads=2", "halt_max_steps=3", "global_batch_size=8", f"forward_dtype={precision}")
        options = [part for setting in told for part in ("--set", setting)]
        said("import", tmp_path / "step_2", "--output", tmp_path / "imported", *options)
        code, problems = said("evaluate", tmp_path / "imported")
        assert code == 2
        assert "Give --task" in json.dumps(problems)
        (tmp_path / "recipe.yaml").write_text(json.dumps(task))
        code, facts = said("evaluate", tmp_path / "imported", "--task", tmp_path / "recipe.yaml")
        assert code == 0
        assert facts["metrics"] == pytest.approx(report.validation, rel=1e-6)
    finally:
        torch.set_num_threads(threads)


def test_a_task_that_the_checkpoint_does_not_fit_is_refused(
    make_trial: MakeTrial, make_context: Callable[..., LocalContext], tmp_path: Path, said: Said
) -> None:
    context = make_context()
    folder = context.trial_directory / next(train(make_trial(), context)).checkpoint
    code, problems = said("evaluate", folder, "--task", "sudoku_4x")
    assert code == 2
    assert "sudoku_4x4" in json.dumps(problems)
    other = {**RedTeamSpec.smoke().model_dump(mode="json"), "phrasings": 3}
    (tmp_path / "other.yaml").write_text(json.dumps(other))
    code, problems = said("evaluate", folder, "--task", tmp_path / "other.yaml")
    assert code == 2
    assert "Evaluate it on the task that it was trained on" in json.dumps(problems)
