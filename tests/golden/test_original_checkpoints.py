"""Checkpoints of the original code: imported they compute what it computed, exported they are what was read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from originals import METRICS, PARITY
from safetensors import safe_open
from torch import Tensor

from hrm.checkpoint import Checkpoint, open_checkpoint, write_checkpoint
from hrm.loading import load_model
from hrm.models.recursion import RecursiveModel
from hrm.nn.draws import Draws
from hrm.nn.halting import HaltingSpec
from hrm.nn.losses import LossTerms
from hrm.original.configuration import said_of
from hrm.original.conversion import import_original, original_state_dict
from hrm.original.reading import read_state_dict
from hrm.segments import Carry, Scored, train_segment
from hrm.tasks import IGNORE, TaskShape

CHECKPOINTS = PARITY / "upstream_checkpoints"
SHAPE = TaskShape(vocab_size=11, sequence_length=81, num_puzzle_identifiers=5)
ROWS = 6
SUMS = {**METRICS, "lm_loss": "loss"}
pytestmark = pytest.mark.skipif(not PARITY.exists(), reason="the recorded checkpoints are not beside this checkout")


class Recorded:
    """A checkpoint of the original code, imported and written, and what the original computed with it."""

    def __init__(self, name: str, folder: Path) -> None:
        self.path = CHECKPOINTS / f"{name}_step_0"
        write_checkpoint(folder / name, brought(self.path, CHECKPOINTS / f"{name}_config.json"))
        self.checkpoint = open_checkpoint(folder / name)
        with np.load(CHECKPOINTS / f"{name}_golden.npz") as golden:
            self.golden = {key: torch.from_numpy(golden[key]) for key in golden.files}
        self.rows = {name: self.golden[name].long() for name in ("inputs", "labels", "puzzle_identifiers")}

    def model(self) -> RecursiveModel:
        model = load_model(self.checkpoint, SHAPE, self.path.name)
        assert isinstance(model, RecursiveModel)
        return model

    def expect(self, event: str, carry: Carry, scored: Scored) -> None:
        """The losses, the metrics and who halted."""
        torch.testing.assert_close(scored.loss.double(), self.golden[f"{event}_loss"], rtol=1e-5, atol=0.0)
        assert torch.equal(carry.halted, self.golden[f"{event}_halted"])
        assert torch.equal(carry.segments, self.golden[f"{event}_steps"])
        for theirs, ours in SUMS.items():
            if f"{event}_m_{theirs}" in self.golden:
                expected = self.golden[f"{event}_m_{theirs}"].item()
                assert scored.sums[ours].item() == pytest.approx(expected, rel=1e-5), theirs


def brought(path: Path, config: Path | None) -> Checkpoint:
    return import_original(read_state_dict(path), said_of(path, config, []))


def step(model: RecursiveModel, carry: Carry, recorded: Recorded, halting: HaltingSpec, draws: Draws) -> Scored:
    carry.refill(model, recorded.rows, draws)
    weight = 1.0 / (carry.rows["labels"] != IGNORE).sum(-1)
    return train_segment(model, carry, halting, LossTerms("stablemax"), weight, draws)


@pytest.fixture(params=["rope", "learned"])
def recorded(request: pytest.FixtureRequest, tmp_path: Path) -> Recorded:
    return Recorded(request.param, tmp_path)


def test_an_imported_checkpoint_evaluates_as_the_original(recorded: Recorded) -> None:
    model, golden = recorded.model(), recorded.golden
    draws = Draws(0, 0, torch.arange(ROWS), training=False)
    state = model.initial_state(ROWS, draws)
    carry = Carry.empty(model, ROWS, SHAPE.sequence_length, torch.device("cpu"))
    halting = HaltingSpec(rule="q", segments=model.spec.halting.segments)  # evaluation has no continue loss
    with torch.no_grad():
        for segment in range(4):
            output = model.segment(state, recorded.rows, draws)
            state = output.state
            assert output.q is not None
            expected_q = torch.stack(
                (golden[f"eval{segment}_q_halt_logits"], golden[f"eval{segment}_q_continue_logits"]), 1
            )
            torch.testing.assert_close(output.logits, golden[f"eval{segment}_logits"], rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(output.q, expected_q, rtol=1e-5, atol=1e-5)
            recorded.expect(f"eval{segment}", carry, step(model, carry, recorded, halting, draws))


def test_an_imported_checkpoint_trains_as_the_original(recorded: Recorded) -> None:
    model, golden = recorded.model().train(), recorded.golden
    assert model.puzzle_emb is not None
    table = model.puzzle_emb.get_buffer("weights")
    before = table.clone()
    carry = Carry.empty(model, ROWS, SHAPE.sequence_length, torch.device("cpu"))
    for number in range(3):
        scored = step(model, carry, recorded, model.spec.halting, Draws(0, number + 1, torch.arange(ROWS)))
        (scored.loss / ROWS).backward()
        recorded.expect(f"train{number}", carry, scored)
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            norm = golden[f"train{number}_gnorm_model.inner.{name}"].item()
            assert parameter.grad.norm().item() == pytest.approx(norm, rel=1e-4), name
        gradient = golden[f"train{number}_g_puzzle_local"]
        total = torch.zeros_like(before).index_add_(0, recorded.rows["puzzle_identifiers"], gradient)
        model.puzzle_emb.sign_step(1.0, 1.0)  # leaves of each row what is subtracted from it
        assert torch.equal(table, -total.sign())
        table.copy_(before)
        model.zero_grad()


def test_an_exported_checkpoint_is_the_imported_one(recorded: Recorded) -> None:
    checkpoint = recorded.checkpoint
    exported = original_state_dict(checkpoint, checkpoint.evaluation_weights, "here")
    same(exported, torch.load(recorded.path, weights_only=True))


def test_without_a_configuration_shapes_tell_all_but_heads_and_halting(recorded: Recorded) -> None:
    told = recorded.checkpoint.manifest
    alone = brought(recorded.path, None).manifest
    halting = HaltingSpec(rule="q_with_target", segments=16)
    assumed = {"num_heads": 8, "halting": halting.model_dump(mode="json")}
    assert alone["spec"]["model"] == told["spec"]["model"] | assumed
    assert {"num_heads", "H_cycles", "L_cycles", "halt_max_steps"} < alone["lineage"]["assumed"].keys()
    assert set(told["lineage"]["assumed"]) == {"loss_type"}


@pytest.mark.parametrize("name", ["trm_attention", "trm_mlp", "hrm_rope"])
def test_a_traced_model_goes_through_a_file_of_the_original_and_back(name: str, tmp_path: Path) -> None:
    with safe_open(PARITY / f"{name}.safetensors", "pt") as file:
        config: dict[str, Any] = json.loads(file.metadata()["config"])
        trace = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    state = {key.replace("initial.", "_orig_mod."): value for key, value in trace.items() if key.startswith("initial.")}
    told_by_the_data = ("batch_size", "seq_len", "vocab_size", "num_puzzle_identifiers")
    arch = {key: value for key, value in config.items() if key not in told_by_the_data}
    loss = {"name": "losses@ACTLossHead", "loss_type": "stablemax_cross_entropy"}
    (tmp_path / "all_config.yaml").write_text(yaml.dump({"arch": {"name": "x@X", "loss": loss, **arch}, "lr": 1e-4}))
    torch.save(state, tmp_path / "step_7")
    checkpoint = brought(tmp_path / "step_7", None)
    assert checkpoint.manifest["lineage"]["assumed"] == {}
    assert checkpoint.manifest["progress"] == {"step": 7}
    same(original_state_dict(checkpoint, checkpoint.model, "here"), state)

    shape = TaskShape(config["vocab_size"], config["seq_len"], config["num_puzzle_identifiers"])
    model, rows = (
        load_model(checkpoint, shape, "here"),
        {
            key.removeprefix("eval.batch."): value.long()
            for key, value in trace.items()
            if key.startswith("eval.batch.")
        },
    )
    draws = Draws(0, 0, torch.arange(config["batch_size"]), training=False)
    with torch.no_grad():
        output = model.segment(model.initial_state(config["batch_size"], draws), rows, draws)
    torch.testing.assert_close(output.logits, trace["eval.segment1.logits"], rtol=1e-5, atol=1e-5)


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    assert all(found[key].dtype == value.dtype for key, value in expected.items())
    assert all(torch.equal(found[key], value) for key, value in expected.items())
