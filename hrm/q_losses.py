"""What the Q values of a segment are trained on: whether to halt, and whether a further segment would pay.

The Q of a row (puzzles) learns whether the row's answer is right, and in HRM what the next segment's Q says. The Q of a
position (causal text) learns whether its loss is already within a tolerance of its loss at full depth.

Shapes: B rows, S positions.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hrm.models import Model, Rows, State
from hrm.nn.draws import Draws
from hrm.nn.losses import LossKind
from hrm.nn.readout import read
from hrm.tasks import IGNORE

Sums = dict[str, Tensor]


@torch.no_grad()
def continue_target(model: Model, state: State, rows: Rows, is_last: Tensor, draws: Draws) -> Tensor:
    """[B]: sigmoid of the best Q after one more segment (of q_halt alone where this segment was the last)."""
    q = model.next_q(state, rows, draws)
    assert q is not None
    return torch.where(is_last, q[:, 0], q.max(dim=-1).values).sigmoid()


def row_losses(q: Tensor, exact: Tensor, ended: Tensor, target: Tensor | None, sums: Sums) -> Tensor:
    """The binary cross-entropies of both Q values q [B, 2], summed over rows; adds their sums."""
    halt = F.binary_cross_entropy_with_logits(q[:, 0], exact.float(), reduction="sum")
    sums["q_halt_loss"] = halt.detach()
    sums["q_halt_correct"] = (((q[:, 0] >= 0) == exact) & ended).sum()
    if target is None:
        return halt
    go_on = F.binary_cross_entropy_with_logits(q[:, 1], target, reduction="sum")
    sums["q_continue_loss"] = go_on.detach()
    return halt + go_on


@torch.no_grad()
def full_depth_losses(
    model: Model, state: State, rows: Rows, left: Tensor, nats: Tensor, kind: LossKind, draws: Draws
) -> Tensor:
    """[B, S]: the losses when the segments that are left [B] to each row are done, too, by the weights as they are.

    state, nats: after the present segment; nats are given back where none is left.
    """
    for number in range(1, int(left.max()) + 1):
        output = model.segment(state, rows, draws)
        state = output.state
        ends = left == number
        if bool(ends.any()):
            nats = torch.where(ends.unsqueeze(1), read(output.answer, output.head, rows["labels"], kind)[0], nats)
    return nats


def position_losses(
    q: Tensor, nats: Tensor, at_full_depth: Tensor, labels: Tensor, row_weight: Tensor, tolerance: float, sums: Sums
) -> Tensor:
    """The binary cross-entropy of q [B, S], summed as the language loss is; adds its sums."""
    scored, enough = labels != IGNORE, nats <= at_full_depth + tolerance
    by_position = F.binary_cross_entropy_with_logits(q, enough.float(), reduction="none") * scored
    loss = (by_position.sum(-1) * row_weight).sum()
    sums["q_position_loss"] = loss.detach()
    sums["q_position_correct"] = (((q >= 0) == enough) & scored).sum()
    sums["q_position_enough"] = (enough & scored).sum()
    return loss
