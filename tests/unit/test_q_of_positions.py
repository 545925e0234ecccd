"""The Q of causal text: every position learns whether its loss is near its loss at full depth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import TINY_HRM, MakeTrial, run
from torch import Tensor

from hrm.context import LocalContext
from hrm.errors import SpecError
from hrm.models.hrm import HRM, HRMSpec
from hrm.models.trm import TRMSpec
from hrm.nn.draws import Draws
from hrm.nn.halting import HaltingSpec, halted_rows
from hrm.nn.losses import LossTerms, cross_entropy
from hrm.segments import Carry, Scored, train_segment
from hrm.spec import parse_spec
from hrm.tasks import IGNORE, TaskShape
from hrm.tasks.sudoku import SudokuSpec
from hrm.trial import refusals

MakeContext = Callable[..., LocalContext]
SHAPE = TaskShape(vocab_size=13, sequence_length=10, next_token=True)
HALTING = HaltingSpec(rule="q_loss", segments=4, tolerance=0.02)
SIZE: dict[str, Any] = {"hidden_size": 16, "num_heads": 2, "causal": True, "halting": HALTING}
ROWS = 3


def built(**fields: Any) -> HRM:
    torch.manual_seed(0)
    model = HRMSpec(**SIZE, H_layers=1, L_layers=1, **fields).build(SHAPE)
    with torch.no_grad():
        model.q_head.weight.normal_(std=0.3)
    return model


def batch(seed: int = 1) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    inputs, labels = (torch.randint(13, (ROWS, 10), generator=generator) for _ in range(2))
    labels[:, :2] = IGNORE
    return {"inputs": inputs, "labels": labels, "puzzle_identifiers": torch.zeros(ROWS, dtype=torch.int64)}


def draws(step: int = 1) -> Draws:
    return Draws(0, step, torch.arange(ROWS))


def at_different_segments(model: HRM) -> Carry:
    """Row 0 has had no segment, row 1 one, row 2 three, of which the fourth is its last."""
    carry = Carry.empty(model, ROWS, 10, torch.device("cpu"))
    carry.refill(model, batch(), draws())
    states = [carry.state]
    for _ in range(3):
        states.append(model.segment(states[-1], carry.rows, draws()).state)
    picked = {name: torch.stack([states[n][name][row] for row, n in enumerate((0, 1, 3))]) for name in carry.state}
    carry.state = {name: value.detach() for name, value in picked.items()}
    carry.segments = torch.tensor([0, 1, 3], dtype=torch.int32)
    carry.halted = torch.zeros(ROWS, dtype=torch.bool)
    return carry


def one_step(model: HRM, terms: LossTerms, weight: Tensor) -> tuple[Scored, dict[str, Tensor]]:
    scored = train_segment(model, at_different_segments(model), HALTING, terms, weight, draws())
    model.zero_grad()
    scored.loss.backward()  # type: ignore[no-untyped-call]
    return scored, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_what_a_position_learns_is_what_a_naive_computation_of_all_segments_says() -> None:
    model, weight = built(), torch.tensor([1.0, 0.5, 2.0])
    scored, found = one_step(model, LossTerms(q_weight=0.1), weight)

    carry = at_different_segments(model)
    labels, rows = carry.rows["labels"], carry.rows
    now = model.segment(carry.state, rows, draws())
    nats = cross_entropy(now.logits, labels, "softmax")
    targets = torch.zeros(ROWS, 10)
    for row, done in enumerate((0, 1, 3)):
        state = {name: value.detach() for name, value in now.state.items()}
        last = nats
        for _ in range(HALTING.segments - done - 1):
            output = model.segment(state, rows, draws())
            state, last = output.state, cross_entropy(output.logits, labels, "softmax")
        targets[row] = (nats[row] <= last[row] + HALTING.tolerance).float()
    assert targets[2].all()  # its last segment is full depth
    assert 0 < targets[:2, 2:].mean() < 1
    assert now.q_positions is not None
    by_position = F.binary_cross_entropy_with_logits(now.q_positions, targets, reduction="none") * (labels != IGNORE)
    q_loss = (by_position.sum(-1) * weight).sum()
    loss = (nats.sum(-1) * weight).sum() + 0.1 * q_loss
    torch.testing.assert_close(scored.loss, loss)
    torch.testing.assert_close(scored.sums["q_position_loss"], q_loss.detach())
    right = ((now.q_positions >= 0) == targets.bool()) & (labels != IGNORE)
    assert scored.sums["q_position_correct"] == right.sum()
    assert scored.sums["q_position_enough"] == (targets.bool() & (labels != IGNORE)).sum()
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)


def test_the_weight_of_the_q_loss_scales_it_alone() -> None:
    model, weight = built(), torch.ones(ROWS)
    with_q, without = (one_step(model, LossTerms(q_weight=w), weight)[0] for w in (0.01, 0.0))
    assert with_q.sums["loss"] == without.sums["loss"] == without.loss
    torch.testing.assert_close(with_q.loss, without.loss + 0.01 * with_q.sums["q_position_loss"])


def test_a_position_says_the_same_whatever_follows_it() -> None:
    model, rows = built().eval(), batch()
    changed = {**rows, "inputs": rows["inputs"].clone()}
    changed["inputs"][:, 6] += 1
    changed["inputs"] %= 13
    with torch.no_grad():
        one, other = (
            model.segment(model.initial_state(ROWS, draws()), r, draws()).q_positions for r in (rows, changed)
        )
    assert one is not None
    assert other is not None
    assert (one.shape, one.dtype) == ((ROWS, 10), torch.float32)
    assert torch.equal(one[:, :6], other[:, :6])
    assert not torch.equal(one[:, 6:], other[:, 6:])


def test_rows_take_all_segments_and_start_undecided() -> None:
    ended = halted_rows(HALTING, None, torch.tensor([1, 3, 4]), draws())
    assert ended.tolist() == [False, False, True]
    model = HRMSpec(**SIZE).build(SHAPE)
    assert model.q_head.bias is not None
    assert not model.q_head.bias.any()


def test_the_q_learns_which_positions_need_no_further_segment() -> None:
    """Better than the more frequent answer, from which no constant could tell it."""
    model = built(L_cycles=1)
    optimizer = torch.optim.Adam(model.q_head.parameters(), lr=0.1)
    for _ in range(60):
        carry = at_different_segments(model)
        scored = train_segment(model, carry, HALTING, LossTerms(), torch.ones(ROWS), draws())
        optimizer.zero_grad()
        scored.loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    enough, right = (float(scored.sums[f"q_position_{name}"] / scored.sums["tokens"]) for name in ("enough", "correct"))
    assert 0.5 < enough < 0.95
    assert right > enough + 0.04


def test_steps_tell_the_loss_of_the_q_its_accuracy_and_how_many_positions_may_halt(
    make_trial: MakeTrial, make_context: MakeContext
) -> None:
    halting = {"rule": "q_loss", "segments": 2, "tolerance": 0.001}
    trial = make_trial(model={**TINY_HRM, "halting": halting}, budget={"axis": "steps", "amount": 4}, num_reports=1)
    [report], _ = run(trial, make_context())
    steps = [step.metrics for step in report.steps]
    assert [step["q_halt_target"] == 1.0 for step in steps] == [False, True, False, True]
    assert steps[0]["q_halt_loss"] == pytest.approx(0.6931, abs=1e-3)  # undecided
    assert steps[0]["q_halt_accuracy"] == pytest.approx(steps[0]["q_halt_target"])  # 0 says yes
    assert all(step["q_halt_loss"] != steps[0]["q_halt_loss"] for step in steps[1:])


@pytest.mark.parametrize(
    ("halting", "words"),
    [
        ({"rule": "q_loss"}, "segments must be >= 2 where rule is `q_loss`, got 1"),
        ({"rule": "q_loss", "segments": 2, "exploration": 0.2}, "must be left out where rule is `q_loss`, got 0.2"),
        ({"rule": "q", "segments": 2, "tolerance": 0.2}, "tolerance must be left out where rule is `q`, got 0.2"),
    ],
)
def test_a_field_that_means_nothing_for_the_rule_is_refused(halting: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse_spec(HaltingSpec, halting, "halting")


def test_on_puzzles_the_rule_is_refused(make_trial: MakeTrial) -> None:
    puzzle = SudokuSpec.smoke().model_dump(mode="json")
    spec = TRMSpec(hidden_size=16, num_heads=2, halting=HALTING).model_dump(mode="json")
    [problem] = refusals(make_trial(task=puzzle, model=spec), "trial")
    assert "'q_loss': it judges each position apart" in problem.rule
    assert not refusals(make_trial(model={**spec, "causal": True}), "trial")
