"""HRM-Text (arXiv 2605.20613): HRM without carry and halting, for next-token data with prompts (PrefixLM).

z_H starts as the token embeddings, z_L as a fixed vector; for i < H_cycles: { for j < L_cycles: z_L = L(z_L + z_H);
z_H = H(z_H + z_L) }. The last calls carry gradient, few at first and more as the training goes on. Rows may have a
column `prefix_lengths` [B]: so many positions are the prompt and see each other, the rest is causal. A prompt is
counted from the start of its row: of several documents only the first can have one.
"""

from __future__ import annotations

import math
from typing import Literal, Self

import torch
from pydantic import Field

from hrm.models import (
    FIRST_GRADIENT_STEPS,
    AttentionModelSpec,
    Flops,
    Model,
    Rows,
    SegmentOutput,
    State,
    gradient_steps_at,
)
from hrm.nn.attention import Rotary
from hrm.nn.cache import CachePass
from hrm.nn.documents import positions_of, visible
from hrm.nn.draws import Draws
from hrm.nn.gated import GatedStack
from hrm.nn.layers import BlockShape, Embedding, Linear, truncated_normal
from hrm.tasks import TaskShape


class HRMTextSpec(AttentionModelSpec):
    """HRM-Text: sizes, cycles, and how far gradients go back."""

    kind: Literal["hrm_text"] = "hrm_text"
    num_layers_per_stack: int = Field(4, ge=1)
    """Layers of the H stack, and of the L stack."""
    H_cycles: int = Field(2, ge=1)
    L_cycles: int = Field(3, ge=1)
    dropout: float = Field(0.0, ge=0.0, lt=1.0)
    gradient_steps: int = Field(5, ge=FIRST_GRADIENT_STEPS)
    """How many calls carry gradient: the last min(H_cycles, this - 1) of H, and for the rest the last ones of L."""
    gradient_warmup_fraction: float = Field(0.2, ge=0.0, le=1.0)
    """The share of the budget over which that number rises from 2. While it is <= H_cycles no gradient reaches the
    token embeddings, and they rest (tied ones learn as the head)."""

    @property
    def sees_the_future(self) -> bool:
        """No: a prompt that sees itself is given; datasets that score a position inside it are refused."""
        return False

    def calls(self, spent: float) -> list[tuple[str, bool]]:
        """The calls of a segment in time order, `H` or `L`, and whether each carries gradient."""
        steps = gradient_steps_at(spent, self.gradient_steps, self.gradient_warmup_fraction)
        slow = min(self.H_cycles, steps - 1)
        horizon = {"H": slow, "L": steps - slow}
        order = ("L" * self.L_cycles + "H") * self.H_cycles
        return [(call, order[place:].count(call) <= horizon[call]) for place, call in enumerate(order)]

    def block(self) -> BlockShape:
        """The sizes of both stacks' blocks."""
        return BlockShape(self.hidden_size, self.num_heads, self.expansion, causal=True, dropout=self.dropout)

    def build(self, shape: TaskShape) -> HRMText:
        return HRMText(self, shape)

    def flops(self, shape: TaskShape, spent: float = 1.0) -> Flops:
        calls, square = self.calls(spent), shape.sequence_length * self.hidden_size**2
        stack = self.num_layers_per_stack * (self.block().flops(shape.sequence_length) + 2.0 * square)  # 2: the gate
        head = 2.0 * shape.sequence_length * self.hidden_size * shape.vocab_size
        forward = len(calls) * stack + head
        backward = 2.0 * (sum(carries for _, carries in calls) * stack + head)
        _, reaches_embeddings = calls[self.L_cycles]
        if not reaches_embeddings:  # then the first projection with gradient hands none on
            backward -= 8.0 * square
        # Nobody asks again for what a block's last product gives, unless dropout follows it
        unread = 0.0 if self.dropout else 2.0 * shape.sequence_length * self.hidden_size * self.block().inner_size
        again = sum(carries for _, carries in calls) * (stack - self.num_layers_per_stack * unread)
        return Flops(forward, forward + backward, again)

    @classmethod
    def smoke(cls) -> Self:
        return cls(hidden_size=16, num_heads=2, num_layers_per_stack=1)


class HRMText(Model):
    """The module."""

    def __init__(self, spec: HRMTextSpec, shape: TaskShape) -> None:
        super().__init__()
        self.spec, size = spec, spec.hidden_size
        self.embed_tokens = Embedding(shape.vocab_size, size, size**-0.5)
        self.rotary = Rotary(size // spec.num_heads, shape.sequence_length, spec.rotary_theta)
        self.H_level = GatedStack(spec.num_layers_per_stack, spec.block())
        self.L_level = GatedStack(spec.num_layers_per_stack, spec.block())
        self.lm_head = None if spec.tied_embeddings else Linear(size, shape.vocab_size)
        self.register_buffer("L_init", truncated_normal((size,), 1.0))

    def initial_state(self, num_rows: int, draws: Draws) -> State:
        return {}

    def segment(self, state: State, rows: Rows, draws: Draws, cache: CachePass | None = None) -> SegmentOutput:
        slow = self.embed_tokens(rows["inputs"], self.compute_dtype) * math.sqrt(self.spec.hidden_size)
        fast = self.get_buffer("L_init").to(slow.dtype).expand_as(slow)
        past = 0 if cache is None else cache.past
        tables, mask = self.rotary(positions_of(rows, past)), visible(rows, True, past, rows.get("prefix_lengths"))
        for call, carries in self.spec.calls(self.spent if self.training else 1.0):
            with torch.set_grad_enabled(torch.is_grad_enabled() and carries):
                if call == "H":
                    slow = self.H_level(slow + fast, tables, draws, mask, cache)
                else:
                    fast = self.L_level(fast + slow, tables, draws, mask, cache)
        return SegmentOutput({}, slow, self.head)
