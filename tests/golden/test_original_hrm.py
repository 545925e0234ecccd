"""HRM against recorded traces of the original code: forward at every segment, training step by step."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from hrm.models.hrm import HRM, HRMSpec
from hrm.nn.draws import Draws
from hrm.nn.halting import HaltingSpec
from hrm.optim.adam_atan2 import AdamATan2
from hrm.segments import Carry, train_segment
from hrm.tasks import IGNORE, TaskShape

TRACES = Path(__file__).parents[3] / "shared" / "parity"
pytestmark = pytest.mark.skipif(not TRACES.exists(), reason="the recorded traces are not beside this checkout")


class Trace:
    """One recorded run."""

    def __init__(self, name: str) -> None:
        with safe_open(TRACES / f"{name}.safetensors", "pt") as file:
            self.facts = {
                key: json.loads(value) for key, value in file.metadata().items() if value[0] in "{[0123456789"
            }
            self.tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        self.config: dict[str, Any] = self.facts["config"]

    def part(self, prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in self.tensors.items() if key.startswith(prefix)}

    def model(self) -> HRM:
        c = self.config
        spec = HRMSpec(
            hidden_size=c["hidden_size"],
            num_heads=c["num_heads"],
            expansion=float(c["expansion"]),
            H_layers=c["H_layers"],
            L_layers=c["L_layers"],
            H_cycles=c["H_cycles"],
            L_cycles=c["L_cycles"],
            positions="rotary" if c["pos_encodings"] == "rope" else "learned",
            puzzle_embedding_size=c["puzzle_emb_ndim"],
            halting=HaltingSpec(rule="q_with_target", segments=c["halt_max_steps"], exploration=0.0),
        )
        model = spec.build(TaskShape(c["vocab_size"], c["seq_len"], c["num_puzzle_identifiers"]))
        model.load_state_dict(self.part("initial.model.inner."))
        return model

    def rows(self, prefix: str) -> dict[str, Tensor]:
        return {key: value.long() for key, value in self.part(prefix).items()}


@pytest.fixture(params=["hrm_rope", "hrm_learned"])
def trace(request: pytest.FixtureRequest) -> Trace:
    return Trace(request.param)


def test_every_segment_of_an_evaluation_gives_the_original_logits(trace: Trace) -> None:
    model = trace.model().eval()
    rows = trace.rows("eval.batch.")
    draws = Draws(0, 0, torch.arange(trace.config["batch_size"]), training=False)
    state = model.initial_state(trace.config["batch_size"], draws)
    for segment in range(1, trace.facts["segments"] + 1):
        with torch.no_grad():
            output = model.segment(state, rows, draws)
        state = output.state
        expected = trace.part(f"eval.segment{segment}.")
        assert output.q is not None
        torch.testing.assert_close(output.logits, expected["logits"], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(output.q[:, 0], expected["q_halt_logits"], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(output.q[:, 1], expected["q_continue_logits"], rtol=1e-5, atol=1e-5)


def test_training_follows_the_original_step_by_step(trace: Trace) -> None:
    model = trace.model().train()
    settings = trace.facts["optimizer"]
    optimizer = AdamATan2(model.parameters(), settings["lr"], tuple(settings["betas"]), settings["weight_decay"])
    size = trace.config["batch_size"]
    carry = Carry.empty(model, size, trace.config["seq_len"], torch.device("cpu"))
    halting = model.spec.halting
    for step in range(1, trace.facts["steps"] + 1):
        expected = trace.part(f"train.step{step}.")
        draws = Draws(0, step, torch.arange(size))
        carry.refill(model, trace.rows(f"train.step{step}.batch."), draws)
        tokens = (carry.rows["labels"] != IGNORE).sum(-1)
        scored = train_segment(model, carry, halting, "stablemax", 1.0 / tokens.clamp(min=1), draws)
        (scored.loss / size).backward()
        torch.testing.assert_close(scored.loss.double(), expected["loss"], rtol=1e-4, atol=0.0)
        assert torch.equal(carry.halted, expected["carry.halted"])
        assert torch.equal(carry.segments, expected["carry.steps"])
        assert float(scored.sums["exact"]) == float(expected["metric.exact_accuracy"])
        optimizer.step()
        optimizer.zero_grad()
        assert model.puzzle_emb is not None
        model.puzzle_emb.sign_step(settings["puzzle_emb_lr"], settings["puzzle_emb_weight_decay"])
    _check_weights(model, trace)


def _check_weights(model: HRM, trace: Trace) -> None:
    """Of the update final - initial: relative L2 error at most 1e-3 per tensor, 99.9 % of entries within 1e-5."""
    initial, final = trace.part("initial.model.inner."), trace.part("final.model.inner.")
    for name, value in model.state_dict().items():
        expected = final[name] - initial[name]
        error = (value - initial[name]) - expected
        assert float(error.norm()) <= 1e-3 * float(expected.norm()) + 1e-12, name
        assert float((error.abs() <= 1e-5).float().mean()) >= 0.999, name
