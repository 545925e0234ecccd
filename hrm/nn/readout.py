"""From answers to losses and tokens, without all logits at once where a vocabulary is large.

Up to `MOST_LOGITS` positions x vocabulary the logits are computed whole. Beyond, they are computed for some positions
at a time and forgotten; a training takes their gradient at once, so that nothing is computed twice.

Shapes: B rows, S positions, N = B * S, D hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hrm.nn.losses import LossKind, LossTerms, cross_entropy, trained_loss

MOST_LOGITS = 2**24
"""The most logits that are in memory at once: 64 MiB in float32, of which there are a few copies."""


@dataclass(frozen=True, slots=True)
class Head:
    """Reads tokens off: x [..., D] -> logits [..., V] in x's dtype."""

    weight: Tensor
    """[V, D], float32."""

    def __call__(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training reads off. All but `loss` without gradient."""

    loss: Tensor
    """Scalar: what is trained, summed over the positions of a row and, by the rows' weights, over rows."""
    nats: Tensor
    """[B, S] float32: the cross-entropy."""
    tokens: Tensor
    """[B, S]: the most likely ones."""
    squared_log_z: Tensor
    """[B, S] float32; 0 where no z-loss is asked for."""


def read_trained(answer: Tensor, head: Head, labels: Tensor, row_weight: Tensor, terms: LossTerms) -> Trained:
    """answer [B, S, D], labels [B, S], row_weight [B]: the weight of a row's summed loss."""
    if _fits(labels, head):
        logits = head(answer)
        trained, nats, squared = trained_loss(logits, labels, terms)
        return Trained((trained.sum(-1) * row_weight).sum(), nats, logits.detach().argmax(-1), squared)
    weight = row_weight.unsqueeze(1).expand_as(labels).flatten()
    flat = answer.flatten(0, 1), head.weight, labels.flatten(), weight
    loss, nats, tokens, squared = _InChunks.apply(*flat, terms)  # type: ignore[no-untyped-call]
    return Trained(loss, *(value.view_as(labels) for value in (nats, tokens, squared)))


@torch.no_grad()
def read(answer: Tensor, head: Head, labels: Tensor, kind: LossKind) -> tuple[Tensor, Tensor]:
    """The cross-entropy [B, S] float32 and the most likely token [B, S] of each position."""
    if _fits(labels, head):
        logits = head(answer)
        return cross_entropy(logits, labels, kind), logits.argmax(-1)
    flat, flat_labels = answer.flatten(0, 1), labels.flatten()
    parts = [_said(head(flat[some]), flat_labels[some], kind) for some in _chunks(len(flat), head.weight)]
    nats, tokens = (torch.cat(values).view_as(labels) for values in zip(*parts, strict=True))
    return nats, tokens


def _said(logits: Tensor, labels: Tensor, kind: LossKind) -> tuple[Tensor, Tensor]:
    return cross_entropy(logits, labels, kind), logits.argmax(-1)


def _fits(labels: Tensor, head: Head) -> bool:
    return labels.numel() * len(head.weight) <= MOST_LOGITS


def _chunks(count: int, weight: Tensor) -> Iterator[slice]:
    size = max(1, MOST_LOGITS // len(weight))
    return (slice(start, start + size) for start in range(0, count, size))


class _InChunks(torch.autograd.Function):
    """The weighted sum of the trained losses; its gradient is ready when its value is."""

    @staticmethod
    def forward(
        ctx: Any, answer: Tensor, weight: Tensor, labels: Tensor, share: Tensor, terms: LossTerms
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """answer [N, D], weight [V, D], labels [N], share [N]: the weight of each position."""
        wanted = any(ctx.needs_input_grad)
        gradient, by_position = torch.zeros_like(weight) if wanted else None, []
        for some in _chunks(len(answer), weight):
            own, shared = (value.detach().requires_grad_(wanted) for value in (answer[some], weight))
            with torch.set_grad_enabled(wanted):
                logits = Head(shared)(own)
                trained, nats, squared = trained_loss(logits, labels[some], terms)
                loss = (trained * share[some]).sum()
            tokens = logits.detach().argmax(-1)
            of_own = own
            if gradient is not None:
                of_own, of_shared = torch.autograd.grad(loss, (own, shared))
                gradient += of_shared
            by_position.append((of_own, trained.detach() * share[some], nats, tokens, squared))
        of_answer, losses, nats, tokens, squared = (torch.cat(values) for values in zip(*by_position, strict=True))
        ctx.save_for_backward(of_answer, gradient)
        ctx.mark_non_differentiable(nats, tokens, squared)
        return losses.sum(), nats, tokens, squared

    @staticmethod
    def backward(ctx: Any, upstream: Tensor, *unused: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        of_answer, gradient = ctx.saved_tensors
        return of_answer * upstream, gradient * upstream, None, None, None
