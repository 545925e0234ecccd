"""One training step = one segment: refill halted slots, run the model, score, decide who halts.

The carry lives across optimizer steps: a slot keeps its row until the row halts. Follows the ACT wrapper and the loss
head of sapientinc/HRM; the puzzle models and the text models share it (text: `halting.rule: none`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hrm.models import Model, Rows, SegmentOutput, State
from hrm.nn.draws import Draws
from hrm.nn.halting import HaltingSpec, halted_rows
from hrm.nn.losses import LossKind, cross_entropy
from hrm.tasks import IGNORE


@dataclass(slots=True)
class Carry:
    """What B slots hold between steps."""

    state: State
    """[B, ...] each; [B, K, ...] where the model has K > 1 starts."""
    segments: Tensor
    """[B] int32: segments that the present row has had."""
    halted: Tensor
    """[B] bool: the slot takes a new row at the next step."""
    refills: Tensor
    """[B] int64: how many rows the slot has taken: the data cursor."""
    rows: Rows

    @classmethod
    def empty(cls, model: Model, num_rows: int, sequence_length: int, device: torch.device) -> Carry:
        """All slots halted: the first step fills them."""
        blank = torch.zeros(num_rows, sequence_length, dtype=torch.int64, device=device)
        identifiers = torch.zeros(num_rows, dtype=torch.int64, device=device)
        return cls(
            state=_fresh_state(model, num_rows, Draws(0, 0, identifiers)),
            segments=torch.zeros(num_rows, dtype=torch.int32, device=device),
            halted=torch.ones(num_rows, dtype=torch.bool, device=device),
            refills=torch.zeros(num_rows, dtype=torch.int64, device=device),
            rows={"inputs": blank, "labels": blank.clone(), "puzzle_identifiers": identifiers},
        )

    def refill(self, model: Model, rows: Rows, draws: Draws) -> None:
        """Put `rows` (one for each slot) into the slots that have halted, with fresh state."""
        fresh = _fresh_state(model, len(self.halted), draws)
        self.state = {name: _where(self.halted, fresh[name], old) for name, old in self.state.items()}
        self.rows = {name: _where(self.halted, new, self.rows.get(name, new)) for name, new in rows.items()}
        self.segments = self.segments.masked_fill(self.halted, 0)
        self.refills = self.refills + self.halted


def _fresh_state(model: Model, num_rows: int, draws: Draws) -> State:
    if model.starts == 1:
        return model.initial_state(num_rows, draws)
    state = model.initial_state(num_rows * model.starts, draws.spread(model.starts))
    return {name: value.reshape(num_rows, model.starts, *value.shape[1:]) for name, value in state.items()}


def _where(mask: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(mask.view(-1, *[1] * (old.dim() - 1)), new, old)


@dataclass(frozen=True, slots=True)
class Scored:
    """The losses of one segment as sums over this worker's rows, to be divided by the global normaliser."""

    loss: Tensor
    """The objective: the language loss by the task's reduction, plus the Q losses."""
    sums: dict[str, Tensor]
    """Float32 scalars: `loss`, `tokens`, `correct`, and over rows that halted `halted`, `exact`, `accuracy`,
    `segments`, `q_halt_correct`; `q_halt_loss`, `q_continue_loss` where there is a Q."""


def train_segment(
    model: Model, carry: Carry, halting: HaltingSpec, loss_kind: LossKind, row_weight: Tensor, draws: Draws
) -> Scored:
    """Run one segment on the refilled carry and update it in place. row_weight [B]: the weight of a row's summed loss.

    The new state is detached. The caller divides by the normaliser and calls backward.
    """
    if model.starts == 1:
        output = model.segment(carry.state, carry.rows, draws)
        carry.state = {name: value.detach() for name, value in output.state.items()}
    else:
        output = _best_start(model, carry, loss_kind, draws)
    carry.segments = carry.segments + 1
    carry.halted = halted_rows(halting, output.q, carry.segments, draws)
    target = None
    if halting.rule == "q_with_target" and halting.segments > 1:
        state = {name: value.detach() for name, value in output.state.items()}
        target = _continue_target(model, state, carry, halting, draws)
    return _score(output, carry, loss_kind, row_weight, target)


