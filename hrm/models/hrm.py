"""The Hierarchical Reasoning Model (Wang et al. 2025, arXiv 2506.21734), with the options that language needs.

Two stacks, a slow H and a fast L, exchange states: for i < H_cycles: { for j < L_cycles: z_L = L(z_L + z_H + x);
z_H = H(z_H + z_L) }. Gradients flow through the last call of each stack only. With `causal`, `convolution` and
`dropout` left alone this is the original; these three make it a language model.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field

from hrm.models.recursion import RecursiveModel, RecursiveSpec, scaled
from hrm.nn.layers import BlockShape, Stack
from hrm.tasks import TaskShape


class HRMSpec(RecursiveSpec):
    """HRM: sizes, cycles, halting; and `causal`, `dropout`, `convolution` for text."""

    kind: Literal["hrm"] = "hrm"
    H_layers: int = Field(4, ge=1)
    L_layers: int = Field(4, ge=1)
    H_cycles: int = Field(2, ge=1)
    L_cycles: int = Field(2, ge=1)
    convolution: int = Field(0, ge=0, le=16)
    """Kernel of a causal depthwise convolution in the L stack's blocks; 0 for none."""

    def build(self, shape: TaskShape) -> HRM:
        return HRM(self, shape)

    def calls(self, share: float) -> str:
        return ("L" * scaled(self.L_cycles, share) + "H") * scaled(self.H_cycles, share)

    def own_gradient_steps(self, share: float) -> int:
        return 2

    def depth_of(self, call: str) -> int:
        return self.H_layers if call == "H" else self.L_layers

    def block_of(self, call: str, shape: TaskShape) -> BlockShape:
        return self.block(convolution=self.convolution if call == "L" else 0)

    @classmethod
    def smoke(cls) -> Self:
        return cls(hidden_size=16, num_heads=2, H_layers=1, L_layers=1, causal=True, dropout=0.1, convolution=2)


class HRM(RecursiveModel):
    """The module."""

    spec: HRMSpec

    def build_stacks(self, shape: TaskShape) -> None:
        self.H_level = Stack(self.spec.H_layers, self.spec.block_of("H", shape))
        self.L_level = Stack(self.spec.L_layers, self.spec.block_of("L", shape))

    def stack(self, call: str) -> Stack:
        return self.H_level if call == "H" else self.L_level
