"""The puzzle embedding: one vector for each puzzle identifier, trained by sign-SGD on the rows that a batch touches.

The table is no parameter of the main optimizer: millions of rows would cost it two moments each. Rows are gathered into
a leaf tensor, whose gradient is summed over equal identifiers, over all workers, before the sign is taken.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class PuzzleTable(nn.Module):
    """[num_identifiers, size], zero at the start."""

    def __init__(self, num_identifiers: int, size: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.zeros(num_identifiers, size))
        self._gathered: list[tuple[Tensor, Tensor]] = []

    def forward(self, identifiers: Tensor) -> Tensor:
        """[B] -> [B, size]; remembers the rows while gradients are recorded, those of every part of a step."""
        rows = self.get_buffer("weights")[identifiers]
        if torch.is_grad_enabled() and self.training:
            self._gathered.append((identifiers, rows.requires_grad_()))
        return rows

    @torch.no_grad()
    def sign_step(
        self, learning_rate: float, weight_decay: float, all_gather: Callable[[Tensor], Tensor] | None = None
    ) -> None:
        """row *= 1 - lr*wd; row -= lr*sign(sum of the gradients of its occurrences), for the rows gathered since the
        last step."""
        trained = [(identifiers, rows.grad) for identifiers, rows in self._gathered if rows.grad is not None]
        self._gathered = []
        if not trained:
            return
        identifiers, gradient = (torch.cat(parts) for parts in zip(*trained, strict=True))
        if all_gather is not None:
            identifiers, gradient = all_gather(identifiers), all_gather(gradient)
        rows, place = torch.unique(identifiers, return_inverse=True)
        total = torch.zeros(rows.shape[0], gradient.shape[1], device=gradient.device).index_add_(0, place, gradient)
        table = self.get_buffer("weights")
        table[rows] = table[rows] * (1.0 - learning_rate * weight_decay) - learning_rate * total.sign()
