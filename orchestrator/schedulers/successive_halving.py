"""Asynchronous successive halving (Li et al. 2020): at each rung the best share of the trials goes on."""

from __future__ import annotations

from typing import Literal, Self

from optuna.pruners import BasePruner, SuccessiveHalvingPruner
from pydantic import Field

from orchestrator.schedulers import PrunerSpec


class SuccessiveHalvingSpec(PrunerSpec):
    """Rungs at reports first_rung, first_rung * reduction, first_rung * reduction^2, ..."""

    kind: Literal["successive_halving"] = "successive_halving"
    first_rung: int = Field(1, ge=1)
    reduction: int = Field(2, ge=2)
    """One trial in this many goes on."""

    def build(self, num_reports: int) -> BasePruner:
        return SuccessiveHalvingPruner(min_resource=self.first_rung, reduction_factor=self.reduction)

    @classmethod
    def smoke(cls) -> Self:
        return cls()
