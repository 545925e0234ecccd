"""What the recursive models share: input, state, calls of their stacks in time order, read-out, cost.

A segment is a sequence of calls. `L` updates the fast state from (slow state + input), `H` the slow state from the fast
one; a model with one state has `L` calls only. The last `gradient_steps` calls carry gradient: 2 is HRM's one-step
gradient, a whole recursion TRM's. A subclass says which stacks there are and which calls are made.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from hrm.errors import Problem, SpecError
from hrm.models import (
    FIRST_GRADIENT_STEPS,
    BlockModelSpec,
    Flops,
    Model,
    Rows,
    SegmentOutput,
    State,
    gradient_steps_at,
)
from hrm.nn.attention import Rotary
from hrm.nn.cache import CachePass
from hrm.nn.documents import places, positions_of, visible
from hrm.nn.draws import Draws
from hrm.nn.halting import HaltingSpec
from hrm.nn.layers import BlockShape, Embedding, Linear, Stack, truncated_normal
from hrm.nn.puzzle_table import PuzzleTable
from hrm.spec import Spec
from hrm.tasks import TaskShape


class DepthStage(Spec):
    """A stage of a depth curriculum (CGAR, Qasim and Zhang 2025): fewer cycles until a share of the budget is spent."""

    until: float = Field(gt=0.0, le=1.0)
    share: float = Field(gt=0.0, le=1.0)
    """Of the cycles of each kind, rounded, one at the least."""


class RecursiveSpec(BlockModelSpec, ABC):
    """The fields of every recursive model."""

    positions: Literal["rotary", "learned", "none"] = "rotary"
    puzzle_embedding_size: int = Field(0, ge=0)
    """Width of the puzzle table; 0 for none."""
    puzzle_tokens: int = Field(0, ge=0)
    """Positions that it takes before the tokens, padded with zeros; 0 for ceil(width / hidden_size)."""
    halting: HaltingSpec = HaltingSpec()
    gradient_steps: int | None = Field(None, ge=1)
    """How many of a segment's last calls carry gradient; null for the model's own rule."""
    gradient_warmup_fraction: float = Field(0.0, ge=0.0, le=1.0)
    """The share of the budget over which that number rises from 2, as in HRM-Text; 0: it is whole from the start."""
    start: Literal["fixed", "random"] = "fixed"
    """`fixed`: one vector for every row and position. `random`: drawn for each row and position (EqR)."""
    starts: int = Field(1, ge=1, le=64)
    """Random starts of each row in training, of which the one with the lowest loss is trained (winner takes all)."""
    damping: float = Field(0.0, ge=0.0, lt=1.0)
    """The share of the old state that a call keeps: z = damping * z + (1 - damping) * f(z + input) + noise (1 - the
    lambda of EqR)."""
    noise: float = Field(0.0, ge=0.0)
    """The standard deviation of that noise, which is drawn in training only."""
    curriculum: tuple[DepthStage, ...] = ()
    """Stages with fewer cycles at the start of the training; full depth after the last, and in every evaluation."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.starts > 1 and self.start == "fixed":
            raise ValueError(f"starts must be 1 where start is `fixed`, got {self.starts}; set start: random")
        if 0 < self.puzzle_tokens < -(-self.puzzle_embedding_size // self.hidden_size) or (
            self.puzzle_tokens and not self.puzzle_embedding_size
        ):
            raise ValueError(
                f"puzzle_tokens must hold puzzle_embedding_size = {self.puzzle_embedding_size} values of hidden_size = "
                f"{self.hidden_size} each and no less, got {self.puzzle_tokens}; set 0 for as many as are needed"
            )
        if self.gradient_steps == 1 and "H" in self.calls(1.0):
            raise ValueError("gradient_steps must be >= 2 for a model of two states, or its input never learns, got 1")
        most = self.gradient_steps or self.own_gradient_steps(1.0)
        if self.gradient_warmup_fraction and most <= FIRST_GRADIENT_STEPS:
            raise ValueError(
                f"gradient_warmup_fraction must be left out where {most} calls carry gradient, as at its start, got "
                f"{self.gradient_warmup_fraction}; raise gradient_steps, or leave it out"
            )
        ends = [stage.until for stage in self.curriculum]
        if ends != sorted(set(ends)):
            raise ValueError(f"the stages' `until` must rise, got {ends}; order them")
        if self.positions != "rotary" and self.rotary_theta != 10000.0:
            raise ValueError(
                f"rotary_theta must be left out where positions are `{self.positions}`, got {self.rotary_theta}; "
                "set positions: rotary, or leave it out"
            )
        return self

    def halting_rule(self) -> HaltingSpec:
        return self.halting

    def num_prefix(self, shape: TaskShape) -> int:
        """Positions taken by the puzzle embedding."""
        if not shape.num_puzzle_identifiers:
            return 0
        return self.puzzle_tokens or -(-self.puzzle_embedding_size // self.hidden_size)

    def packing_problem(self, shape: TaskShape) -> Problem | None:
        if not self.num_prefix(shape):
            return None
        return Problem(
            "model.puzzle_embedding_size",
            f"must be 0 for rows of several documents, got {self.puzzle_embedding_size}: its positions stand before "
            "the first document only",
            "Set model.puzzle_embedding_size: 0, or build the dataset without packing",
        )

    @abstractmethod
    def calls(self, share: float) -> str:
        """The calls of a segment in time order, a letter each, with this share of the cycles."""

    @abstractmethod
    def own_gradient_steps(self, share: float) -> int:
        """How many of the last of these calls carry gradient where `gradient_steps` does not say."""

    @abstractmethod
    def depth_of(self, call: str) -> int:
        """Layers of the stack that a call runs."""

    def block_of(self, call: str, shape: TaskShape) -> BlockShape:
        """The blocks of the stack that a call runs."""
        return self.block()

    def calls_at(self, spent: float) -> tuple[str, int]:
        """The calls at this point of the training, and how many of the first carry no gradient."""
        share = next((stage.share for stage in self.curriculum if spent < stage.until), 1.0)
        calls = self.calls(share)
        most = self.gradient_steps or self.own_gradient_steps(share)
        return calls, max(0, len(calls) - gradient_steps_at(spent, most, self.gradient_warmup_fraction))

    def flops(self, shape: TaskShape, spent: float = 1.0) -> Flops:
        length = shape.sequence_length + self.num_prefix(shape)
        calls, first_with_gradient = self.calls_at(spent)
        costs = [self.depth_of(call) * self.block_of(call, shape).flops(length) for call in calls]
        readings = {"none": 0, "q_loss": shape.sequence_length}.get(self.halting.rule, 1)
        q_head = 4.0 * self.hidden_size * readings
        tokens = 2.0 * shape.sequence_length * self.hidden_size * shape.vocab_size
        head = tokens + q_head
        forward = sum(costs) + head
        with_gradient = sum(costs[first_with_gradient:])
        training = forward + 2.0 * (with_gradient + head)
        if self.starts > 1:
            training += self.starts * forward
        if self.halting.rule == "q_with_target" and self.halting.segments > 1:
            unread = 6.0 * (length - 1) * self.hidden_size * self.block_of(calls[-1], shape).inner_size
            training += sum(costs) - unread + q_head
        if self.halting.rule == "q_loss":  # on a mean over a row's segments, of which the last needs no further one
            count = self.halting.segments
            training += (count - 1) / 2 * (sum(costs) + q_head) + (count - 1) / count * tokens
        return Flops(forward, training, with_gradient)


def scaled(count: int, share: float) -> int:
    """This share of a number of cycles, one at the least."""
    return max(1, round(share * count))


class _Seen(NamedTuple):
    """What a pass sees: where its positions are, what they may look at, what is known of earlier ones."""

    tables: Tensor | None
    mask: Tensor | None
    cache: CachePass | None


class RecursiveModel(Model):
    """The module; parameter names follow the originals' state dicts."""

    start_of: Mapping[str, str] = {"z_H": "H_init", "z_L": "L_init"}
    """The states, the one that is read out first, and the buffers of their fixed starts."""

    def __init__(self, spec: RecursiveSpec, shape: TaskShape) -> None:
        super().__init__()
        self.spec, size, self.starts = spec, spec.hidden_size, spec.starts
        self.prefix, self.packing_problem = spec.num_prefix(shape), spec.packing_problem(shape)
        self.length = shape.sequence_length + self.prefix
        self.embed_tokens = Embedding(shape.vocab_size, size, size**-0.5)
        self.puzzle_emb = PuzzleTable(shape.num_puzzle_identifiers, spec.puzzle_embedding_size) if self.prefix else None
        self.embed_pos = Embedding(self.length, size, size**-0.5) if spec.positions == "learned" else None
        rotary = spec.positions == "rotary"
        self.rotary = Rotary(size // spec.num_heads, self.length, spec.rotary_theta) if rotary else None
        self.build_stacks(shape)
        self.lm_head = None if spec.tied_embeddings else Linear(size, shape.vocab_size)
        self.q_head = Linear(size, 2, bias=True)
        for name in self.start_of.values():
            self.register_buffer(name, truncated_normal((size,), 1.0))
        with torch.no_grad():
            self.q_head.weight.zero_()
            assert self.q_head.bias is not None
            # A classifier of positions starts undecided, the originals' Q of a row at "go on"
            self.q_head.bias.fill_(0.0 if spec.halting.rule == "q_loss" else -5.0)

    @abstractmethod
    def build_stacks(self, shape: TaskShape) -> None:
        """Make the stacks."""

    @abstractmethod
    def stack(self, call: str) -> Stack:
        """The stack that a call runs."""

    def initial_state(self, num_rows: int, draws: Draws) -> State:
        shape = (self.length, self.spec.hidden_size)
        if self.spec.start == "random":
            return {name: draws.truncated_normal(shape).to(self.compute_dtype) for name in self.start_of}
        vectors = {name: self.get_buffer(buffer).to(self.compute_dtype) for name, buffer in self.start_of.items()}
        return {name: vector.expand(num_rows, *shape) for name, vector in vectors.items()}

    def segment(self, state: State, rows: Rows, draws: Draws, cache: CachePass | None = None) -> SegmentOutput:
        z = self._recur(state, rows, draws, cache=cache)
        answer = z[next(iter(self.start_of))]
        tokens = answer[:, self.prefix :]
        return SegmentOutput(z, tokens, self.head, self._q(answer), self._q_positions(tokens))

    def next_q(self, state: State, rows: Rows, draws: Draws) -> Tensor | None:
        return self._q(self._recur(state, rows, draws, first=True)[next(iter(self.start_of))])

    def _recur(
        self, state: State, rows: Rows, draws: Draws, first: bool = False, cache: CachePass | None = None
    ) -> State:
        """All calls of a segment; with `first` the last one gives the first position alone."""
        past = 0 if cache is None else cache.past
        x, z, seen = self._embed(rows, past), dict(state), self._seen(rows, past, cache)
        calls, first_with_gradient = self.spec.calls_at(self.spent if self.training else 1.0)
        for number, call in enumerate(calls):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= first_with_gradient):
                self._call(call, z, x, draws, first and number == len(calls) - 1, seen)
        return z

    def _call(self, call: str, z: State, x: Tensor, draws: Draws, first: bool, seen: _Seen) -> None:
        """Run one stack and update its state in `z`."""
        slow, *rest = self.start_of
        fast = rest[0] if rest else slow
        name, other = (slow, z[fast]) if call == "H" else (fast, z[slow] + x if rest else x)
        new = self.stack(call)(z[name] + other, seen.tables, draws, first, seen.mask, seen.cache)
        if self.spec.damping:
            new = self.spec.damping * z[name][:, : new.shape[1]] + (1.0 - self.spec.damping) * new
        if self.spec.noise and draws.training:
            new = new + self.spec.noise * draws.normal(tuple(new.shape[1:])).to(new.dtype)
        z[name] = new

    def _seen(self, rows: Rows, past: int, cache: CachePass | None) -> _Seen:
        """Raises SpecError for rows of several documents where the model cannot keep them apart."""
        if self.packing_problem is not None and "documents" in rows:
            raise SpecError(self.packing_problem)
        mask = visible(rows, self.spec.causal, past)
        if self.rotary is None:
            return _Seen(None, mask, cache)
        where = positions_of(rows, past)
        if self.prefix:
            where = torch.arange(self.length, device=where.device)
        return _Seen(self.rotary(where), mask, cache)

    def _q_positions(self, answer: Tensor) -> Tensor | None:
        if self.spec.halting.rule != "q_loss":
            return None
        q: Tensor = self.q_head(answer.float())
        return q[..., 0]

    def _q(self, answer: Tensor) -> Tensor | None:
        if self.spec.halting.rule in ("none", "q_loss"):
            return None
        # The originals compute q in the compute dtype (bfloat16: spacing 0.03 near -5); float32 here.
        q: Tensor = self.q_head(answer[:, 0].float())
        return q

    def _embed(self, rows: Rows, past: int) -> Tensor:
        """[B, P+S, D]: puzzle tokens then token embeddings, with learned positions if any, times sqrt(D)."""
        x: Tensor = self.embed_tokens(rows["inputs"], self.compute_dtype)
        if self.puzzle_emb is not None:
            vectors = self.puzzle_emb(rows["puzzle_identifiers"]).to(x.dtype)
            room = self.prefix * self.spec.hidden_size - vectors.shape[-1]
            x = torch.cat((nn.functional.pad(vectors, (0, room)).view(len(x), self.prefix, -1), x), dim=1)
        if self.embed_pos is not None:
            x = math.sqrt(0.5) * (x + self.embed_pos(self._places(rows, past), x.dtype))
        return x * math.sqrt(self.spec.hidden_size)

    def _places(self, rows: Rows, past: int) -> Tensor:
        """[S] or [B, S]: which learned position each one has; in rows of several documents counted from its own's."""
        if "documents" in rows and "positions" not in rows:
            return places(rows["documents"])[:, past:]
        where = positions_of(rows, past)
        return torch.arange(self.length, device=where.device) if self.prefix else where
