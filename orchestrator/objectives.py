"""What a search optimizes: the objective, alone or with further metrics and costs beside it.

A value that is missing or not finite never reaches a study: the trial fails with its reason.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from hrm.data.dataset import open_dataset
from hrm.errors import TrialError
from hrm.records import TrialResult
from hrm.spec import Spec, parse_spec
from hrm.trial import ObjectiveSpec, TrialSpec
from orchestrator.costs import measure

Cost = Literal["parameters", "flops_per_token", "flops", "seconds"]
"""What a trial costs: its size, FLOPs per token of a segment in training, training FLOPs and seconds that it spent."""
COSTS: tuple[Cost, ...] = get_args(Cost)


class SearchObjectiveSpec(Spec):
    """One of several objectives: a validation metric, or a cost."""

    metric: str
    direction: Literal["minimize", "maximize"] = "minimize"


class Objectives:
    """The objectives of a search, the sweep's own first; its values are taken where that one was best."""

    def __init__(self, objective: ObjectiveSpec, others: list[SearchObjectiveSpec], data_root: Path) -> None:
        self._metric, self._data_root = objective.metric, data_root
        self._metrics = [each.metric for each in others] or [objective.metric]
        self.directions = [each.direction for each in others] or [objective.direction]

    @property
    def several(self) -> bool:
        """True where the search gives a Pareto front."""
        return len(self.directions) > 1

    def first(self, metrics: Mapping[str, float]) -> float:
        """The sweep's objective. Raises TrialError where it is missing or not finite."""
        return _finite(self._metric, metrics.get(self._metric))

    def values(self, spec: Mapping[str, Any], result: TrialResult) -> list[float]:
        """The value of each objective of a completed trial. Raises TrialError as `first`."""
        return [_finite(metric, self._value(metric, spec, result)) for metric in self._metrics]

    def _value(self, metric: str, spec: Mapping[str, Any], result: TrialResult) -> float | None:
        match metric:
            case "flops":
                return result.progress.flops
            case "seconds":
                return result.progress.seconds
            case "parameters" | "flops_per_token":
                trial = parse_spec(TrialSpec, spec, "trial")
                return float(measure(metric, trial, open_dataset(trial.task, self._data_root).shape))
        return result.best_validation.get(metric)


def _finite(metric: str, value: float | None) -> float:
    if value is None:
        raise TrialError("no_metric", f"the trial did not measure {metric}")
    if not math.isfinite(value):
        raise TrialError("not_finite", f"the validation {metric} is {value}")
    return float(value)
