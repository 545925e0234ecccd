"""A trial ends when its best value so far is worse than a percentile of the earlier trials at the same report."""

from __future__ import annotations

from typing import Literal, Self

from optuna.pruners import BasePruner, PercentilePruner
from pydantic import Field

from orchestrator.schedulers import PrunerSpec


class PercentileSpec(PrunerSpec):
    """The percentile rule: `median` with another share than half."""

    kind: Literal["percentile"] = "percentile"
    keep: float = Field(25.0, gt=0.0, le=100.0)
    """Per cent of the trials at a report that a trial must be among to go on."""
    startup_trials: int = Field(4, ge=1)
    """Trials that must have completed before any is pruned."""
    warmup_reports: int = Field(1, ge=0)
    """Reports at which no trial is ended."""

    def build(self, num_reports: int) -> BasePruner:
        return PercentilePruner(self.keep, n_startup_trials=self.startup_trials, n_warmup_steps=self.warmup_reports + 1)

    @classmethod
    def smoke(cls) -> Self:
        return cls(startup_trials=1, warmup_reports=0)
