"""A trial that has stopped to improve ends, alone or if another pruner agrees."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from optuna.pruners import BasePruner, PatientPruner
from pydantic import Field

from orchestrator.schedulers import PrunerSpec
from orchestrator.schedulers.hyperband import HyperbandSpec
from orchestrator.schedulers.median import MedianSpec
from orchestrator.schedulers.percentile import PercentileSpec
from orchestrator.schedulers.successive_halving import SuccessiveHalvingSpec

Wrapped = Annotated[
    MedianSpec | PercentileSpec | SuccessiveHalvingSpec | HyperbandSpec,
    Field(discriminator="kind"),
]


class PatienceSpec(PrunerSpec):
    """Patience: as long as a trial improves, nothing ends it."""

    kind: Literal["patience"] = "patience"
    reason: ClassVar[str] = "it has stopped to improve"
    reports: int = Field(2, ge=1)
    """Reports in a row, none of them better than the best before them, after which a trial may end."""
    min_delta: float = Field(0.0, ge=0.0)
    """How much worse they all must be."""
    pruner: Wrapped | None = None
    """Who decides then; null: it ends."""

    def build(self, num_reports: int) -> BasePruner:
        wrapped = None if self.pruner is None else self.pruner.build(num_reports)
        return PatientPruner(wrapped, patience=self.reports - 1, min_delta=self.min_delta)

    @classmethod
    def smoke(cls) -> Self:
        return cls(reports=1)
