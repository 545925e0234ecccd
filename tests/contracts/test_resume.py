"""Every model, with every option that has a state or a time of its own, resumes exactly."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from conftest import MakeTrial

from hrm.checkpoint import read_checkpoint
from hrm.context import LocalContext
from hrm.data.dataset import build_dataset
from hrm.models import ModelSpec
from hrm.records import Report
from hrm.tasks.red_team import RedTeamSpec
from hrm.tasks.sudoku import SudokuSpec
from hrm.train import StopRequested, train
from hrm.trial import TrialSpec
from hrm.variants import discover

PUZZLE = SudokuSpec.smoke().model_dump(mode="json")
PROMPTS = {**RedTeamSpec.smoke().model_dump(mode="json"), "prompt_turns": 2}
WITH_Q = {"hidden_size": 16, "num_heads": 2, "puzzle_embedding_size": 16, "halting": {"rule": "q", "segments": 3}}
RANDOM = {"start": "random", "starts": 2, "damping": 0.1, "noise": 0.1, "dropout": 0.1}
STAGES = [{"until": 0.4, "share": 0.5}]
ATAN2 = {"kind": "adam_atan2", "learning_rate": 1e-3}
MODELS = cast("dict[str, type[ModelSpec]]", discover("hrm.models", ModelSpec))
CASES: dict[str, dict[str, Any]] = {kind: {"model": MODELS[kind].smoke().model_dump(mode="json")} for kind in MODELS}
CASES |= {
    "hrm_text with prompts": {"task": PROMPTS, "model": CASES["hrm_text"]["model"]},
    "trm that halts, with all kinds of chance": {
        "task": PUZZLE,
        "model": {"kind": "trm", "L_layers": 1, "H_cycles": 2, "L_cycles": 1, **WITH_Q, **RANDOM},
        "ema": 0.9,
    },
    "urm with a depth curriculum": {
        "task": PUZZLE,
        "model": {"kind": "urm", "num_layers": 1, "H_cycles": 1, "L_cycles": 2, **WITH_Q, "curriculum": STAGES},
        "optimizer": ATAN2,
    },
    "hrm with a Q of positions": {"model": {**CASES["hrm"]["model"], "halting": {"rule": "q_loss", "segments": 3}}},
    "hrm_text in parts, recomputed, with dropout and all terms of the loss": {
        "model": {**CASES["hrm_text"]["model"], "dropout": 0.1, "tied_embeddings": True},
        "accumulation": 3,
        "activation_checkpointing": True,
        "label_smoothing": 0.1,
        "z_loss": 1e-3,
        "ema": 0.9,
    },
    "the original's order of rows": {
        "task": PUZZLE,
        "model": {"kind": "hrm", "H_layers": 1, "L_layers": 1, **WITH_Q},
        "optimizer": ATAN2,
        "loss": "stablemax",
        "sampling": "original",
    },
}


def run(trial: TrialSpec, context: LocalContext, known: int, stop_after: int | None = None) -> list[Report]:
    """The reports; with `stop_after` the training is stopped a step after that many."""
    reports, generator = [], train(trial, context, known_reports=known)
    for report in generator:
        reports.append(report)
        if len(reports) == stop_after:
            context.stop.set()
            with pytest.raises(StopRequested):
                next(generator)
            break
    return reports


@pytest.mark.parametrize("fields", CASES.values(), ids=CASES.keys())
def test_a_stopped_and_resumed_training_equals_one_that_was_not(
    make_trial: MakeTrial, make_context: Callable[..., LocalContext], fields: dict[str, Any]
) -> None:
    trial = make_trial(**fields)
    build_dataset(trial.task, make_context().data_root)
    whole = run(trial, make_context("whole"), 0)
    parts = run(trial, make_context("parts"), 0, stop_after=2)
    parts += run(trial, make_context("parts", attempt=2), 2)
    assert [r.index for r in parts] == [1, 2, 3, 4]
    assert [s.metrics for r in parts for s in r.steps] == [s.metrics for r in whole for s in r.steps]
    assert [s.progress.flops for r in parts for s in r.steps] == [s.progress.flops for r in whole for s in r.steps]
    assert [r.validation for r in parts] == [r.validation for r in whole]
    one, other = (
        read_checkpoint(make_context(name).trial_directory / reports[-1].checkpoint)
        for name, reports in (("whole", whole), ("parts", parts))
    )
    for ours, theirs in ((one.model, other.model), (one.training, other.training), (one.ema or {}, other.ema or {})):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
