"""The original HRM (a work tree of sapientinc/HRM) as an arm of the throughput benchmark, on any device.

Its own model, loss head and sparse optimizer run unchanged. What a CPU lacks is put in their place: flash attention
becomes PyTorch's, as its CPU users do, and its main optimizer (a CUDA extension) becomes this project's.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.arms import Dtype
from hrm.models.hrm import HRMSpec
from hrm.optim.adam_atan2 import AdamATan2
from hrm.tasks import TaskShape
from hrm.train import Training


def _attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """flash_attn_func by PyTorch's attention. [B, S, heads, K] -> the same."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    mixed = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    return mixed.transpose(1, 2).contiguous()


def _import(root: Path, device: torch.device) -> tuple[ModuleType, ModuleType, ModuleType]:
    """The original's modules: model, losses, sparse embedding."""
    if device.type == "cpu" or importlib.util.find_spec("flash_attn") is None:
        stand_in = ModuleType("flash_attn")
        stand_in.flash_attn_func = _attention  # type: ignore[attr-defined]
        sys.modules["flash_attn"] = stand_in
    sys.path.insert(0, str(root))
    try:
        names = ("models.hrm.hrm_act_v1", "models.losses", "models.sparse_embedding")
        model, losses, sparse = (importlib.import_module(name) for name in names)
    finally:
        sys.path.remove(str(root))
    return model, losses, sparse


class OriginalArm:
    """Trains the original from given weights, on one batch of rows, as its `train_batch` does."""

    def __init__(self, root: Path, ours: Training, dtype: Dtype, compiled: bool) -> None:
        """Takes over the weights of a training that has made no step, and its one batch of rows."""
        spec = ours.trial.model
        assert isinstance(spec, HRMSpec)
        self.num_rows, device = ours.trial.batch_size, ours.context.device
        rows = ours.dataset.split("train").gather(np.arange(self.num_rows))
        self.rows = {name: torch.from_numpy(value).to(device) for name, value in rows.items()}
        module, losses, sparse = _import(root, device)
        with device:
            inner = module.HierarchicalReasoningModel_ACTV1(self._config(spec, ours.dataset.shape, dtype))
            self.model = losses.ACTLossHead(inner, "stablemax_cross_entropy").train()
            self.carry = self.model.initial_carry(self.rows)
        self.model.load_state_dict({f"model.inner.{name}": v for name, v in ours.state.model.state_dict().items()})
        self.train_step = torch.compile(self.model, dynamic=False) if compiled else self.model
        rate, decay, betas = 1e-4, 0.1, (0.9, 0.95)
        self.optimizers = [
            sparse.CastedSparseEmbeddingSignSGD_Distributed(inner.puzzle_emb.buffers(), 1, 1e-2, decay),
            AdamATan2(self.model.parameters(), rate, betas, decay),
        ]
        without_target = spec.model_copy(update={"halting": spec.halting.model_copy(update={"rule": "q"})})
        flops = without_target.flops(ours.dataset.shape)
        self.flops = (flops.training + flops.forward) * self.num_rows  # its target is a whole forward pass
        self.loss = float("nan")

    def _config(self, spec: HRMSpec, shape: TaskShape, dtype: Dtype) -> dict[str, Any]:
        same = ("H_cycles", "L_cycles", "H_layers", "L_layers", "hidden_size", "expansion", "num_heads")
        return {name: getattr(spec, name) for name in same} | {
            "batch_size": self.num_rows,
            "seq_len": shape.sequence_length,
            "vocab_size": shape.vocab_size,
            "num_puzzle_identifiers": shape.num_puzzle_identifiers,
            "puzzle_emb_ndim": spec.puzzle_embedding_size,
            "pos_encodings": "rope",
            "halt_max_steps": spec.halting.segments,
            "halt_exploration_prob": spec.halting.exploration,
            "forward_dtype": dtype,
        }

    def step(self) -> None:
        self.carry, loss, metrics, _, _ = self.train_step(carry=self.carry, batch=self.rows, return_keys=[])
        (loss / self.num_rows).backward()
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        values = torch.stack([value.float() for value in metrics.values()]).tolist()
        self.loss = dict(zip(metrics, values, strict=True))["lm_loss"] / self.num_rows
