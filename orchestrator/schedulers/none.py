"""Every trial trains to the end of its budget."""

from __future__ import annotations

from typing import Literal, Self

from optuna.pruners import BasePruner, NopPruner

from orchestrator.schedulers import PrunerSpec


class NoPrunerSpec(PrunerSpec):
    """No pruning."""

    kind: Literal["none"] = "none"

    def build(self, num_reports: int) -> BasePruner:
        return NopPruner()

    @classmethod
    def smoke(cls) -> Self:
        return cls()
