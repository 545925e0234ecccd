"""The options of every recursive model: random starts, the best of several, a depth curriculum; what is refused."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import torch
from conftest import MakeTrial
from test_recursion import FAMILY, ROWS, SHAPE, Make, built, draws, hrm, looped, rows, trm, urm
from torch import Tensor

from hrm.context import LocalContext
from hrm.errors import SpecError
from hrm.evaluate import evaluate
from hrm.models import ModelSpec
from hrm.models.hrm import HRMSpec
from hrm.models.recursion import DepthStage, RecursiveSpec
from hrm.models.trm import TRMSpec
from hrm.models.urm import URMSpec
from hrm.nn.draws import Draws
from hrm.nn.halting import HaltingSpec
from hrm.nn.losses import LossTerms, cross_entropy
from hrm.segments import Carry, train_segment
from hrm.spec import parse_spec
from hrm.train import Training
from hrm.trial import refusals
from hrm.variants import discover

MakeContext = Callable[..., LocalContext]
MODELS = discover("hrm.models", ModelSpec)
every_model = pytest.mark.parametrize("make", FAMILY)


def small(make: Make, **fields: Any) -> dict[str, Any]:
    """A model for text as YAML would say it."""
    spec = make(causal=True, halting=HaltingSpec(segments=2), **fields)
    return spec.model_dump(mode="json")


@every_model
def test_a_random_start_is_normal_for_each_row_and_position(make: Make) -> None:
    state = built(make(start="random")).initial_state(64, draws(64))
    everything = torch.stack(list(state.values()))
    assert len(everything.unique()) > 0.99 * everything.numel()
    assert abs(float(everything.mean())) < 0.03
    assert abs(float(everything.std()) - 1.0) < 0.03
    assert 2.2 < float(everything.abs().max()) < 2.274  # two standard deviations of what is cut


@every_model
def test_a_random_start_is_a_function_of_seed_step_and_slot(make: Make) -> None:
    model = built(make(start="random"))
    whole = model.initial_state(8, Draws(3, 5, torch.arange(8)))
    alone = model.initial_state(1, Draws(3, 5, torch.tensor([6])))
    for name, value in alone.items():
        assert torch.equal(value[0], whole[name][6])
        for seed, step in ((4, 5), (3, 6)):
            other = model.initial_state(8, Draws(seed, step, torch.arange(8)))
            assert not torch.equal(other[name], whole[name])


@every_model
def test_a_row_is_evaluated_from_the_same_random_start_in_any_batch(
    make: Make, make_trial: MakeTrial, make_context: MakeContext
) -> None:
    fields = small(make, start="random")

    def measured(**changes: Any) -> dict[str, float]:
        training = Training(make_trial(model=fields, precision="float32"), make_context())
        trial = make_trial(model=fields, **changes)
        return evaluate(training.state.model, training.dataset, "validation", trial, training.context)

    by_three = measured(batch_size=3)
    assert measured(batch_size=5) == pytest.approx(by_three, rel=1e-6)
    assert measured(batch_size=5, seed=1)["loss"] != pytest.approx(by_three["loss"], rel=1e-4)


@pytest.mark.parametrize("rule", ["none", "q", "q_with_target"])
@every_model
def test_of_several_starts_the_one_with_the_lowest_loss_is_trained(make: Make, rule: Any) -> None:
    halting = HaltingSpec(rule=rule, segments=4)
    model = built(make(start="random", starts=4, halting=halting)).train()
    carry, batch = _filled(model), rows(ROWS)
    starts = dict(carry.state)
    scored = train_segment(model, carry, halting, LossTerms(), torch.ones(ROWS), draws())
    found = _gradients(model, scored.loss)

    each = [model.segment(_start(starts, k), batch, draws()) for k in range(4)]
    losses = torch.stack([cross_entropy(output.logits, batch["labels"], "softmax").sum(-1) for output in each])
    best = losses.argmin(0)
    assert len(best.unique()) > 1
    model.starts = 1
    winner = _filled(model)
    winner.state = {name: value[torch.arange(ROWS), best] for name, value in starts.items()}
    alone = train_segment(model, winner, halting, LossTerms(), torch.ones(ROWS), draws())
    expected = _gradients(model, alone.loss)

    assert torch.equal(scored.sums["loss"], losses.min(0).values.sum())
    assert torch.equal(scored.loss, alone.loss)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    for k, output in enumerate(each):
        for name, value in output.state.items():
            torch.testing.assert_close(carry.state[name][:, k], value, rtol=1e-4, atol=1e-5)


def _filled(model: Any) -> Carry:
    carry = Carry.empty(model, ROWS, SHAPE.sequence_length, torch.device("cpu"))
    carry.refill(model, rows(ROWS), draws())
    return carry


def _start(state: dict[str, Tensor], number: int) -> dict[str, Tensor]:
    return {name: value[:, number] for name, value in state.items()}


def _gradients(model: torch.nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_a_row_that_has_not_halted_keeps_all_of_its_starts() -> None:
    model = built(trm(start="random", starts=3))
    carry = _filled(model)
    before = dict(carry.state)
    carry.halted = torch.tensor([False, True, False])
    carry.refill(model, rows(ROWS), draws(step=2))
    for name, value in carry.state.items():
        assert value.shape == (ROWS, 3, SHAPE.sequence_length, 16)
        assert torch.equal(value[[0, 2]], before[name][[0, 2]])
        assert len(torch.cat((value[1], before[name][1])).unique(dim=0)) == 6


STAGES = (DepthStage(until=0.3, share=0.25), DepthStage(until=0.6, share=0.5))
DEPTHS: dict[Make, tuple[str, str, str]] = {
    hrm: ("LH", "LHLH", "LLHLLHLLHLLH"),
    trm: ("LH", "LLHLLH", "LLLHLLLHLLLHLLLH"),
    urm: ("L", "LLLL", "LLLLLLLLLLLL"),
    looped: ("L", "LL", "LLLL"),
}
CYCLES: dict[Make, tuple[dict[str, int], ...]] = {
    hrm: ({"H_cycles": 1, "L_cycles": 1}, {"H_cycles": 2, "L_cycles": 1}, {"H_cycles": 4, "L_cycles": 2}),
    trm: ({"H_cycles": 1, "L_cycles": 1}, {"H_cycles": 2, "L_cycles": 2}, {"H_cycles": 4, "L_cycles": 3}),
    urm: ({"H_cycles": 1, "L_cycles": 1}, {"H_cycles": 2, "L_cycles": 2}, {"H_cycles": 4, "L_cycles": 3}),
    looped: ({"cycles": 1}, {"cycles": 2}, {"cycles": 4}),
}


@every_model
def test_a_curriculum_trains_with_fewer_cycles_and_evaluates_with_all(make: Make) -> None:
    full = CYCLES[make][-1]
    model = built(make(**full, curriculum=STAGES))
    for spents, cycles, calls in zip(((0.0, 0.29), (0.3, 0.59), (0.6, 1.0)), CYCLES[make], DEPTHS[make], strict=True):
        plain = make(**cycles)
        shallow, deep = built(plain), built(make(**full)).eval()
        for spent in spents:
            model.spent = spent
            assert model.spec.calls_at(spent) == plain.calls_at(1.0)
            assert model.spec.calls_at(spent)[0] == calls
            assert model.spec.flops(SHAPE, spent) == plain.flops(SHAPE)
            assert torch.equal(_logits(model.train()), _logits(shallow.train()))
            assert torch.equal(_logits(model.eval()), _logits(deep))


def _logits(model: Any) -> Tensor:
    quiet = draws(training=False)
    logits: Tensor = model.segment(model.initial_state(ROWS, quiet), rows(), quiet).logits
    return logits


@every_model
def test_a_training_follows_its_curriculum_and_counts_its_flops(
    make: Make, make_trial: MakeTrial, make_context: MakeContext
) -> None:
    fields = small(make, **CYCLES[make][-1], curriculum=(DepthStage(until=0.5, share=0.25),))
    training = Training(make_trial(model=fields, budget={"axis": "steps", "amount": 4}), make_context())
    shape = training.dataset.shape
    costs = [make(**cycles, causal=True, halting=HaltingSpec()).flops(shape).training for cycles in CYCLES[make]]
    counted = [0.0]
    while not training.done:
        training.step()
        counted.append(training.state.progress.flops)
    assert [b - a for a, b in pairwise(counted)] == [4 * costs[k] for k in (0, 0, -1, -1)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"make": trm, "H_cycles": 2, "L_cycles": 4}, [2, 2, 3, 4, 5, 5]),
        ({"make": trm, "H_cycles": 2, "L_cycles": 4, "gradient_steps": 3}, [2, 2, 2, 2, 3, 3]),
        ({"make": hrm, "H_cycles": 2, "L_cycles": 4, "gradient_steps": 9}, [2, 3, 4, 6, 9, 9]),
        ({"make": looped, "cycles": 5}, [2, 2, 3, 4, 5, 5]),
    ],
)
def test_a_gradient_horizon_grows_with_the_share_of_the_budget_that_is_spent(
    fields: dict[str, Any], expected: list[int]
) -> None:
    make = fields.pop("make")
    spec = make(**fields, gradient_warmup_fraction=0.3)
    model = built(spec).train()
    for spent, steps in zip((0.0, 0.05, 0.1, 0.2, 0.3, 1.0), expected, strict=True):
        plain = make(**{**fields, "gradient_steps": steps})
        model.spent = spent
        assert spec.calls_at(spent) == plain.calls_at(1.0)
        assert spec.flops(SHAPE, spent) == plain.flops(SHAPE)
        assert torch.equal(_logits(model), _logits(built(plain).train()))
    assert built(spec).spent == 1.0  # an evaluation has no horizon to ask for


REFUSED = {
    "transformer: H_cycles": ({"kind": "transformer", "H_cycles": 2}, "H_cycles: there is no such field"),
    "transformer: halting": ({"kind": "transformer", "halting": {"rule": "q"}}, "halting: there is no such field"),
    "transformer: starts": ({"kind": "transformer", "starts": 2}, "starts: there is no such field"),
    "universal_transformer: H_cycles": (
        {"kind": "universal_transformer", "H_cycles": 2},
        "H_cycles: there is no such field",
    ),
    "trm: H_layers": ({"kind": "trm", "H_layers": 2}, "H_layers: there is no such field"),
    "trm: a convolution": ({"kind": "trm", "convolution": 2}, "convolution: there is no such field"),
    "urm: HRM's convolution": ({"kind": "urm", "convolution": 2}, "convolution: there is no such field"),
    "a causal mlp mixer": (
        {"kind": "trm", "mixer": "mlp", "causal": True, "positions": "none"},
        r"got causal: true and positions: none\. Set them, or mixer: attention",
    ),
    "an mlp mixer with rotary positions": (
        {"kind": "trm", "mixer": "mlp"},
        r"got causal: false and positions: rotary\. Set them, or mixer: attention",
    ),
    "several fixed starts": (
        {"kind": "hrm", "starts": 2},
        r"starts must be 1 where start is `fixed`, got 2\. Set start: random",
    ),
    "tokens of no puzzle": (
        {"kind": "trm", "puzzle_tokens": 2},
        r"puzzle_tokens must hold puzzle_embedding_size = 0 values .* got 2\. Set 0",
    ),
    "too few tokens for a puzzle": (
        {"kind": "trm", "puzzle_embedding_size": 1025, "puzzle_tokens": 2},
        r"puzzle_tokens must hold puzzle_embedding_size = 1025 values .* got 2\. Set 0",
    ),
    "stages out of order": (
        {"kind": "urm", "curriculum": [{"until": 0.5, "share": 0.5}, {"until": 0.5, "share": 1.0}]},
        r"the stages' `until` must rise, got \[0.5, 0.5\]\. Order them",
    ),
    "a horizon that has nothing to grow to": (
        {"kind": "hrm", "gradient_warmup_fraction": 0.2},
        r"gradient_warmup_fraction must be left out where 2 calls carry gradient, .* got 0\.2\. Raise gradient_steps",
    ),
    "rotary's base without rotary positions": (
        {"kind": "hrm", "positions": "learned", "rotary_theta": 500.0},
        r"rotary_theta must be left out where positions are `learned`, got 500\.0\. Set positions: rotary",
    ),
    "exploration without halting": (
        {"kind": "hrm", "halting": {"rule": "none", "exploration": 0.5}},
        r"halting: exploration must be left out where rule is `none`, got 0\.5\. Set rule: q",
    ),
}


@pytest.mark.parametrize(("fields", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_a_knob_that_means_nothing_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse_spec(MODELS[fields["kind"]], fields, "model")


@pytest.mark.parametrize("make", [HRMSpec, TRMSpec])
def test_a_horizon_that_ends_before_the_input_is_refused_for_two_states(make: type[RecursiveSpec]) -> None:
    with pytest.raises(ValueError, match="gradient_steps must be >= 2 for a model of two states"):
        make(gradient_steps=1)
    assert URMSpec(gradient_steps=1).gradient_steps == 1  # its one call reads the input


@pytest.mark.parametrize(
    ("fields", "way_out"),
    [
        ({}, "Set model.causal: true"),
        ({"mixer": "mlp", "positions": "none"}, "Set model.mixer: attention and model.causal: true"),
    ],
)
def test_the_way_to_a_causal_trm_is_one_that_can_be_gone(
    make_trial: MakeTrial, fields: dict[str, Any], way_out: str
) -> None:
    [problem] = refusals(make_trial(model={"kind": "trm", **fields}), "trial")
    assert problem.way_out == way_out
    assert not refusals(make_trial(model={"kind": "trm", "causal": True}), "trial")
