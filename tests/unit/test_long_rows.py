"""Rows of 2048 positions, and all that saves memory at once: packing, parts, recomputed blocks, chunks of logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import TINY_HRM, MakeTrial

from hrm.context import LocalContext
from hrm.data.dataset import build_dataset
from hrm.nn import readout
from hrm.resolve import resolve
from hrm.tasks import TaskShape
from hrm.train import Training

MakeContext = Callable[..., LocalContext]
LENGTH = 2048
PACKED = {"kind": "text", "sequence_length": LENGTH, "format": {"kind": "instruction"}, "packing": True}
SMALL = {"hidden_size": 16, "num_heads": 2, "tied_embeddings": True, "dropout": 0.1, "gradient_warmup_fraction": 0.5}
MODELS: dict[str, dict[str, Any]] = {
    "hrm_text": {"kind": "hrm_text", **SMALL, "num_layers_per_stack": 1},
    "hrm": {
        **SMALL,
        **TINY_HRM,
        "H_cycles": 1,
        "gradient_steps": 3,
        "halting": {"rule": "q_loss", "segments": 2},
    },
}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_rows_of_2048_positions_train_with_everything_that_saves_memory(
    monkeypatch: pytest.MonkeyPatch, make_trial: MakeTrial, make_context: MakeContext, model: dict[str, Any]
) -> None:
    fields = {"schedule": {"kind": "cosine", "floor_fraction": 0.1}, "label_smoothing": 0.1, "z_loss": 1e-4, "ema": 0.9}
    saving = {"accumulation": 2, "activation_checkpointing": True}
    budget = {"axis": "steps", "amount": 4}
    common = {"task": PACKED, "model": model, "budget": budget, "batch_size": 2, "precision": "float32", **fields}
    build_dataset(make_trial(**common).task, make_context().data_root)
    monkeypatch.setattr(readout, "MOST_LOGITS", 100_000)
    training = Training(make_trial(**common, **saving), make_context("saving"))
    largest = []

    def look(value: torch.Tensor) -> torch.Tensor:
        largest.append(value.numel())
        return value

    with torch.autograd.graph.saved_tensors_hooks(look, lambda value: value):
        training.step()
    assert "documents" in training.state.carry.rows
    assert training.resolved["attention"] == "sdpa"
    assert max(largest) <= LENGTH**2  # a mask, and not the scores of each head

    monkeypatch.setattr(readout, "MOST_LOGITS", 2**30)
    plain = Training(make_trial(**common), make_context("plain"))
    plain.step()
    [one], [other] = plain.state.pending, training.state.pending
    assert other.metrics == pytest.approx(one.metrics, rel=1e-3)
    assert other.progress.flops > one.progress.flops  # what is computed again is counted


def test_long_rows_have_an_attention_that_stores_no_scores(make_trial: MakeTrial, make_context: MakeContext) -> None:
    trial = make_trial(precision="bfloat16")
    kernels = [resolve(trial, TaskShape(100, length), make_context())["attention"] for length in (64, 2048, 8192)]
    assert kernels == ["explicit", "sdpa", "sdpa"]
