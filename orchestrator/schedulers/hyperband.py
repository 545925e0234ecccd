"""Hyperband (Li et al. 2018): several successive halvings, from eager to patient, that share the trials."""

from __future__ import annotations

from typing import Literal, Self

from optuna.pruners import BasePruner, HyperbandPruner
from pydantic import Field

from orchestrator.schedulers import PrunerSpec


class HyperbandSpec(PrunerSpec):
    """Brackets of asynchronous successive halving; a trial's bracket follows from its number. The sampler learns from
    the trials of all brackets. It needs many trials: each bracket compares its own only."""

    kind: Literal["hyperband"] = "hyperband"
    first_rung: int = Field(1, ge=1)
    """The report of the first rung in the most eager bracket."""
    reduction: int = Field(2, ge=2)
    """One trial in this many goes on."""

    def build(self, num_reports: int) -> BasePruner:
        most = max(num_reports, self.first_rung)
        return HyperbandPruner(min_resource=self.first_rung, max_resource=most, reduction_factor=self.reduction)

    @classmethod
    def smoke(cls) -> Self:
        return cls()
