"""The Tiny Recursive Model (Jolicoeur-Martineau 2025, arXiv 2510.04871): one small stack does both updates.

One recursion is L_cycles times z_L = f(z_L + z_H + x), then z_H = f(z_H + z_L); H_cycles recursions make a segment, and
the last one carries full gradient. `mixer: mlp` puts an MLP across positions in the place of attention. The original
trains it with an average of the weights (`ema: 0.999`) and with `halting.rule: q`.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from hrm.errors import Problem
from hrm.models.recursion import RecursiveModel, RecursiveSpec, scaled
from hrm.nn.layers import BlockShape, Stack
from hrm.tasks import TaskShape


class TRMSpec(RecursiveSpec):
    """TRM: sizes, cycles, mixer, halting."""

    kind: Literal["trm"] = "trm"
    mixer: Literal["attention", "mlp"] = "attention"
    L_layers: int = Field(2, ge=1)
    H_cycles: int = Field(3, ge=1)
    L_cycles: int = Field(6, ge=1)

    @model_validator(mode="after")
    def _an_mlp_sees_all(self) -> Self:
        if self.mixer == "mlp" and (self.causal or self.positions == "rotary"):
            given = f"causal: {str(self.causal).lower()} and positions: {self.positions}"
            raise ValueError(
                "mixer `mlp` needs causal: false and positions: none or learned (it mixes all positions, each with "
                f"weights of its own), got {given}; set them, or mixer: attention"
            )
        return self

    def packing_problem(self, shape: TaskShape) -> Problem | None:
        if self.mixer == "attention":
            return super().packing_problem(shape)
        rule = "must be `attention` for rows of several documents, got `mlp`, which mixes all positions of a row"
        return Problem("model.mixer", rule, "Set model.mixer: attention, or build the dataset without packing")

    @property
    def way_to_causality(self) -> str:
        return (
            super().way_to_causality
            if self.mixer == "attention"
            else "Set model.mixer: attention and model.causal: true"
        )

    def build(self, shape: TaskShape) -> TRM:
        return TRM(self, shape)

    def calls(self, share: float) -> str:
        return ("L" * scaled(self.L_cycles, share) + "H") * scaled(self.H_cycles, share)

    def own_gradient_steps(self, share: float) -> int:
        return scaled(self.L_cycles, share) + 1

    def depth_of(self, call: str) -> int:
        return self.L_layers

    def block_of(self, call: str, shape: TaskShape) -> BlockShape:
        length = shape.sequence_length + self.num_prefix(shape)
        return self.block(mixed_positions=length if self.mixer == "mlp" else 0)

    @classmethod
    def smoke(cls) -> Self:
        return cls(hidden_size=16, num_heads=2, L_layers=1, H_cycles=2, L_cycles=2, causal=True, dropout=0.1)


class TRM(RecursiveModel):
    """The module."""

    spec: TRMSpec

    def build_stacks(self, shape: TaskShape) -> None:
        self.L_level = Stack(self.spec.L_layers, self.spec.block_of("L", shape))

    def stack(self, call: str) -> Stack:
        return self.L_level
