"""What was found out about a sweep's searches, as plain values: what mattered, and whether they were long enough.

Importance is computed with Optuna (`orchestrator.importance`), which this package does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.search_quality import SearchQuality
from analysis.sensitivity import Sensitivity


@dataclass(frozen=True, slots=True)
class Importance:
    """One searched parameter of one arm on one task."""

    task: str
    arm: str
    parameter: str
    share: float
    """Of the objective's variance over the space, explained by this parameter alone (fANOVA): a mean over resamples."""
    low: float
    high: float
    """Where 95 % of the resamples of the trials lie."""
    p: float
    """That shuffled trials show as much, corrected by Holm over the arm's parameters."""
    trials: int
    """That it rests on."""
    foretold: int = 0
    """Of these, pruned ones that count with what was expected of them."""


@dataclass(frozen=True, slots=True)
class SearchFindings:
    """All of it, over arms and tasks."""

    importances: Sequence[Importance] = ()
    qualities: Sequence[SearchQuality] = ()
    sensitivities: Sequence[Sensitivity] = ()

    def shares(self, tasks: int) -> dict[str, dict[str, float]]:
        """By study (`arm`, or `task/arm` where there are several tasks) and parameter: its share."""
        result: dict[str, dict[str, float]] = {}
        for each in self.importances:
            result.setdefault(f"{each.task}/{each.arm}" if tasks > 1 else each.arm, {})[each.parameter] = each.share
        return result
