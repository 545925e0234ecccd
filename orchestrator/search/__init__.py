"""The contract of a sampler. One file here = one way to propose configurations (Optuna's samplers)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from optuna.samplers import BaseSampler

from hrm.errors import Problem
from hrm.spec import Spec

if TYPE_CHECKING:
    from orchestrator.space import Space


@dataclass(frozen=True, slots=True)
class Draw:
    """Which proposal is asked for. A proposal is a function of it and of the study, so that a kill changes none."""

    seed: int
    """Of this draw alone."""
    study_seed: int
    """The same for all draws of a study."""
    again: int = 0
    """How often this proposal was a configuration that the study has, and was drawn again."""


class SamplerSpec(Spec, ABC):
    """A sampler. It is built anew for each proposal: one that is seeded once would repeat its first proposals after a
    restart. The trial that it is asked to fill names the distributions of the whole space."""

    kind: str

    @abstractmethod
    def build(self, draw: Draw) -> BaseSampler:
        """The sampler for one proposal."""

    def problem(self, space: Space, num_objectives: int) -> Problem | None:
        """Why it cannot search this space, or for so many objectives; the place is a field of the search."""
        return None

    @classmethod
    @abstractmethod
    def smoke(cls) -> Self:
        """A setting for contract tests."""
