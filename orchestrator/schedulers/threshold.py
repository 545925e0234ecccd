"""A trial ends when the objective leaves given bounds."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from optuna.pruners import BasePruner, ThresholdPruner
from pydantic import Field, model_validator

from orchestrator.schedulers import PrunerSpec


class ThresholdSpec(PrunerSpec):
    """Bounds of the objective; what leaves them is hopeless, whatever the other trials do."""

    kind: Literal["threshold"] = "threshold"
    reason: ClassVar[str] = "the objective left its bounds"
    lower: float | None = None
    upper: float | None = None
    warmup_reports: int = Field(1, ge=0)
    """Reports at which no trial is ended."""

    @model_validator(mode="after")
    def _bounds(self) -> Self:
        if self.lower is None and self.upper is None:
            raise ValueError("a threshold needs lower or upper, got neither; give one")
        if self.lower is not None and self.upper is not None and self.lower > self.upper:
            raise ValueError(f"lower must be <= upper, got {self.lower} and {self.upper}; swap them")
        return self

    def build(self, num_reports: int) -> BasePruner:
        return ThresholdPruner(self.lower, self.upper, n_warmup_steps=self.warmup_reports + 1)

    @classmethod
    def smoke(cls) -> Self:
        return cls(lower=-50.0, upper=50.0, warmup_reports=0)
