"""AdamW (Loshchilov and Hutter 2019), PyTorch's own, in its fused form: on a CPU four times as fast as `foreach`."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field
from torch.optim import AdamW, Optimizer

from hrm.models import Model
from hrm.optim import OptimizerSpec


class AdamWSpec(OptimizerSpec):
    """AdamW."""

    kind: Literal["adamw"] = "adamw"
    epsilon: float = Field(1e-8, gt=0.0)

    def build(self, model: Model) -> Optimizer:
        return AdamW(self.groups(model), betas=(self.beta1, self.beta2), eps=self.epsilon, fused=True)

    @classmethod
    def smoke(cls) -> Self:
        return cls(learning_rate=1e-3)
