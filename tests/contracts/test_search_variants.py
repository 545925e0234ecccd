"""The contracts of samplers, pruners, trackers and optimizers, for every one there is."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from conftest import MakeTrial
from optuna.samplers import BaseSampler
from torch import Tensor, nn

from hrm.context import LocalContext
from hrm.optim import OptimizerSpec
from hrm.optim.adam_atan2 import AdamATan2
from hrm.spec import Spec, parse_spec
from hrm.train import Training
from hrm.variants import discover
from orchestrator.schedulers import PrunerSpec
from orchestrator.search import SamplerSpec
from orchestrator.trackers import TrackerSpec

SAMPLERS = discover("orchestrator.search", SamplerSpec)
PRUNERS = discover("orchestrator.schedulers", PrunerSpec)
TRACKERS = discover("orchestrator.trackers", TrackerSpec)
OPTIMIZERS = discover("hrm.optim", OptimizerSpec)
EVERY = [*SAMPLERS.values(), *PRUNERS.values(), *TRACKERS.values(), *OPTIMIZERS.values()]
MakeContext = Callable[..., LocalContext]


def smoke(variant: type[Spec]) -> Any:
    return variant.smoke()  # type: ignore[attr-defined]


def test_what_the_house_promises_is_there() -> None:
    assert {"random", "tpe"} <= SAMPLERS.keys()
    assert {"none", "median", "successive_halving"} <= PRUNERS.keys()
    assert {"mlflow"} <= TRACKERS.keys()
    assert {"adamw", "adam_atan2"} <= OPTIMIZERS.keys()


@pytest.mark.parametrize("variant", EVERY, ids=lambda v: v.__name__)
def test_the_kind_is_the_name_of_the_file_and_the_spec_survives_json(variant: type[Spec]) -> None:
    spec = smoke(variant)
    assert spec.kind == variant.__module__.rsplit(".", 1)[-1]
    again = parse_spec(variant, json.loads(spec.model_dump_json()), "smoke")
    assert (again, again.hash()) == (spec, spec.hash())


# --- samplers --------------------------------------------------------------------------------------------------------


def study_with_trials(sampler: BaseSampler) -> optuna.Study:
    """Eight completed trials, then the sampler."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: (math.log10(parameters(trial)["rate"]) + 2) ** 2, n_trials=8)
    study.sampler = sampler
    return study


def parameters(trial: optuna.Trial) -> dict[str, Any]:
    return {
        "rate": trial.suggest_float("rate", 1e-4, 1e-1, log=True),
        "layers": trial.suggest_int("layers", 1, 4),
        "kind": trial.suggest_categorical("kind", ["a", "b", None]),
    }


def proposal(spec: SamplerSpec, seed: int) -> dict[str, Any]:
    return parameters(study_with_trials(spec.build(seed)).ask())


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_proposal_is_in_the_space_and_a_function_of_the_seed_and_the_study(kind: str) -> None:
    spec = smoke(SAMPLERS[kind])
    proposals = [proposal(spec, seed) for seed in range(6)]
    assert all(1e-4 <= p["rate"] <= 1e-1 and p["layers"] in (1, 2, 3, 4) for p in proposals)
    assert [proposal(spec, seed) for seed in range(6)] == proposals
    assert len({p["rate"] for p in proposals}) == 6


# --- pruners ---------------------------------------------------------------------------------------------------------


def reported(study: optuna.Study, values: Iterable[float]) -> optuna.Trial:
    trial = study.ask()
    for step, value in enumerate(values, 1):
        trial.report(value, step)
    return trial


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("kind", PRUNERS)
def test_a_pruner_ends_the_worst_and_spares_the_best_in_both_directions(kind: str, direction: str) -> None:
    sign = 1.0 if direction == "minimize" else -1.0
    study = optuna.create_study(direction=direction, pruner=smoke(PRUNERS[kind]).build())
    for offset in (1.0, 2.0, 3.0, 4.0):
        trial = reported(study, [sign * (offset + 1 / step) for step in (1, 2, 3, 4)])
        trial.should_prune()
        study.tell(trial, sign * offset)
    assert not reported(study, [sign * 0.1] * 4).should_prune()
    worst = reported(study, [sign * 90.0] * 4)
    assert worst.should_prune() == (kind != "none")


# --- trackers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TRACKERS)
def test_building_a_tracker_touches_nothing_and_says_how_to_look(kind: str, tmp_path: Path) -> None:
    tracker = smoke(TRACKERS[kind]).build(tmp_path / "sweeps" / "x", tmp_path)
    assert tracker.ui_command
    assert tracker.run_id("no-such-trial") == ""
    assert list(tmp_path.iterdir()) == []


