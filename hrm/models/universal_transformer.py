"""A universal transformer (Dehghani et al. 2019): one stack applied again and again, the input added each time.

`cycles` calls of h = f(h + x) from a fixed start. By default gradient flows through all of them; `gradient_steps` cuts
it to the last ones. With URM's convolution missing and no hierarchy it is the control for depth by recursion alone.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field

from hrm.models.recursion import RecursiveModel, RecursiveSpec, scaled
from hrm.nn.layers import Stack
from hrm.tasks import TaskShape


class UniversalTransformerSpec(RecursiveSpec):
    """A universal transformer: sizes and cycles."""

    kind: Literal["universal_transformer"] = "universal_transformer"
    num_layers: int = Field(4, ge=1)
    cycles: int = Field(4, ge=1)

    def build(self, shape: TaskShape) -> UniversalTransformer:
        return UniversalTransformer(self, shape)

    def calls(self, share: float) -> str:
        return "L" * scaled(self.cycles, share)

    def own_gradient_steps(self, share: float) -> int:
        return scaled(self.cycles, share)

    def depth_of(self, call: str) -> int:
        return self.num_layers

    @classmethod
    def smoke(cls) -> Self:
        return cls(hidden_size=16, num_heads=2, num_layers=1, cycles=2, causal=True, dropout=0.1)


class UniversalTransformer(RecursiveModel):
    """The module."""

    spec: UniversalTransformerSpec
    start_of = {"h": "init_hidden"}  # noqa: RUF012  (read only)

    def build_stacks(self, shape: TaskShape) -> None:
        self.level = Stack(self.spec.num_layers, self.spec.block())

    def stack(self, call: str) -> Stack:
        return self.level
