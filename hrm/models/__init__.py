"""The contract of a model. One file here = one model: its spec (what YAML says) and the module it builds.

A model works in segments: `segment` takes a state and rows, does one segment of computation and gives the new state
and logits. Whatever repeats segments, halts rows and carries state across batches is shared (`hrm.segments`);
`hrm.models.recursion` is what the recursive models share.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from hrm.errors import Problem
from hrm.nn.attention import AttentionKernel
from hrm.nn.cache import CachePass
from hrm.nn.draws import Draws
from hrm.nn.gated import GatedAttention, GatedBlock, GatedStack
from hrm.nn.halting import HaltingSpec
from hrm.nn.layers import Attention, Block, BlockShape, Embedding, Linear, Stack
from hrm.nn.puzzle_table import PuzzleTable
from hrm.nn.readout import Head
from hrm.spec import Spec
from hrm.tasks import TaskShape

State = dict[str, Tensor]
"""A model's state between segments, by name; each tensor is [B, ...], row by row. Empty for a model without state."""
Rows = dict[str, Tensor]
"""`inputs` [B, S], `labels` [B, S], `puzzle_identifiers` [B], and any further column of the data; int64 on the compute
device. Every model heeds `documents` [B, S] (`hrm.nn.documents`) or refuses it. After positions that a cache holds,
`inputs` is of the further ones, `documents` of all."""

FIRST_GRADIENT_STEPS = 2
"""Calls that carry gradient where their number grows as the training goes on (HRM-Text)."""


@dataclass(frozen=True, slots=True)
class Flops:
    """Floating-point operations of one segment on one row: matrix products, 2 per multiply-add.

    Elementwise work is not counted, and depthwise convolutions (of two positions: 0.1 % of an MLP at hidden size 512)
    are counted as such.
    """

    forward: float
    training: float
    """Forward and backward, every forward pass of the training step included (those for the Q's targets, too)."""
    recomputed: float = 0.0
    """What activation checkpointing adds to that: the blocks that carry gradient, forward once more."""


@dataclass(frozen=True, slots=True)
class SegmentOutput:
    """What one segment gives. Shapes: B rows, S positions, D hidden, V vocabulary."""

    state: State
    """Not detached; the caller detaches it between segments."""
    answer: Tensor
    """[B, S, D], in the compute dtype: what the head reads."""
    head: Head
    """[..., D] -> [..., V]."""
    q: Tensor | None = None
    """[B, 2] float32: halt and continue logits of a row; None for a model that cannot halt."""
    q_positions: Tensor | None = None
    """[B, S] float32: halt logits of each position where the rule is `q_loss`; else None."""

    @property
    def logits(self) -> Tensor:
        """[B, S, V], in the compute dtype; computed anew at each look."""
        return self.head(self.answer)


