"""Every configuration of a countable space once, in an order drawn from the seed."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, Literal, Self

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from hrm.errors import Problem
from orchestrator.countable import shuffled, size
from orchestrator.search import Draw, SamplerSpec
from orchestrator.space import Space


class GridSpec(SamplerSpec):
    """Grid search. Where `trials` is less than the size of the grid, a random part of it; where it is more, the search
    ends with the grid."""

    kind: Literal["grid"] = "grid"

    def build(self, draw: Draw) -> BaseSampler:
        return _Grid(draw)

    def problem(self, space: Space, num_objectives: int) -> Problem | None:
        for path, dimension in space.items():
            if size({path: dimension.distribution()}) is None:
                rule = f"a grid has a number of values of {path}, and this range has no step"
                return Problem("sampler", rule, f"Give {path} a step or choices, or take qmc")
        return None

    @classmethod
    def smoke(cls) -> Self:
        return cls()


class _Grid(BaseSampler):
    """The first point that no trial has. Optuna's keeps the grid in the study and knows no steps."""

    def __init__(self, draw: Draw) -> None:
        self._draw, self._random = draw, RandomSampler(seed=draw.seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return trial.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        taken = {_key(t.params) for t in study.get_trials(deepcopy=False)}
        free = (point for point in shuffled(search_space, self._draw.study_seed) if _key(point) not in taken)
        return next(islice(free, self._draw.again, None), {})

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._random.sample_independent(study, trial, param_name, param_distribution)


def _key(parameters: Mapping[str, Any]) -> str:
    return repr(sorted(parameters.items()))