# --- optimizers ------------------------------------------------------------------------------------------------------


@pytest.fixture(params=sorted(OPTIMIZERS))
def optimizer(request: pytest.FixtureRequest) -> OptimizerSpec:
    spec = smoke(OPTIMIZERS[request.param])
    assert isinstance(spec, OptimizerSpec)
    return spec


def weights(number: int = 5) -> nn.Parameter:
    return nn.Parameter(torch.linspace(-1.0, 1.5, number, dtype=torch.float64))


def gradients(steps: int, number: int = 5) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(number, generator=generator, dtype=torch.float64) for _ in range(steps)]


def test_an_optimizer_goes_downhill(optimizer: OptimizerSpec) -> None:
    parameter = weights()
    built = optimizer.model_copy(update={"learning_rate": 0.05, "weight_decay": 0.0}).build([parameter])
    for _ in range(100):
        built.zero_grad()
        ((parameter - 0.3) ** 2).sum().backward()
        built.step()
    assert float((parameter - 0.3).abs().max().detach()) < 0.1


def test_decay_is_decoupled_and_follows_the_rate(optimizer: OptimizerSpec) -> None:
    ends = []
    for decay in (0.0, 0.5):
        parameter = weights()
        built = optimizer.model_copy(update={"learning_rate": 0.1, "weight_decay": decay}).build([parameter])
        parameter.grad = torch.ones_like(parameter)
        built.step()
        ends.append(parameter.detach().clone())
    torch.testing.assert_close(ends[1] - ends[0], -0.1 * 0.5 * weights().detach())


def test_a_parameter_without_a_gradient_is_left_alone(optimizer: OptimizerSpec) -> None:
    used, unused = weights(), weights()
    built = optimizer.build([used, unused])
    used.grad = torch.ones_like(used)
    built.step()
    assert torch.equal(unused, weights())
    assert not torch.equal(used, weights())


def test_the_state_of_every_parameter_is_tensors(optimizer: OptimizerSpec) -> None:
    parameter = weights()
    built = optimizer.build([parameter])
    parameter.grad = torch.ones_like(parameter)
    built.step()
    assert built.state[parameter]
    assert all(isinstance(value, Tensor) for value in built.state[parameter].values())


def test_a_state_that_went_through_a_checkpoint_goes_on_bit_for_bit(
    optimizer: OptimizerSpec, make_trial: MakeTrial, make_context: MakeContext
) -> None:
    trial = make_trial(optimizer=optimizer.model_dump(mode="json"))
    before = Training(trial, make_context())
    for _ in range(3):
        before.step()
    before.save()
    after = Training(trial, make_context(attempt=2))
    assert after.state.progress.step == 3
    for training in (before, after):
        training.step()
        training.step()
    pairs = zip(before.state.model.named_parameters(), after.state.model.named_parameters(), strict=True)
    for (name, one), (_, two) in pairs:
        assert torch.equal(one, two), name
        states = before.state.optimizer.state[one], after.state.optimizer.state[two]
        assert states[0].keys() == states[1].keys()
        assert all(torch.equal(states[0][key], states[1][key]) for key in states[0]), name


def test_adam_atan2_is_the_formula_written_out() -> None:
    rate, beta1, beta2, decay = 0.03, 0.8, 0.9, 0.2
    parameter = weights()
    built = AdamATan2([parameter], rate, (beta1, beta2), decay)
    expected, first, second = weights().tolist(), [0.0] * 5, [0.0] * 5
    for step, gradient in enumerate(gradients(7), 1):
        parameter.grad = gradient
        built.step()
        for i, g in enumerate(gradient.tolist()):
            first[i] = beta1 * first[i] + (1 - beta1) * g
            second[i] = beta2 * second[i] + (1 - beta2) * g * g
            scale = math.sqrt(second[i] / (1 - beta2**step))
            expected[i] = expected[i] * (1 - rate * decay) - rate / (1 - beta1**step) * math.atan2(first[i], scale)
    torch.testing.assert_close(parameter.detach(), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-14)


def test_adam_atan2_does_not_feel_the_scale_of_the_gradient() -> None:
    ends = []
    for scale in (1.0, 2.0**20):
        parameter = weights()
        built = AdamATan2([parameter], 0.1)
        for gradient in gradients(4):
            parameter.grad = gradient * scale
            built.step()
        ends.append(parameter.detach().clone())
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-12, atol=0)


def test_adam_atan2_steps_a_quarter_of_pi_where_mean_and_scale_agree() -> None:
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    parameter.grad = torch.full((1,), 3.0, dtype=torch.float64)
    AdamATan2([parameter], 1.0, betas=(0.0, 0.0)).step()
    assert float(parameter.detach()) == pytest.approx(-math.pi / 4)
