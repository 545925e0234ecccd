"""The contract of an optimizer. One file here = one optimizer; learning-rate schedules are in `schedule`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Annotated, Self

from pydantic import Field
from torch import nn
from torch.optim import Optimizer

from hrm.spec import Spec

Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


class OptimizerSpec(Spec, ABC):
    """What every optimizer has. Decay is decoupled and hits every parameter, as in the original."""

    kind: str
    learning_rate: float = Field(1e-4, gt=0.0, le=1.0)
    """The peak; the schedule scales it."""
    weight_decay: float = Field(0.1, ge=0.0)
    beta1: Beta = 0.9
    beta2: Beta = 0.95
    puzzle_learning_rate: float = Field(1e-2, ge=0.0)
    """Sign-SGD on the rows of the puzzle table, where the model has one; follows the same schedule."""
    puzzle_weight_decay: float = Field(0.1, ge=0.0)

    @abstractmethod
    def build(self, parameters: Iterable[nn.Parameter]) -> Optimizer:
        """The optimizer; its per-parameter state must be tensors, so that it can be saved."""

    @classmethod
    @abstractmethod
    def smoke(cls) -> Self:
        """A setting for contract tests."""
