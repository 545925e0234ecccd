"""One training step = one segment: refill halted slots, run the model, score, decide who halts.

The carry lives across optimizer steps: a slot keeps its row until the row halts. Follows the ACT wrapper and the loss
head of sapientinc/HRM; the puzzle models and the text models share it (text: `halting.rule: none` or `q_loss`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from hrm.models import Model, Rows, SegmentOutput, State
from hrm.nn.draws import Draws
from hrm.nn.halting import HaltingSpec, halted_rows
from hrm.nn.losses import LossKind, LossTerms
from hrm.nn.readout import Trained, read, read_trained
from hrm.q_losses import continue_target, full_depth_losses, position_losses, row_losses
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

    def parts(self, count: int) -> list[Carry]:
        """Its slots in so many runs, sizes differing by at most one."""
        state, rows = ({n: v.tensor_split(count) for n, v in held.items()} for held in (self.state, self.rows))
        plain = [value.tensor_split(count) for value in (self.segments, self.halted, self.refills)]
        return [
            Carry(
                state={name: values[number] for name, values in state.items()},
                segments=segments,
                halted=halted,
                refills=refills,
                rows={name: values[number] for name, values in rows.items()},
            )
            for number, (segments, halted, refills) in enumerate(zip(*plain, strict=True))
        ]

    def join(self, parts: list[Carry]) -> None:
        """Take over what became of its parts."""
        self.state = {name: torch.cat([part.state[name] for part in parts]) for name in parts[0].state}
        self.segments = torch.cat([part.segments for part in parts])
        self.halted = torch.cat([part.halted for part in parts])


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
    """The objective: the language loss by the task's reduction, with what `LossTerms` adds, plus the Q losses."""
    sums: dict[str, Tensor]
    """Float32 scalars: `loss` (the cross-entropy alone), `tokens`, `correct`, `z_loss` where there is one; over rows
    that halted `halted`, `exact`, `accuracy`, `segments`; what `hrm.q_losses` adds where there is a Q."""


def train_segment(
    model: Model, carry: Carry, halting: HaltingSpec, terms: LossTerms, row_weight: Tensor, draws: Draws
) -> Scored:
    """Run one segment on the refilled carry and update it in place. row_weight [B]: the weight of a row's summed loss.

    The new state is detached. The caller divides by the normaliser and calls backward.
    """
    if model.starts == 1:
        output = model.segment(carry.state, carry.rows, draws)
        carry.state = _detached(output.state)
    else:
        output = _best_start(model, carry, terms.kind, draws)
    carry.segments = carry.segments + 1
    carry.halted = halted_rows(halting, output.q, carry.segments, draws)
    target = None
    if halting.rule == "q_with_target" and halting.segments > 1:
        is_last = carry.segments >= halting.segments
        target = continue_target(model, _detached(output.state), carry.rows, is_last, draws)
    trained = read_trained(output.answer, output.head, carry.rows["labels"], row_weight, terms)
    exact, ended, sums = _counted(trained, carry, row_weight)
    if terms.z_loss:
        sums["z_loss"] = (trained.squared_log_z.sum(-1) * row_weight).sum()
    loss = trained.loss
    if output.q is not None:
        loss = loss + terms.q_weight * row_losses(output.q, exact, ended, target, sums)
    if output.q_positions is not None:
        state, left = _detached(output.state), halting.segments - carry.segments
        deep = full_depth_losses(model, state, carry.rows, left, trained.nats, terms.kind, draws)
        at_hand = output.q_positions, trained.nats, deep, carry.rows["labels"], row_weight
        loss = loss + terms.q_weight * position_losses(*at_hand, halting.tolerance, sums)
    return Scored(loss, {name: value.float() for name, value in sums.items()})


def _detached(state: State) -> State:
    return {name: value.detach() for name, value in state.items()}


def _best_start(model: Model, carry: Carry, loss_kind: LossKind, draws: Draws) -> SegmentOutput:
    """Advance all starts of each row; the segment of the one with the lowest loss is done again, with gradient."""
    count, index = model.starts, torch.arange(len(carry.halted), device=carry.halted.device)
    with torch.no_grad():
        many = {name: value.repeat_interleave(count, 0) for name, value in carry.rows.items()}
        flat = {name: value.flatten(0, 1) for name, value in carry.state.items()}
        output = model.segment(flat, many, draws.spread(count))
        nats, _ = read(output.answer, output.head, many["labels"], loss_kind)
        best = nats.sum(-1).view(-1, count).argmin(-1)
    chosen = {name: value[index, best] for name, value in carry.state.items()}
    carry.state = {name: value.reshape(-1, count, *value.shape[1:]) for name, value in output.state.items()}
    return model.segment(chosen, carry.rows, draws)


@torch.no_grad()
def _counted(trained: Trained, carry: Carry, row_weight: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """[B] bool: rows that are right in every scored token, rows that ended; and the sums that every model has."""
    labels = carry.rows["labels"]
    scored = labels != IGNORE
    tokens = scored.sum(-1)
    correct = ((trained.tokens == labels) & scored).sum(-1)
    exact = correct == tokens
    ended = carry.halted & (tokens > 0)
    return (
        exact,
        ended,
        {
            "loss": (trained.nats.sum(-1) * row_weight).sum(),
            "tokens": tokens.sum(),
            "correct": correct.sum(),
            "halted": ended.sum(),
            "exact": (exact & ended).sum(),
            "accuracy": (correct / tokens.clamp(min=1) * ended).sum(),
            "segments": (carry.segments * ended).sum(),
        },
    )


def means(sums: dict[str, float], normaliser: float, batch_size: int) -> dict[str, float]:
    """The sums of a step over all workers as means: the loss as trained, accuracies, what the ended rows show."""
    tokens = max(sums["tokens"], 1.0)
    metrics = {"loss": sums["loss"] / normaliser, "token_accuracy": sums["correct"] / tokens}
    if sums["halted"]:
        metrics["exact_accuracy"] = sums["exact"] / sums["halted"]
        metrics["segments"] = sums["segments"] / sums["halted"]
    if "z_loss" in sums:
        metrics["z_loss"] = sums["z_loss"] / normaliser
    if "q_halt_loss" in sums:
        metrics["q_halt_loss"] = sums["q_halt_loss"] / batch_size
        metrics["q_halt_accuracy"] = sums["q_halt_correct"] / max(sums["halted"], 1.0)
    if "q_position_loss" in sums:
        metrics["q_halt_loss"] = sums["q_position_loss"] / normaliser
        metrics["q_halt_accuracy"] = sums["q_position_correct"] / tokens
        metrics["q_halt_target"] = sums["q_position_enough"] / tokens
    if "q_continue_loss" in sums:
        metrics["q_continue_loss"] = sums["q_continue_loss"] / batch_size
    return metrics
