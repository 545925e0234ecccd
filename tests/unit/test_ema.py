"""The average of the weights: its formula, what it is used for, and that the training never feels it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from conftest import TINY_HRM, MakeTrial, run
from torch import Tensor, nn

from hrm.checkpoint import Checkpoint, DamagedCheckpointError, read_checkpoint
from hrm.context import LocalContext
from hrm.ema import EMA
from hrm.errors import SpecError
from hrm.evaluate import evaluate
from hrm.models.hrm import HRMSpec
from hrm.tasks import TaskShape
from hrm.train import Training
from hrm.trial import TrialSpec

MakeContext = Callable[..., LocalContext]


def weights(training: Training) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in training.state.model.state_dict().items()}


def metrics(trial: TrialSpec, context: LocalContext, held: dict[str, Tensor], split: str) -> dict[str, float]:
    """Of a fresh model that holds these weights."""
    training = Training(trial, context)
    training.state.model.load_state_dict(held)
    return evaluate(training.state.model, training.dataset, split, trial, context)


def equal(one: dict[str, Tensor], two: dict[str, Tensor], names: Iterable[str] | None = None) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in names or one)


def test_the_average_is_its_formula_from_the_initial_weights_on(
    make_trial: MakeTrial, make_context: MakeContext
) -> None:
    training = Training(make_trial(ema=0.75, optimizer={"kind": "adamw", "learning_rate": 0.05}), make_context())
    assert training.state.ema is not None
    expected = {name: p.detach().double().clone() for name, p in training.state.model.named_parameters()}
    for _ in range(5):
        training.step()
        for name, parameter in training.state.model.named_parameters():
            expected[name] = 0.75 * expected[name] + 0.25 * parameter.detach().double()
    for name, mean in training.state.ema.means.items():
        assert mean.dtype == torch.float32
        torch.testing.assert_close(mean.double(), expected[name], rtol=1e-6, atol=1e-7)


def test_puzzle_table_and_initial_states_are_not_averaged() -> None:
    spec = HRMSpec(hidden_size=16, num_heads=2, H_layers=1, L_layers=1, puzzle_embedding_size=16)
    model = spec.build(TaskShape(13, 10, 4))
    assert EMA(model, 0.9).means.keys() == dict(model.named_parameters()).keys()
    assert {"puzzle_emb.weights", "H_init", "L_init"} == model.state_dict().keys() - EMA(model, 0.9).means.keys()


def test_a_tied_weight_is_averaged_under_both_of_its_names() -> None:
    model = nn.Module()
    model.one = model.two = nn.Linear(2, 2, bias=False)
    average = EMA(model, 0.5)
    with torch.no_grad():
        model.one.weight.add_(1.0)
    average.update()
    assert average.means.keys() == model.state_dict().keys()
    assert torch.equal(average.means["one.weight"], average.means["two.weight"])


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_report_measures_the_average_and_not_the_weights(
    make_trial: MakeTrial, make_context: MakeContext, precision: str
) -> None:
    trial, context = make_trial(ema=0.9, precision=precision), make_context()
    reports, _ = run(trial, context)
    for report in reports[-2:]:
        checkpoint = read_checkpoint(context.trial_directory / report.checkpoint)
        average, raw = checkpoint.evaluation_weights, checkpoint.model
        assert report.validation == metrics(trial, make_context("average"), average, "validation")
        assert report.validation != metrics(trial, make_context("raw"), raw, "validation")


def test_the_training_does_not_feel_the_average(make_trial: MakeTrial, make_context: MakeContext) -> None:
    with_average, _ = run(make_trial(ema=0.9), make_context("with"))
    without, _ = run(make_trial(), make_context("without"))
    for one, two in zip(with_average, without, strict=True):
        assert [step.metrics for step in one.steps] == [step.metrics for step in two.steps]
        assert one.validation != two.validation


def test_an_evaluation_leaves_the_weights_bit_for_bit(make_trial: MakeTrial, make_context: MakeContext) -> None:
    training = Training(make_trial(ema=0.9), make_context())
    training.step()
    before = weights(training)
    training.report()
    assert equal(before, weights(training))
    with pytest.raises(RuntimeError, match="broken"):
        _break_in_the_middle(training, before)
    assert equal(before, weights(training))


def _break_in_the_middle(training: Training, before: dict[str, Tensor]) -> None:
    with training.state.with_evaluation_weights():
        assert not equal(before, weights(training))
        raise RuntimeError("broken")


@pytest.mark.parametrize("damaged", [False, True])
def test_the_test_split_is_measured_with_the_average_of_the_best_checkpoint_or_the_last_if_that_is_damaged(
    make_trial: MakeTrial, make_context: MakeContext, damaged: bool
) -> None:
    trial, context = make_trial(ema=0.9), make_context()
    training = Training(trial, context)
    training.step()
    training.report()
    training.checkpoints.wait()
    best = training.state.best
    assert best is not None
    path = context.trial_directory / best.checkpoint
    held = read_checkpoint(path).evaluation_weights
    training.step()
    if damaged:
        held = training.state.save(context, {}).evaluation_weights
        _flip_a_byte(path / "ema.safetensors")
    found, expected = training.finish(test=True).test, metrics(trial, make_context("fresh"), held, "test")
    assert found is not None
    assert {name: found[name] for name in expected} == expected


def test_the_best_checkpoint_is_the_best_by_the_average(make_trial: MakeTrial, make_context: MakeContext) -> None:
    reports, result = run(make_trial(ema=0.9), make_context())
    assert result.best_validation["loss"] == min(r.validation["loss"] for r in reports)


def test_the_checkpoint_holds_weights_and_average_apart_and_verifies_both(
    make_trial: MakeTrial, make_context: MakeContext
) -> None:
    context = make_context()
    reports, _ = run(make_trial(ema=0.9), context)
    path = context.trial_directory / reports[-1].checkpoint
    files = json.loads((path / "manifest.json").read_text())["files"]
    assert set(files) == {"model.safetensors", "ema.safetensors", "training.safetensors", "state.json"}
    checkpoint = read_checkpoint(path)
    assert checkpoint.ema is not None
    assert checkpoint.evaluation_weights.keys() == checkpoint.model.keys()
    assert all(torch.equal(checkpoint.evaluation_weights[n], checkpoint.model[n]) for n in ("H_init", "L_init"))
    assert not any(torch.equal(mean, checkpoint.model[name]) for name, mean in checkpoint.ema.items() if "mlp" in name)
    _flip_a_byte(path / "ema.safetensors")
    with pytest.raises(DamagedCheckpointError, match=r"ema\.safetensors"):
        read_checkpoint(path)


def test_without_an_average_the_weights_are_what_is_evaluated() -> None:
    held = {"weight": torch.ones(2)}
    assert Checkpoint(held, {}, {}, {}).evaluation_weights == held


def test_a_start_from_a_checkpoint_without_an_average_begins_it_at_the_weights(
    make_trial: MakeTrial, make_context: MakeContext
) -> None:
    plain = Training(make_trial(), make_context("plain"))
    plain.step()
    averaging = Training(make_trial(ema=0.9), make_context("averaging"))
    averaging.state.take_weights(plain.state.save(plain.context, {}))
    assert averaging.state.ema is not None
    parameters = {name: p.detach() for name, p in plain.state.model.named_parameters()}
    assert equal(averaging.state.ema.means, parameters)


@pytest.mark.parametrize("decay", [0.0, 1.0])
def test_a_decay_that_averages_nothing_is_refused(make_trial: MakeTrial, decay: float) -> None:
    with pytest.raises(SpecError, match=r"trial: ema: must be [<>] "):
        make_trial(model=TINY_HRM, ema=decay)


def _flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
