"""The contract of an optimizer. One file here = one optimizer; learning-rate schedules are in `schedule`.

A model's parameters fall into three groups by name and shape (`group_of`); each has its own decay, and a peak learning
rate that the schedule scales.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field
from torch import nn
from torch.optim import Optimizer

from hrm.models import Model
from hrm.spec import Spec

Beta = Annotated[float, Field(ge=0.0, lt=1.0)]
Group = Literal["matrices", "embeddings", "vectors"]
_TABLES = {"embed_tokens", "embed_pos", "lm_head"}


def group_of(name: str, parameter: nn.Parameter) -> Group:
    """The group of a parameter by its dotted name.

    `embeddings`: token and position tables and the head that reads tokens off. `matrices`: the hidden layers' linear
    maps, fused ones (q, k and v; gate and up) as they are. `vectors`: all else: biases, the Q head (its rows are two
    separate readings), and convolutions (their [kernel, channels] weights act on each channel alone: no linear map).
    """
    parts = name.split(".")
    if _TABLES.intersection(parts):
        return "embeddings"
    if parameter.ndim != 2 or "q_head" in parts or any("conv" in part for part in parts):
        return "vectors"
    return "matrices"


class OptimizerSpec(Spec, ABC):
    """What every optimizer has. Decay is decoupled; by default it hits every parameter, as in the original."""

    kind: str
    learning_rate: float = Field(1e-4, gt=0.0, le=1.0)
    """The peak; the schedule scales it."""
    weight_decay: float = Field(0.1, ge=0.0)
    embedding_weight_decay: float | None = Field(None, ge=0.0)
    """Of the token and position tables and the output head; null: `weight_decay`."""
    vector_weight_decay: float | None = Field(None, ge=0.0)
    """Of biases, convolutions and the Q head; null: `weight_decay`."""
    beta1: Beta = 0.9
    beta2: Beta = 0.95
    puzzle_learning_rate: float = Field(1e-2, ge=0.0)
    """Sign-SGD on the rows of the puzzle table, where the model has one; follows the same schedule."""
    puzzle_weight_decay: float = Field(0.1, ge=0.0)

    @abstractmethod
    def build(self, model: Model) -> Optimizer:
        """The optimizer of `groups(model)`; its per-parameter state must be tensors, so that it can be saved."""

    @classmethod
    @abstractmethod
    def smoke(cls) -> Self:
        """A setting for contract tests."""

    def groups(self, model: Model) -> list[dict[str, Any]]:
        """The model's parameters as torch wants them: `name`, `params`, `weight_decay`, `lr` and its `peak_lr`."""
        members: dict[Group, list[nn.Parameter]] = {group: [] for group in get_args(Group)}
        for name, parameter in model.named_parameters():
            members[group_of(name, parameter)].append(parameter)
        return [
            {"name": group, "params": parameters, "weight_decay": self.decay(group), "lr": peak, "peak_lr": peak}
            for group, parameters in members.items()
            for peak in [self.peak(group)]
        ]

    def peak(self, group: Group) -> float:
        """The peak learning rate of a group."""
        return self.learning_rate

    def decay(self, group: Group) -> float:
        """The weight decay of a group."""
        own = {"embeddings": self.embedding_weight_decay, "vectors": self.vector_weight_decay}.get(group)
        return self.weight_decay if own is None else own


def scale_rates(optimizer: Optimizer, factor: float) -> None:
    """Set every group's rate to its peak times the schedule's factor."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
