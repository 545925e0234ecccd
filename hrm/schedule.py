"""Learning-rate schedules: linear warm-up, then constant, cosine, or cosine with warm restarts.

A schedule is a function of the 1-based step and of the share of the budget that is spent, so that it means the same
whatever axis the budget is counted on. It scales the puzzle table's rate, too.
"""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from hrm.spec import Spec


class ScheduleSpec(Spec):
    """The factor on the learning rate."""

    kind: Literal["constant", "cosine", "cosine_restarts"] = "constant"
    warmup_steps: int = Field(0, ge=0)
    warmup_fraction: float = Field(0.0, ge=0.0, lt=1.0)
    """Warm-up as a share of the budget; give this or `warmup_steps`."""
    floor_fraction: float = Field(0.0, ge=0.0, le=1.0)
    """The lowest factor of a cosine."""
    period_fraction: float = Field(0.25, gt=0.0, le=1.0)
    """`cosine_restarts`: length of the first period as a share of the budget."""
    period_growth: float = Field(1.0, ge=1.0)
    """`cosine_restarts`: each period is this much longer than the one before (Loshchilov and Hutter 2017, T_mult)."""

    @model_validator(mode="after")
    def _one_warmup(self) -> Self:
        if self.warmup_steps and self.warmup_fraction:
            raise ValueError(
                f"warmup_steps and warmup_fraction must not both be given, got {self.warmup_steps} and "
                f"{self.warmup_fraction}; set one of them to 0"
            )
        return self

    def factor(self, step: int, spent: float) -> float:
        """The factor at the 1-based `step`, which ends with the share `spent` of the budget in (0, 1]."""
        if step < self.warmup_steps:
            return step / self.warmup_steps
        if spent < self.warmup_fraction:
            return spent / self.warmup_fraction
        if self.kind == "constant":
            return 1.0
        begun = self.warmup_fraction or spent * self.warmup_steps / step
        after = (spent - begun) / (1.0 - begun) if begun < 1.0 else 0.0
        if self.kind == "cosine_restarts":
            after = self._place_in_period(after)
        return self.floor_fraction + (1.0 - self.floor_fraction) * 0.5 * (1.0 + math.cos(math.pi * min(after, 1.0)))

    def _place_in_period(self, after: float) -> float:
        """How far the present period is, in [0, 1]; a period that ends with the budget is not followed by a restart."""
        start, period = 0.0, self.period_fraction
        while start + period <= min(after, 1.0) and start + period < 1.0 - 1e-9:
            start += period
            period *= self.period_growth
        return (after - start) / period
