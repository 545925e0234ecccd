"""The recursive models against their formulas (`naive_family`), and each option that applies to all of them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from naive_family import Naive
from torch import Tensor

from hrm.models.hrm import HRMSpec
from hrm.models.recursion import RecursiveModel, RecursiveSpec
from hrm.models.transformer import TransformerSpec
from hrm.models.trm import TRMSpec
from hrm.models.universal_transformer import UniversalTransformerSpec
from hrm.models.urm import URMSpec
from hrm.nn.draws import Draws
from hrm.nn.halting import HaltingSpec
from hrm.tasks import TaskShape

ROWS, SHAPE = 3, TaskShape(vocab_size=13, sequence_length=7, num_puzzle_identifiers=4)
SMALL: dict[str, Any] = {"hidden_size": 16, "num_heads": 2, "halting": HaltingSpec(rule="q", segments=4)}


def hrm(**fields: Any) -> HRMSpec:
    return HRMSpec(**{**SMALL, "H_layers": 1, "L_layers": 2, **fields})


def trm(**fields: Any) -> TRMSpec:
    return TRMSpec(**{**SMALL, "L_layers": 2, "H_cycles": 2, "L_cycles": 3, **fields})


def urm(**fields: Any) -> URMSpec:
    return URMSpec(**{**SMALL, "num_layers": 2, "H_cycles": 2, "L_cycles": 3, **fields})


def looped(**fields: Any) -> UniversalTransformerSpec:
    return UniversalTransformerSpec(**{**SMALL, "num_layers": 2, "cycles": 3, **fields})


FAMILY = [hrm, trm, urm, looped]
Make = Callable[..., RecursiveSpec]
SPECS = {
    "hrm": hrm(),
    "hrm, a puzzle table wider than a position": hrm(puzzle_embedding_size=24),
    "hrm for text": hrm(causal=True, convolution=3),
    "hrm with learned positions": hrm(positions="learned", H_cycles=3, L_cycles=1),
    "trm": trm(puzzle_embedding_size=16, puzzle_tokens=3),
    "trm with an mlp mixer": trm(mixer="mlp", positions="none", puzzle_embedding_size=10),
    "trm with an mlp mixer and positions": trm(mixer="mlp", positions="learned"),
    "urm": urm(),
    "urm with a puzzle table": urm(puzzle_embedding_size=16, rotary_theta=100.0),
    "urm, causal, longer convolution": urm(gated_convolution=3, causal=True),
    "urm without a convolution": urm(gated_convolution=0),
    "universal transformer": looped(),
    "universal transformer without positions": looped(positions="none", puzzle_embedding_size=5),
} | {
    f"{make.__name__} with {option}": make(puzzle_embedding_size=16, **fields)
    for make in FAMILY
    for option, fields in {
        "damping and noise": {"damping": 0.3, "noise": 0.2},
        "gradient in the last two calls": {"gradient_steps": 2},
        "gradient in the last three": {"gradient_steps": 3},
        "gradient everywhere": {"gradient_steps": 99},
    }.items()
}
every_spec = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
every_model = pytest.mark.parametrize("make", FAMILY)


def built(spec: RecursiveSpec) -> RecursiveModel:
    """With a Q head and puzzle vectors that say something."""
    torch.manual_seed(0)
    model = spec.build(SHAPE)
    assert isinstance(model, RecursiveModel)
    with torch.no_grad():
        model.q_head.weight.normal_()
        if model.puzzle_emb is not None:
            model.puzzle_emb.get_buffer("weights").normal_()
    return model


def rows(count: int = ROWS) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    size = (count, SHAPE.sequence_length)
    tokens = torch.randint(SHAPE.vocab_size, (2, *size), generator=generator)
    return {"inputs": tokens[0], "labels": tokens[1], "puzzle_identifiers": torch.arange(count) % 3}


def draws(count: int = ROWS, step: int = 1, training: bool = True) -> Draws:
    return Draws(0, step, torch.arange(count), training)


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.detach() - expected.detach()).norm() / expected.detach().norm())


@every_spec
def test_an_evaluation_follows_the_formula_segment_after_segment(spec: RecursiveSpec) -> None:
    model = built(spec).eval()
    naive, quiet = Naive(model), draws(training=False)
    state = naive.start(ROWS, model.length)
    for name, value in model.initial_state(ROWS, quiet).items():
        assert torch.equal(value.double(), state[name])
    for _ in range(3):
        with torch.no_grad():
            output = model.segment({name: value.float() for name, value in state.items()}, rows(), quiet)
            state, logits, q = naive.segment(state, rows())
        assert output.q is not None
        assert error(output.logits, logits) < 1e-5
        assert error(output.q, q) < 1e-5
        for name, value in output.state.items():
            assert error(value, state[name]) < 1e-5


@every_spec
def test_the_gradients_of_a_training_follow_the_formula(spec: RecursiveSpec) -> None:
    """In float64: in float32 the rounding of a processor's own order of sums comes up to the bar."""
    model = built(spec).train()
    model.compute_dtype = torch.float64
    naive, batch = Naive(model), rows()
    output = model.segment(model.initial_state(ROWS, draws()), batch, draws())
    shape, again = (model.length, spec.hidden_size), draws()
    _, logits, q = naive.segment(naive.start(ROWS, model.length), batch, (again.normal(shape) for _ in repeat(0)))
    assert output.q is not None
    assert error(output.logits, logits) < 1e-5
    (F.cross_entropy(output.logits.flatten(0, 1), batch["labels"].flatten()) + output.q.sum()).backward()
    (F.cross_entropy(logits.flatten(0, 1), batch["labels"].flatten()) + q.sum()).backward()
    for name, parameter in model.named_parameters():
        expected = naive.weights[name].grad
        assert (parameter.grad is None) == (expected is None), name
        if parameter.grad is not None and expected is not None:
            assert error(parameter.grad, expected) < 1e-5, name


def test_a_transformer_is_one_call_of_a_looped_one_from_nothing() -> None:
    looping = built(looped(cycles=1, causal=True, halting=HaltingSpec())).eval()
    plain = TransformerSpec(hidden_size=16, num_heads=2, num_layers=2, causal=True).build(SHAPE).eval()
    weights = {name.replace("level.", "stack."): value for name, value in looping.state_dict().items()}
    plain.load_state_dict({name: weights[name] for name in plain.state_dict()})
    nothing = {"h": torch.zeros(ROWS, SHAPE.sequence_length, 16)}
    assert torch.equal(plain.segment({}, rows(), draws()).logits, looping.segment(nothing, rows(), draws()).logits)


@every_spec
def test_the_next_q_is_that_of_a_whole_segment(spec: RecursiveSpec) -> None:
    spec = spec.model_copy(update={"halting": spec.halting.model_copy(update={"rule": "q", "segments": 2})})
    model, quiet = built(spec).eval(), draws(training=False)
    state = model.initial_state(ROWS, quiet)
    with torch.no_grad():
        q, expected = model.next_q(state, rows(), quiet), model.segment(state, rows(), quiet).q
    assert q is not None
    assert expected is not None
    torch.testing.assert_close(q, expected, rtol=1e-5, atol=1e-5)
