"""A step in parts is the step as a whole, to rounding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_HRM, MakeTrial
from small_experiment import HRM, experiment
from torch import Tensor

from hrm.context import LocalContext
from hrm.data.dataset import build_dataset
from hrm.errors import SpecError
from hrm.nn.draws import Draws
from hrm.nn.puzzle_table import PuzzleTable
from hrm.tasks.sudoku import SudokuSpec
from hrm.train import Training
from orchestrator.validation import check_built, with_data

MakeContext = Callable[..., LocalContext]
PUZZLE = SudokuSpec.smoke().model_dump(mode="json")
SMALL = {"hidden_size": 16, "num_heads": 2, "L_layers": 1}
CHANCE = {"start": "random", "damping": 0.1, "noise": 0.1, "dropout": 0.1}
EARLY = {"segments": 3, "exploration": 0.5}
CASES: dict[str, dict[str, Any]] = {
    "text": {"model": {**TINY_HRM, "dropout": 0.1, "halting": {"rule": "q_loss", "segments": 2}}, "z_loss": 0.01},
    "hrm_text": {
        "model": {"kind": "hrm_text", "hidden_size": 16, "num_heads": 2, "num_layers_per_stack": 1, "dropout": 0.1}
    },
    "hrm on puzzles": {
        "task": PUZZLE,
        "model": {"kind": "hrm", **SMALL, **CHANCE, "H_layers": 1, "halting": {"rule": "q_with_target", **EARLY}},
        "loss": "stablemax",
        "label_smoothing": 0.1,
    },
    "the best of several starts": {
        "task": PUZZLE,
        "model": {"kind": "trm", **SMALL, **CHANCE, "L_cycles": 1, "starts": 2, "halting": {"rule": "q", **EARLY}},
    },
}


def three_steps(trial: Any, context: LocalContext) -> tuple[list[dict[str, float]], dict[str, Tensor], list[Any]]:
    """The metrics of three steps, what they leave, and who halted."""
    training, halted = Training(trial, context), []
    if hasattr(training.state.model, "q_head"):  # a Q that ends some rows from the first step on
        with torch.no_grad():
            training.state.model.q_head.weight.copy_(torch.linspace(-1.0, 1.0, 32).view(16, 2).t())
            training.state.model.q_head.bias.zero_()
    for _ in range(3):
        training.step()
        halted.append(training.state.carry.halted.tolist())
    assert training.state.ema is not None
    averages = {f"average {name}": value for name, value in training.state.ema.means.items()}
    left = {**training.state.model.state_dict(), **training.state.carry.state, **averages}
    return [step.metrics for step in training.state.pending], left, halted


@pytest.mark.parametrize("fields", CASES.values(), ids=CASES.keys())
def test_parts_give_what_the_whole_batch_gives(
    make_trial: MakeTrial, make_context: MakeContext, fields: dict[str, Any]
) -> None:
    # A large epsilon: the sign of a gradient that is zero but for rounding must not decide a step
    common = {"batch_size": 7, "precision": "float32", "ema": 0.9, "clip_norm": 1.0, **fields}
    common["optimizer"] = {"kind": "adamw", "learning_rate": 0.003, "epsilon": 1e-4}
    build_dataset(make_trial(**common).task, make_context().data_root)
    whole, whole_left, whole_halted = three_steps(make_trial(**common), make_context("whole"))
    parts, parts_left, parts_halted = three_steps(make_trial(**common, accumulation=3), make_context("parts"))
    assert whole_halted == parts_halted
    for one, other in zip(whole, parts, strict=True):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-6)
    for name, value in whole_left.items():
        torch.testing.assert_close(parts_left[name], value, rtol=1e-3, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_the_sign_of_a_puzzle_row_is_that_of_its_gradient_over_all_parts() -> None:
    table = PuzzleTable(3, 2)
    for identifiers, gradients in (([0, 1], [3.0, 1.0]), ([0], [-1.0])):
        rows = table(torch.tensor(identifiers))
        (rows * torch.tensor(gradients).unsqueeze(1)).sum().backward()
    table.sign_step(0.1, 0.0)
    expected = torch.tensor([[-0.1, -0.1], [-0.1, -0.1], [0.0, 0.0]])
    assert torch.equal(table.get_buffer("weights"), expected)
    table.sign_step(0.1, 0.0)  # nothing was gathered since
    assert torch.equal(table.get_buffer("weights"), expected)


def test_a_part_of_the_slots_has_the_draws_of_the_whole() -> None:
    whole = Draws(1, 2, torch.arange(7))
    whole.uniform()
    parts = [whole.part(number, 3) for number in range(3)]
    for draw in (Draws.uniform, lambda draws: draws.normal((2,)), lambda draws: draws.spread(2).uniform()):
        expected = draw(whole)
        assert torch.equal(torch.cat([draw(part) for part in parts]), expected)


def test_more_parts_than_a_worker_has_rows_are_refused(make_trial: MakeTrial, make_context: MakeContext) -> None:
    with pytest.raises(SpecError, match="accumulation must be at most batch_size, which is 4, got 5"):
        make_trial(accumulation=5)
    context = make_context()
    context.world_size = 2
    with pytest.raises(SpecError, match=r"trial: accumulation: must be at most the rows of a worker, which are 2 \(b"):
        Training(make_trial(accumulation=3), context)


def test_an_experiment_says_before_anything_runs_that_its_workers_have_too_few_rows(tmp_path: Path) -> None:
    arms = {"plain": {"space": {"accumulation": {"choices": [1, 2, 4]}}}}
    few = experiment(tmp_path, arms=arms, resources={"workers_per_trial": 2}, space={}, base__batch_size=6)
    with pytest.raises(SpecError) as caught:
        check_built(with_data(few, tmp_path / "data"), tmp_path / "data")
    [problem] = caught.value.problems
    assert problem.place == "arms.plain: accumulation"
    assert "which are 3 (batch_size 6 over 2 workers), got 4" in problem.rule
    enough = experiment(tmp_path, arms=arms, space={}, base__batch_size=6)
    check_built(with_data(enough, tmp_path / "data"), tmp_path / "data")


def test_all_that_trains_text_can_be_searched(tmp_path: Path) -> None:
    halting = {"rule": "q_loss", "segments": 3}
    space: dict[str, Any] = {
        "label_smoothing": {"low": 0.0, "high": 0.2},
        "z_loss": {"low": 1e-5, "high": 1e-3, "log": True},
        "q_loss_weight": {"choices": [0.01, 0.5]},
        "accumulation": {"low": 1, "high": 4},
        "activation_checkpointing": {"choices": [False, True]},
        "schedule.floor_fraction": {"choices": [0.0, 0.1]},
        "model.dropout": {"low": 0.0, "high": 0.2},
        "model.tied_embeddings": {"choices": [False, True]},
    }
    own = {
        "model.gradient_warmup_fraction": {"low": 0.0, "high": 0.5},
        "model.halting.tolerance": {"choices": [0.01, 0.1]},
    }
    base = {**HRM, "halting": halting, "gradient_steps": 3}
    arms = {
        "plain": {"space": own},
        "hrm_text": {"patch": {"model": {"kind": "hrm_text", "hidden_size": 16, "num_heads": 2}}},
    }
    found = experiment(tmp_path, base__model=base, arms=arms, space=space, schedule=None)
    high = {path: dimension.probes()[1][1] for path, dimension in found.arms[0].space.items()}
    trial = found.arms[0].trial(high, 0)
    assert (trial.label_smoothing, trial.accumulation, trial.activation_checkpointing) == (0.2, 4, True)
    assert trial.model.halting_rule().tolerance == 0.1
