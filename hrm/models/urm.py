"""The Universal Reasoning Model (Gao et al. 2025, arXiv 2512.14693): one state, one stack, a convolution in its MLP.

H_cycles times L_cycles calls of h = f(h + x), of which the last L_cycles carry gradient. The original trains it with an
average of the weights (`ema: 0.999`) and with `halting.rule: q`. It stores the convolution in bfloat16; float32 here.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field

from hrm.models.recursion import RecursiveModel, RecursiveSpec, scaled
from hrm.nn.layers import BlockShape, Stack
from hrm.tasks import TaskShape


class URMSpec(RecursiveSpec):
    """URM: sizes, cycles, the convolution's kernel, halting."""

    kind: Literal["urm"] = "urm"
    num_layers: int = Field(4, ge=1)
    H_cycles: int = Field(2, ge=1)
    L_cycles: int = Field(6, ge=1)
    gated_convolution: int = Field(2, ge=0, le=16)
    """Kernel of the depthwise convolution between the MLP's two products; 0 for none."""

    def build(self, shape: TaskShape) -> URM:
        return URM(self, shape)

    def calls(self, share: float) -> str:
        return "L" * (scaled(self.L_cycles, share) * scaled(self.H_cycles, share))

    def own_gradient_steps(self, share: float) -> int:
        return scaled(self.L_cycles, share)

    def depth_of(self, call: str) -> int:
        return self.num_layers

    def block_of(self, call: str, shape: TaskShape) -> BlockShape:
        return self.block(gated_convolution=self.gated_convolution)

    @classmethod
    def smoke(cls) -> Self:
        return cls(hidden_size=16, num_heads=2, num_layers=1, H_cycles=2, L_cycles=2, causal=True, dropout=0.1)


class URM(RecursiveModel):
    """The module."""

    spec: URMSpec
    start_of = {"h": "init_hidden"}  # noqa: RUF012  (read only)

    def build_stacks(self, shape: TaskShape) -> None:
        self.level = Stack(self.spec.num_layers, self.spec.block_of("L", shape))

    def stack(self, call: str) -> Stack:
        return self.level
