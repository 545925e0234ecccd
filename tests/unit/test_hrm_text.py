"""HRM-Text: which calls carry gradient, what a prompt sees, and that its column goes wherever rows go."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from conftest import MakeTrial
from torch import Tensor

from hrm.context import LocalContext
from hrm.data.dataset import DatasetWriter, build_dataset
from hrm.evaluate import evaluate
from hrm.models.hrm_text import HRMText, HRMTextSpec
from hrm.nn.draws import Draws
from hrm.segments import Carry
from hrm.spec import parse_spec
from hrm.tasks import IGNORE, TaskShape
from hrm.tasks.red_team import RedTeamSpec
from hrm.train import Training

SHAPE = TaskShape(vocab_size=13, sequence_length=10, next_token=True)
PROMPT = 30
SMOKE = {"kind": "hrm_text", "hidden_size": 16, "num_heads": 2, "num_layers_per_stack": 1}


def built(**fields: Any) -> HRMText:
    torch.manual_seed(0)
    return parse_spec(HRMTextSpec, {**SMOKE, **fields}, "model").build(SHAPE)


def batch(count: int = 3) -> dict[str, Tensor]:
    return {"inputs": torch.randint(13, (count, 10), generator=torch.Generator().manual_seed(1))}


def logits(model: HRMText, rows: dict[str, Tensor]) -> Tensor:
    return model.segment({}, rows, Draws(0, 0, torch.arange(len(rows["inputs"])))).logits


def calls(model: HRMText) -> str:
    """The calls of a segment as they are made: upper case where gradients are recorded."""
    made: list[str] = []
    for name, stack in (("h", model.H_level), ("l", model.L_level)):
        stack.register_forward_hook(
            lambda *event, name=name: made.append(name.upper() if event[2].requires_grad else name)
        )
    logits(model, batch())
    return "".join(made)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(2, "lllh llLH"), (3, "lllH llLH"), (4, "lllH lLLH"), (5, "lllH LLLH"), (6, "llLH LLLH"), (99, "LLLH LLLH")],
)
def test_the_last_calls_of_each_stack_carry_gradient_as_in_the_original(steps: int, expected: str) -> None:
    assert calls(built(gradient_steps=steps)) == expected.replace(" ", "")


def test_with_more_cycles_the_slow_stack_has_gradient_first() -> None:
    assert calls(built(H_cycles=3, L_cycles=1, gradient_steps=3)) == "lhlHLH"
    assert calls(built(H_cycles=3, L_cycles=1, gradient_steps=5)) == "lHLHLH"


@pytest.mark.parametrize(
    ("spent", "expected"),
    [(0.0, "lllh llLH"), (0.06, "lllh llLH"), (0.07, "lllH llLH"), (0.14, "lllH lLLH"), (0.2, "lllH LLLH")],
)
def test_the_gradient_reaches_further_back_as_the_budget_is_spent(spent: float, expected: str) -> None:
    model = built()
    model.spent = spent
    assert calls(model) == expected.replace(" ", "")


def test_without_a_warm_up_the_gradient_is_whole_from_the_start() -> None:
    model = built(gradient_warmup_fraction=0.0)
    model.spent = 0.0
    assert calls(model) == "lllHLLLH"


def test_an_evaluation_does_not_ask_what_is_spent() -> None:
    model = built().eval()
    model.spent = 0.0
    assert calls(model) == "lllHLLLH"


@pytest.mark.parametrize("steps", [2, 3])
def test_the_embeddings_rest_until_gradients_reach_them(steps: int) -> None:
    model = built(gradient_steps=steps)
    logits(model, batch()).sum().backward()
    resting = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert resting == (["embed_tokens.embedding_weight"] if steps == 2 else [])


def test_a_prompt_sees_itself_and_nothing_sees_a_later_token_of_the_answer() -> None:
    model = built().eval()
    rows = batch() | {"prefix_lengths": torch.tensor([0, 4, 10])}
    before = logits(model, rows)
    for changed, seen_from in ((2, [2, 0, 0]), (6, [6, 6, 0])):
        other = rows | {"inputs": rows["inputs"].clone()}
        other["inputs"][:, changed] += 1
        other["inputs"] %= 13
        same = (logits(model, other) == before).all(-1)
        assert same.logical_not().int().argmax(-1).tolist() == seen_from


def test_a_refill_brings_the_length_of_the_prompt_and_leaves_that_of_a_row_at_work() -> None:
    model, rows = built(), batch()
    carry = Carry.empty(model, 3, 10, torch.device("cpu"))
    rows |= {"labels": rows["inputs"], "puzzle_identifiers": torch.zeros(3, dtype=torch.int64)}
    carry.refill(model, rows | {"prefix_lengths": torch.tensor([1, 2, 3])}, Draws(0, 1, torch.arange(3)))
    carry.halted = torch.tensor([True, False, True])
    carry.refill(model, rows | {"prefix_lengths": torch.tensor([7, 8, 9])}, Draws(0, 2, torch.arange(3)))
    assert carry.rows["prefix_lengths"].tolist() == [7, 2, 9]


class Prompted(RedTeamSpec):
    """The tiny data of all tests, its first tokens a prompt; of the same recipe, so that a trial finds it."""

    seen: ClassVar[int] = PROMPT

    def build(self, writer: DatasetWriter) -> None:
        write = writer.write_split

        def with_prompts(name: str, columns: Mapping[str, np.ndarray]) -> None:
            columns["labels"][:, : PROMPT - 1] = IGNORE
            write(name, {**columns, "prefix_lengths": np.full(len(columns["labels"]), self.seen)})

        writer.write_split = with_prompts  # type: ignore[method-assign, assignment]
        super().build(writer)


class Unprompted(Prompted):
    """The same labels; the prompt does not see itself."""

    seen: ClassVar[int] = 0


def test_training_checkpoint_and_evaluation_read_the_prompt_as_a_whole(tmp_path: Path, make_trial: MakeTrial) -> None:
    trial = make_trial(model=SMOKE)
    contexts = {}
    for kind in (Prompted, Unprompted):
        build_dataset(kind.smoke(), tmp_path / kind.__name__)
        contexts[kind] = LocalContext(tmp_path / f"trial of {kind.__name__}", tmp_path / kind.__name__)
    trainings = {kind: Training(trial, context) for kind, context in contexts.items()}
    losses = set()
    for kind, training in trainings.items():
        losses.add(evaluate(training.state.model, training.dataset, "validation", trial, contexts[kind])["loss"])
        training.step()
        losses.add(training.state.pending[0].metrics["loss"])
    assert len(losses) == 4
    prompted = trainings[Prompted]
    prompted.save()
    prompted.checkpoints.wait()
    resumed = Training(trial, contexts[Prompted])
    assert torch.equal(resumed.state.carry.rows["prefix_lengths"], torch.full((4,), PROMPT))
    prompted.step()
    resumed.step()
    assert resumed.state.pending[-1].metrics == prompted.state.pending[-1].metrics
