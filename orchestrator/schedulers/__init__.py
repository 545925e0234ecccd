"""The contract of a pruner. One file here = one rule that ends a trial early (Optuna's pruners).

The fidelity is the report's index, so that trials are compared at equal shares of their budget.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Self

from optuna.pruners import BasePruner

from hrm.spec import Spec


class PrunerSpec(Spec, ABC):
    """A pruner; its state lives in the study, so its rungs survive a kill."""

    kind: str
    reason: ClassVar[str] = "worse than the earlier trials there"
    """Why it ends a trial."""

    @abstractmethod
    def build(self, num_reports: int) -> BasePruner:
        """The pruner of trials that report so often; it ends none at the last report."""

    @classmethod
    @abstractmethod
    def smoke(cls) -> Self:
        """A setting for contract tests."""
