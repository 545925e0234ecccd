"""What every optimizer must keep, whatever file it is in: on a real model, whose parameters fall into all groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast, get_args

import pytest
import torch
from conftest import MakeTrial
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import Optimizer

from hrm.context import LocalContext
from hrm.models import Model, ModelSpec
from hrm.models.hrm import HRMSpec
from hrm.nn.layers import Linear
from hrm.optim import Group, OptimizerSpec, group_of, scale_rates
from hrm.tasks import TaskShape
from hrm.train import Training
from hrm.variants import discover

MakeContext = Callable[..., LocalContext]
SHAPE = TaskShape(vocab_size=13, sequence_length=10, next_token=True)
OPTIMIZERS = cast("dict[str, type[OptimizerSpec]]", discover("hrm.optim", OptimizerSpec))
MODELS = cast("dict[str, type[ModelSpec]]", discover("hrm.models", ModelSpec))
NO_DECAY = {"weight_decay": 0.0, "embedding_weight_decay": 0.0, "vector_weight_decay": 0.0}


@pytest.fixture(params=sorted(OPTIMIZERS))
def spec(request: pytest.FixtureRequest) -> OptimizerSpec:
    return OPTIMIZERS[request.param].smoke()


def fresh_model() -> Model:
    torch.manual_seed(0)
    model = HRMSpec.smoke().build(SHAPE)
    with torch.no_grad():
        model.q_head.weight.normal_()  # zero at the start: a decay of it would not be seen
    assert {group_of(*named) for named in model.named_parameters()} == set(get_args(Group))
    return model


def set_gradients(model: Model, seed: int = 0) -> None:
    torch.manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)


def values(model: Model) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def after_one_step(spec: OptimizerSpec, **changes: Any) -> tuple[dict[str, Tensor], Optimizer]:
    model = fresh_model()
    optimizer = spec.model_copy(update=changes).build(model)
    set_gradients(model)
    optimizer.step()
    return values(model), optimizer


def test_every_parameter_goes_to_the_bottom_of_a_bowl(spec: OptimizerSpec) -> None:
    model = fresh_model()
    optimizer = spec.model_copy(update=NO_DECAY).build(model)
    bottom = {name: value + 0.05 * torch.randn_like(value).sign() for name, value in values(model).items()}
    for step in range(200):
        scale_rates(optimizer, 1.0 - step / 200)
        for name, parameter in model.named_parameters():
            parameter.grad = 2 * (parameter.detach() - bottom[name])
        optimizer.step()
    far = {name: float((value - bottom[name]).abs().mean()) for name, value in values(model).items()}
    assert all(distance < 0.01 for distance in far.values()), far


def test_a_schedule_factor_of_zero_moves_nothing(spec: OptimizerSpec) -> None:
    model = fresh_model()
    optimizer = spec.build(model)
    set_gradients(model)
    scale_rates(optimizer, 0.0)
    optimizer.step()
    before = values(fresh_model())
    assert all(torch.equal(value, before[name]) for name, value in values(model).items())


def test_the_factor_scales_each_group_from_its_own_peak(spec: OptimizerSpec) -> None:
    optimizer = spec.build(fresh_model())
    for factor in (0.5, 0.25):  # from the peak, not from the last rate
        scale_rates(optimizer, factor)
        assert {g["name"]: g["lr"] for g in optimizer.param_groups} == {
            group: factor * spec.peak(group) for group in get_args(Group)
        }


@pytest.mark.parametrize(
    ("decays", "hit"),
    [
        ({"embedding_weight_decay": 0.5}, {"embeddings"}),
        ({"vector_weight_decay": 0.5}, {"vectors"}),
        ({"weight_decay": 0.5}, {"matrices"}),
        (dict.fromkeys(NO_DECAY) | {"weight_decay": 0.5}, set(get_args(Group))),
    ],
)
def test_decay_is_decoupled_and_hits_exactly_the_groups_that_are_named(
    spec: OptimizerSpec, decays: dict[str, Any], hit: set[Group]
) -> None:
    without, _ = after_one_step(spec, **NO_DECAY)
    decayed, optimizer = after_one_step(spec, **(NO_DECAY | decays))
    model = fresh_model()
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    for name, parameter in model.named_parameters():
        group = group_of(name, parameter)
        if group in hit:
            expected = -rates[group] * 0.5 * parameter.detach()
            torch.testing.assert_close(decayed[name] - without[name], expected, rtol=1e-3, atol=3e-7)
        else:
            assert torch.equal(decayed[name], without[name]), name


def test_a_parameter_without_a_gradient_is_left_alone(spec: OptimizerSpec) -> None:
    model = fresh_model()
    optimizer = spec.build(model)
    set_gradients(model)
    unused = {name for number, (name, _) in enumerate(model.named_parameters()) if number % 2}
    for name, parameter in model.named_parameters():
        parameter.grad = None if name in unused else parameter.grad
    optimizer.step()
    before = values(fresh_model())
    assert {name for name, value in values(model).items() if torch.equal(value, before[name])} == unused


def test_the_state_of_every_parameter_is_tensors(spec: OptimizerSpec) -> None:
    _, optimizer = after_one_step(spec)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert all(optimizer.state[parameter] for parameter in parameters)
    assert all(isinstance(v, Tensor) for parameter in parameters for v in optimizer.state[parameter].values())


def test_a_step_asks_no_value_of_the_device(spec: OptimizerSpec) -> None:
    with FakeTensorMode():  # has no values: reading one raises
        after_one_step(spec)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_state_that_went_through_a_checkpoint_goes_on_bit_for_bit(
    spec: OptimizerSpec, precision: str, make_trial: MakeTrial, make_context: MakeContext
) -> None:
    model = HRMSpec.smoke().model_dump(mode="json")
    trial = make_trial(model=model, optimizer=spec.model_dump(mode="json"), precision=precision, ema=0.9)
    before = Training(trial, make_context())
    for _ in range(3):
        before.step()
    before.save()
    before.checkpoints.wait()
    after = Training(trial, make_context(attempt=2))
    assert after.state.progress.step == 3
    for training in (before, after):
        training.step()
        training.step()
    one, two = (training.state.save(training.context, {}) for training in (before, after))
    for mine, theirs in ((one.model, two.model), (one.training, two.training), (one.ema, two.ema)):
        assert mine is not None
        assert theirs is not None
        assert mine.keys() == theirs.keys()
        assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_the_matrices_of_a_model_are_the_weights_of_its_hidden_linear_maps(kind: str) -> None:
    model = MODELS[kind].smoke().build(SHAPE)
    linear = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, Linear)}
    hidden = {name for name in linear if not {"lm_head", "q_head"} & set(name.split("."))}
    assert {name for name, p in model.named_parameters() if group_of(name, p) == "matrices"} == hidden
