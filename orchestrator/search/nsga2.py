"""NSGA-II (Deb et al. 2002): a genetic algorithm for several objectives; gives a Pareto front."""

from __future__ import annotations

from typing import Literal, Self

from optuna.samplers import BaseSampler, NSGAIISampler
from pydantic import Field

from orchestrator.search import Draw, SamplerSpec


class NSGA2Spec(SamplerSpec):
    """NSGA-II with uniform crossover. Its state, who belongs to which generation, is kept with the trials."""

    kind: Literal["nsga2"] = "nsga2"
    population: int = Field(16, ge=2)
    """Completed trials per generation; the first generation is random."""
    crossover: float = Field(0.9, ge=0.0, le=1.0)
    """The probability that a child has two parents."""

    def build(self, draw: Draw) -> BaseSampler:
        return NSGAIISampler(seed=draw.seed, population_size=self.population, crossover_prob=self.crossover)

    @classmethod
    def smoke(cls) -> Self:
        return cls(population=4)