def _best_start(model: Model, carry: Carry, loss_kind: LossKind, draws: Draws) -> SegmentOutput:
    """Advance all starts of each row; the segment of the one with the lowest loss is done again, with gradient."""
    count, index = model.starts, torch.arange(len(carry.halted), device=carry.halted.device)
    with torch.no_grad():
        many = {name: value.repeat_interleave(count, 0) for name, value in carry.rows.items()}
        flat = {name: value.flatten(0, 1) for name, value in carry.state.items()}
        output = model.segment(flat, many, draws.spread(count))
        loss = cross_entropy(output.logits, many["labels"], loss_kind).sum(-1)
        best = loss.view(-1, count).argmin(-1)
    chosen = {name: value[index, best] for name, value in carry.state.items()}
    carry.state = {name: value.reshape(-1, count, *value.shape[1:]) for name, value in output.state.items()}
    return model.segment(chosen, carry.rows, draws)


@torch.no_grad()
def _continue_target(model: Model, state: State, carry: Carry, halting: HaltingSpec, draws: Draws) -> Tensor:
    """[B]: sigmoid of the best Q after one more segment (of q_halt alone where this segment was the last)."""
    q = model.next_q(state, carry.rows, draws)
    assert q is not None
    last = carry.segments >= halting.segments
    return torch.where(last, q[:, 0], q.max(dim=-1).values).sigmoid()


def _score(
    output: SegmentOutput, carry: Carry, loss_kind: LossKind, row_weight: Tensor, target: Tensor | None
) -> Scored:
    labels = carry.rows["labels"]
    logits = output.logits
    by_row = cross_entropy(logits, labels, loss_kind).sum(-1)
    loss = (by_row * row_weight).sum()
    with torch.no_grad():
        scored = labels != IGNORE
        tokens = scored.sum(-1)
        correct = ((logits.argmax(-1) == labels) & scored).sum(-1)
        exact = correct == tokens
        ended = carry.halted & (tokens > 0)
        sums = {
            "loss": loss.detach(),
            "tokens": tokens.sum(),
            "correct": correct.sum(),
            "halted": ended.sum(),
            "exact": (exact & ended).sum(),
            "accuracy": (correct / tokens.clamp(min=1) * ended).sum(),
            "segments": (carry.segments * ended).sum(),
        }
    if output.q is not None:
        loss = loss + _q_losses(output.q, exact, ended, target, sums)
    return Scored(loss, {name: value.float() for name, value in sums.items()})


def _q_losses(q: Tensor, exact: Tensor, ended: Tensor, target: Tensor | None, sums: dict[str, Tensor]) -> Tensor:
    """0.5 x the binary cross-entropies of both Q values, summed over rows; adds their sums."""
    halt = F.binary_cross_entropy_with_logits(q[:, 0], exact.float(), reduction="sum")
    sums["q_halt_loss"] = halt.detach()
    sums["q_halt_correct"] = (((q[:, 0] >= 0) == exact) & ended).sum()
    if target is None:
        return 0.5 * halt
    go_on = F.binary_cross_entropy_with_logits(q[:, 1], target, reduction="sum")
    sums["q_continue_loss"] = go_on.detach()
    return 0.5 * (halt + go_on)


def means(sums: dict[str, float], normaliser: float, batch_size: int) -> dict[str, float]:
    """The sums of a step over all workers as means: the loss as trained, accuracies, what the ended rows show."""
    metrics = {"loss": sums["loss"] / normaliser, "token_accuracy": sums["correct"] / max(sums["tokens"], 1.0)}
    if sums["halted"]:
        metrics["exact_accuracy"] = sums["exact"] / sums["halted"]
        metrics["segments"] = sums["segments"] / sums["halted"]
    if "q_halt_loss" in sums:
        metrics["q_halt_loss"] = sums["q_halt_loss"] / batch_size
        metrics["q_halt_accuracy"] = sums["q_halt_correct"] / max(sums["halted"], 1.0)
    if "q_continue_loss" in sums:
        metrics["q_continue_loss"] = sums["q_continue_loss"] / batch_size
    return metrics
