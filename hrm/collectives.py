"""What the workers of one trial sum over each other in a step; with one worker nothing is sent."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hrm.context import TrainContext


def reduce_sums(sums: dict[str, Tensor], context: TrainContext) -> dict[str, float]:
    """The sums over all workers, in one collective and one copy to the host."""
    stacked = torch.stack([value.to(context.device, torch.float32) for value in sums.values()])
    return dict(zip(sums, context.all_reduce(stacked).tolist(), strict=True))


def reduce_gradients(model: nn.Module, context: TrainContext) -> None:
    """Sum the gradients over the workers (each holds its share of the global mean already)."""
    if context.world_size == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = context.all_reduce(torch.cat([g.flatten() for g in gradients]))
    for gradient, part in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def mean_seconds(seconds: float, context: TrainContext) -> float:
    """The mean over the workers, so that they all agree on a budget of seconds."""
    if context.world_size == 1:
        return seconds
    total = context.all_reduce(torch.tensor([seconds], device=context.device))
    return float(total) / context.world_size
