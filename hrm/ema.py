"""An exponential moving average of the weights, to evaluate with: mean = decay*mean + (1-decay)*weight after each step.

It starts at the initial weights, in float32 and without bias correction, and covers parameters only: the puzzle table
and the initial states are buffers (as in TRM).
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class EMA:
    """The means of a model's parameters, by name."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        # A tied weight under each of its names, as in the state dict: else the raw one would overwrite its mean there
        named = dict(model.named_parameters(remove_duplicate=False))
        self._weights = [parameter.detach() for parameter in named.values()]
        self.means: dict[str, Tensor] = {name: parameter.detach().clone() for name, parameter in named.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        torch._foreach_lerp_(list(self.means.values()), self._weights, 1.0 - self.decay)

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor]) -> None:
        """Go on from these means; what else `weights` holds is passed over."""
        torch._foreach_copy_(list(self.means.values()), [weights[name] for name in self.means])

    @contextmanager
    def in_the_model(self) -> Generator[None, None, None]:
        """Inside, the model holds the means; afterwards its own weights again, bit for bit, whatever was raised."""
        own = [weight.clone() for weight in self._weights]
        try:
            torch._foreach_copy_(self._weights, list(self.means.values()))
            yield
        finally:
            torch._foreach_copy_(self._weights, own)
