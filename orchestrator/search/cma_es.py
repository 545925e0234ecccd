"""CMA-ES (Hansen 2016): a population that adapts a normal distribution to the objective's shape, for ranges."""

from __future__ import annotations

from typing import Literal, Self

from optuna.samplers import BaseSampler, CmaEsSampler
from pydantic import Field

from hrm.errors import Problem
from orchestrator.search import Draw, SamplerSpec
from orchestrator.space import Space


class CMAESSpec(SamplerSpec):
    """CMA-ES over the ranges of a space; choices are drawn at random. Its state is kept with the trials."""

    kind: Literal["cma_es"] = "cma_es"
    population: int | None = Field(None, ge=4)
    """Trials per generation of the distribution; null for 4 + 3 ln(ranges), as in the paper."""
    startup_trials: int = Field(1, ge=1)
    """Random proposals before it begins."""

    def build(self, draw: Draw) -> BaseSampler:
        return CmaEsSampler(
            seed=draw.seed,
            popsize=self.population,
            n_startup_trials=self.startup_trials,
            consider_pruned_trials=True,  # else a pruner starves it: what was pruned counts with its last value
            warn_independent_sampling=False,
        )

    def problem(self, space: Space, num_objectives: int) -> Problem | None:
        if num_objectives > 1:
            rule = f"cma_es takes one objective, got {num_objectives}"
            return Problem("sampler", rule, "Take nsga2, tpe or gp, or remove search.objectives")
        if not any(dimension.choices is None and dimension.low != dimension.high for dimension in space.values()):
            rule = f"cma_es needs a range to search, and the space has {len(space)} dimension(s) without one"
            return Problem("sampler", rule, "Take tpe or grid, or give low and high")
        return None

    @classmethod
    def smoke(cls) -> Self:
        return cls(population=4)
