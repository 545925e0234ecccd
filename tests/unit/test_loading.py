"""A checkpoint is a model that evaluates, also after a journey through the original's format."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import MakeTrial

from hrm.checkpoint import Checkpoint, open_checkpoint
from hrm.context import LocalContext
from hrm.data.dataset import build_dataset, open_dataset
from hrm.evaluate import evaluate
from hrm.loading import load_model
from hrm.original.conversion import import_original, original_state_dict
from hrm.original.reading import read_state_dict
from hrm.tasks.sudoku import SudokuSpec
from hrm.train import train
from hrm.trial import TrialSpec

HALTING = {"rule": "q_with_target", "segments": 3}
MODELS: list[dict[str, Any]] = [
    {"kind": "hrm", "H_layers": 1, "L_layers": 1, "halting": HALTING, "positions": "learned"},
    {"kind": "trm", "puzzle_tokens": 3, "halting": {**HALTING, "rule": "q"}},
    {"kind": "urm", "num_layers": 1, "H_cycles": 1, "halting": {**HALTING, "rule": "q"}},
]
SIZES = {"hidden_size": 16, "num_heads": 2, "puzzle_embedding_size": 16}


@pytest.fixture(scope="module")
def puzzles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("puzzles")
    build_dataset(SudokuSpec.smoke(), root)
    return root


def measured(checkpoint: Checkpoint, trial: TrialSpec, context: LocalContext) -> dict[str, float]:
    dataset = open_dataset(trial.task, context.data_root)
    return evaluate(load_model(checkpoint, dataset.shape, "here"), dataset, "validation", trial, context)


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model["kind"])
def test_a_checkpoint_measures_what_its_training_reported_also_as_an_original(
    make_trial: MakeTrial, puzzles: Path, tmp_path: Path, model: dict[str, Any]
) -> None:
    task = SudokuSpec.smoke().model_dump(mode="json")
    trial = make_trial(task=task, model={**SIZES, **model}, ema=0.5, loss="stablemax", precision="float32")
    context = LocalContext(tmp_path / "trial", puzzles)
    report = next(train(trial, context))
    checkpoint = open_checkpoint(context.trial_directory / report.checkpoint)
    assert measured(checkpoint, trial, context) == report.validation

    torch.save(original_state_dict(checkpoint, checkpoint.evaluation_weights, "here"), tmp_path / "step_2")
    said = {"num_heads": 2, "halt_max_steps": 3, "loops": 3, "H_cycles": trial.model.model_dump()["H_cycles"]}
    imported = import_original(read_state_dict(tmp_path / "step_2"), {**said, "puzzle_emb_len": 3})
    assert measured(imported, trial, context) == report.validation


def test_loading_leaves_no_trace_in_the_random_numbers(
    make_trial: MakeTrial, make_context: Callable[..., LocalContext]
) -> None:
    context = make_context()
    checkpoint = open_checkpoint(context.trial_directory / next(train(make_trial(), context)).checkpoint)
    shape = open_dataset(make_trial().task, context.data_root).shape
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    load_model(checkpoint, shape, "here")
    assert torch.equal(torch.rand(3), expected)
