"""A trial ends when its best value so far is worse than the median of the earlier trials at the same report."""

from __future__ import annotations

from typing import Literal, Self

from optuna.pruners import BasePruner, MedianPruner
from pydantic import Field

from orchestrator.schedulers import PrunerSpec


class MedianSpec(PrunerSpec):
    """The median rule (Golovin et al. 2017)."""

    kind: Literal["median"] = "median"
    startup_trials: int = Field(4, ge=1)
    """Trials that must have finished before any is pruned."""
    warmup_reports: int = Field(1, ge=0)
    """Reports at which no trial is ended."""

    def build(self, num_reports: int) -> BasePruner:
        return MedianPruner(n_startup_trials=self.startup_trials, n_warmup_steps=self.warmup_reports + 1)

    @classmethod
    def smoke(cls) -> Self:
        return cls(startup_trials=1, warmup_reports=0)
