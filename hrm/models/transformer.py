"""A plain transformer of the same blocks: the control that keeps every comparison honest.

`num_layers` blocks once, gradient through all of them, no state between segments. Shares embedding, blocks and head
with HRM, so that equal layers are equal parameters.
"""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field

from hrm.models import BlockModelSpec, Flops, Model, Rows, SegmentOutput, State
from hrm.nn.attention import Rotary
from hrm.nn.cache import CachePass
from hrm.nn.documents import positions_of, visible
from hrm.nn.draws import Draws
from hrm.nn.layers import Embedding, Linear, Stack
from hrm.tasks import TaskShape


class TransformerSpec(BlockModelSpec):
    """A post-norm transformer with rotary positions."""

    kind: Literal["transformer"] = "transformer"
    num_layers: int = Field(8, ge=1)

    def build(self, shape: TaskShape) -> Transformer:
        return Transformer(self, shape)

    def flops(self, shape: TaskShape, spent: float = 1.0) -> Flops:
        head = 2.0 * shape.sequence_length * self.hidden_size * shape.vocab_size
        blocks = self.num_layers * self.block().flops(shape.sequence_length)
        return Flops(blocks + head, 3 * (blocks + head), blocks)

    @classmethod
    def smoke(cls) -> Self:
        return cls(hidden_size=16, num_heads=2, num_layers=1, causal=True, dropout=0.1)


class Transformer(Model):
    """The module."""

    def __init__(self, spec: TransformerSpec, shape: TaskShape) -> None:
        super().__init__()
        size = spec.hidden_size
        self.scale, self.causal = math.sqrt(size), spec.causal
        self.embed_tokens = Embedding(shape.vocab_size, size, size**-0.5)
        self.rotary = Rotary(size // spec.num_heads, shape.sequence_length, spec.rotary_theta)
        self.stack = Stack(spec.num_layers, spec.block())
        self.lm_head = None if spec.tied_embeddings else Linear(size, shape.vocab_size)

    def initial_state(self, num_rows: int, draws: Draws) -> State:
        return {}

    def segment(self, state: State, rows: Rows, draws: Draws, cache: CachePass | None = None) -> SegmentOutput:
        x = self.embed_tokens(rows["inputs"], self.compute_dtype) * self.scale
        past = 0 if cache is None else cache.past
        tables, mask = self.rotary(positions_of(rows, past)), visible(rows, self.causal, past)
        return SegmentOutput({}, self.stack(x, tables, draws, mask=mask, cache=cache), self.head)
