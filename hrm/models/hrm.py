"""The Hierarchical Reasoning Model (Wang et al. 2025, arXiv 2506.21734), with the options that language needs.

Two stacks, a slow H and a fast L, exchange states: for i < H_cycles: { for j < L_cycles: z_L = L(z_L + z_H + x);
z_H = H(z_H + z_L) }. Gradients flow through the last call of each stack only. With `causal`, `convolution` and
`dropout` left alone this is the original; these three make it a language model.
"""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from hrm.models import BlockModelSpec, Flops, Model, SegmentOutput, State
from hrm.nn.draws import Draws
from hrm.nn.halting import HaltingSpec
from hrm.nn.layers import Embedding, Linear, Rotary, Stack, truncated_normal
from hrm.nn.puzzle_table import PuzzleTable
from hrm.tasks import TaskShape


class HRMSpec(BlockModelSpec):
    """HRM: sizes, cycles, halting; and `causal`, `dropout`, `convolution` for text."""

    kind: Literal["hrm"] = "hrm"
    H_layers: int = Field(4, ge=1)
    L_layers: int = Field(4, ge=1)
    H_cycles: int = Field(2, ge=1)
    L_cycles: int = Field(2, ge=1)
    positions: Literal["rotary", "learned"] = "rotary"
    puzzle_embedding_size: int = Field(0, ge=0)
    """Width of the puzzle table; 0 for none. It takes ceil(width / hidden_size) positions before the tokens."""
    convolution: int = Field(0, ge=0, le=16)
    """Kernel of a causal depthwise convolution in the L stack's blocks; 0 for none."""
    halting: HaltingSpec = HaltingSpec()

    def halting_rule(self) -> HaltingSpec:
        return self.halting

    def build(self, shape: TaskShape) -> HRM:
        return HRM(self, shape)

    def num_prefix(self, shape: TaskShape) -> int:
        """Positions taken by the puzzle embedding."""
        return -(-self.puzzle_embedding_size // self.hidden_size) if shape.num_puzzle_identifiers else 0

    def flops(self, shape: TaskShape) -> Flops:
        length = shape.sequence_length + self.num_prefix(shape)
        block = self.block().flops(length)
        calls = self.H_cycles * (self.L_cycles * self.L_layers + self.H_layers) * block
        with_gradient = (self.L_layers + self.H_layers) * block
        head = 2.0 * shape.sequence_length * self.hidden_size * shape.vocab_size
        q_head = 4.0 * self.hidden_size if self.halting.rule != "none" else 0.0
        forward = calls + head + q_head
        target = forward if self.halting.rule == "q_with_target" and self.halting.segments > 1 else 0.0
        return Flops(forward, forward + 2 * (with_gradient + head + q_head) + target)

    @classmethod
    def smoke(cls) -> Self:
        return cls(hidden_size=16, num_heads=2, H_layers=1, L_layers=1, causal=True, dropout=0.1, convolution=2)


class HRM(Model):
    """The module; parameter names follow the original's state dict."""

    def __init__(self, spec: HRMSpec, shape: TaskShape) -> None:
        super().__init__()
        self.spec, size = spec, spec.hidden_size
        self.prefix = spec.num_prefix(shape)
        self.length = shape.sequence_length + self.prefix
        self.embed_tokens = Embedding(shape.vocab_size, size, size**-0.5)
        self.puzzle_emb = PuzzleTable(shape.num_puzzle_identifiers, spec.puzzle_embedding_size) if self.prefix else None
        learned = spec.positions == "learned"
        self.embed_pos = Embedding(self.length, size, size**-0.5) if learned else None
        self.rotary = None if learned else Rotary(size // spec.num_heads, self.length, spec.rotary_theta)
        self.H_level = Stack(spec.H_layers, spec.block())
        self.L_level = Stack(spec.L_layers, spec.block(spec.convolution))
        self.lm_head = Linear(size, shape.vocab_size)
        self.q_head = Linear(size, 2, bias=True)
        self.register_buffer("H_init", truncated_normal((size,), 1.0))
        self.register_buffer("L_init", truncated_normal((size,), 1.0))
        with torch.no_grad():
            self.q_head.weight.zero_()
            assert self.q_head.bias is not None
            self.q_head.bias.fill_(-5.0)

    def initial_state(self, num_rows: int) -> State:
        shape = (num_rows, self.length, self.spec.hidden_size)
        start = {"z_H": self.get_buffer("H_init"), "z_L": self.get_buffer("L_init")}
        return {name: vector.to(self.compute_dtype).expand(shape) for name, vector in start.items()}

    def segment(self, state: State, inputs: Tensor, puzzle_identifiers: Tensor, draws: Draws) -> SegmentOutput:
        x = self._embed(inputs, puzzle_identifiers)
        z_h, z_l = state["z_H"], state["z_L"]
        with torch.no_grad():
            for h in range(self.spec.H_cycles):
                for step in range(self.spec.L_cycles):
                    if h < self.spec.H_cycles - 1 or step < self.spec.L_cycles - 1:
                        z_l = self.L_level(z_l + (z_h + x), self.rotary, draws)
                if h < self.spec.H_cycles - 1:
                    z_h = self.H_level(z_h + z_l, self.rotary, draws)
        z_l = self.L_level(z_l + (z_h + x), self.rotary, draws)
        z_h = self.H_level(z_h + z_l, self.rotary, draws)
        # The original computes q in the compute dtype (bfloat16: spacing 0.03 near -5); float32 here.
        return SegmentOutput({"z_H": z_h, "z_L": z_l}, self.lm_head(z_h[:, self.prefix :]), self._q(z_h))

    def _q(self, z_h: Tensor) -> Tensor | None:
        if self.spec.halting.rule == "none":
            return None
        q: Tensor = self.q_head(z_h[:, 0].float())
        return q

    def _embed(self, inputs: Tensor, puzzle_identifiers: Tensor) -> Tensor:
        """[B, P+S, D]: puzzle tokens then token embeddings, with learned positions if any, times sqrt(D)."""
        x: Tensor = self.embed_tokens(inputs, self.compute_dtype)
        if self.puzzle_emb is not None:
            vectors = self.puzzle_emb(puzzle_identifiers).to(x.dtype)
            room = self.prefix * self.spec.hidden_size - vectors.shape[-1]
            x = torch.cat((nn.functional.pad(vectors, (0, room)).view(len(x), self.prefix, -1), x), dim=1)
        if self.embed_pos is not None:
            x = math.sqrt(0.5) * (x + self.embed_pos.embedding_weight.to(x.dtype))
        return x * math.sqrt(self.spec.hidden_size)