class Model(nn.Module, ABC):
    """What every model's module offers. Weights are float32; they are cast to the compute dtype at use."""

    compute_dtype: torch.dtype = torch.float32
    spent: float = 1.0
    """The share of the training's budget that is spent: what depth curricula follow. Evaluation has full depth."""
    starts: int = 1
    """Random starts of each row, of which the best is trained (`hrm.segments`)."""
    embed_tokens: Embedding
    lm_head: Linear | None
    """None where the token embeddings are the head, too."""

    @property
    def head(self) -> Head:
        """What reads tokens off."""
        return Head(self.embed_tokens.embedding_weight if self.lm_head is None else self.lm_head.weight)

    @abstractmethod
    def initial_state(self, num_rows: int, draws: Draws) -> State:
        """The state of rows that have seen no segment yet."""

    @property
    def keeps_state(self) -> bool:
        """Whether a segment hands a state on; where it does not, every further one computes the same again."""
        row = torch.zeros(1, dtype=torch.int64, device=next(self.parameters()).device)
        return bool(self.initial_state(1, Draws(0, 0, row, training=False)))

    def state_at(self, num_rows: int, draws: Draws, positions: Tensor) -> State:
        """The initial state of some positions alone: [S] of every row, or [B, S]."""
        places = positions.expand(num_rows, -1).unsqueeze(-1)
        state = self.initial_state(num_rows, draws)
        return {name: z.gather(1, places.expand(-1, -1, z.shape[-1])) for name, z in state.items()}

    @abstractmethod
    def segment(self, state: State, rows: Rows, draws: Draws, cache: CachePass | None = None) -> SegmentOutput:
        """One segment. Gradients flow as the model prescribes.

        cache: earlier positions of the same rows, of a model that does not see the future; rows and state are of the
        positions after these.
        """

    def next_q(self, state: State, rows: Rows, draws: Draws) -> Tensor | None:
        """[B, 2]: `q` of one more segment, without the work that only its state and logits need."""
        return self.segment(state, rows, draws).q

    def configure(
        self, dtype: torch.dtype, attention: AttentionKernel, compiled: bool = False, recomputes: bool = False
    ) -> None:
        """Set what `auto` was resolved to: compute dtype, attention kernel, and whether blocks are compiled; and
        whether a training recomputes them (activation checkpointing)."""
        self.compute_dtype = dtype
        for module in self.modules():
            if isinstance(module, Attention | GatedAttention):
                module.kernel = attention
            if isinstance(module, Stack | GatedStack):
                module.recomputes = recomputes
            if isinstance(module, Block | GatedBlock) and compiled:
                module.compile(dynamic=False)

    def num_parameters(self) -> int:
        """Trainable values, without puzzle tables."""
        return sum(p.numel() for p in self.parameters())

    def num_table_values(self) -> int:
        """Values of the puzzle tables, of which a step trains the rows of its batch."""
        return sum(m.get_buffer("weights").numel() for m in self.modules() if isinstance(m, PuzzleTable))


class ModelSpec(Spec, ABC):
    """What YAML says of a model."""

    kind: str

    def halting_rule(self) -> HaltingSpec:
        """How many segments a row gets and what ends it: one, always, unless the model says otherwise."""
        return HaltingSpec()

    def packing_problem(self, shape: TaskShape) -> Problem | None:
        """Why rows of several documents are refused; None where each is computed as if it were alone."""
        return None

    @property
    @abstractmethod
    def sees_the_future(self) -> bool:
        """True if position t is computed from tokens after t."""

    @property
    def way_to_causality(self) -> str:
        """What to do about it where that is refused."""
        return "Set model.causal: true"

    @abstractmethod
    def build(self, shape: TaskShape) -> Model:
        """The module, with fresh weights drawn from torch's global generator."""

    @abstractmethod
    def flops(self, shape: TaskShape, spent: float = 1.0) -> Flops:
        """The cost of one segment on one row, `spent` of the budget into the training."""

    @classmethod
    @abstractmethod
    def smoke(cls) -> Self:
        """The tiniest honest model of this kind, for contract tests and `--smoke`."""


class AttentionModelSpec(ModelSpec, ABC):
    """A model of attention with rotary positions and SwiGLU: its sizes."""

    hidden_size: int = Field(512, ge=8)
    tied_embeddings: bool = False
    """True: the head that reads tokens off is the table of token embeddings, one tensor for both."""
    num_heads: int = Field(8, ge=1)
    expansion: float = Field(4.0, gt=0.0)
    rotary_theta: float = Field(10000.0, gt=0.0)

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError(
                f"hidden_size must be a multiple of 2 * num_heads, got {self.hidden_size} and {self.num_heads} heads"
            )
        return self


def gradient_steps_at(spent: float, most: int, warmup_fraction: float) -> int:
    """How many of a segment's calls carry gradient: from 2 to `most` over this share of the budget."""
    risen = min(1.0, spent / warmup_fraction) if warmup_fraction else 1.0
    return min(most, FIRST_GRADIENT_STEPS + int(risen * max(0, most - FIRST_GRADIENT_STEPS)))


class BlockModelSpec(AttentionModelSpec, ABC):
    """A model made of the family's blocks (`hrm.nn.layers`)."""

    causal: bool = False
    dropout: float = Field(0.0, ge=0.0, lt=1.0)

    @property
    def sees_the_future(self) -> bool:
        return not self.causal

    def block(self, **options: int) -> BlockShape:
        """The shape of a stack's blocks."""
        return BlockShape(self.hidden_size, self.num_heads, self.expansion, self.causal, self.dropout, **options)
