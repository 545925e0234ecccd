"""AdamW (Loshchilov and Hutter 2019), PyTorch's own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, Self

from pydantic import Field
from torch import nn
from torch.optim import AdamW, Optimizer

from hrm.optim import OptimizerSpec


class AdamWSpec(OptimizerSpec):
    """AdamW."""

    kind: Literal["adamw"] = "adamw"
    epsilon: float = Field(1e-8, gt=0.0)

    def build(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        betas = (self.beta1, self.beta2)
        return AdamW(parameters, self.learning_rate, betas, self.epsilon, self.weight_decay, foreach=True)

    @classmethod
    def smoke(cls) -> Self:
        return cls(learning_rate=1e-3)
