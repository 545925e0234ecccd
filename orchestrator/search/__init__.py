"""The contract of a sampler. One file here = one way to propose configurations (Optuna's samplers)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Self

from optuna.samplers import BaseSampler

from hrm.spec import Spec


class SamplerSpec(Spec, ABC):
    """A sampler. It is built anew for each proposal, with a seed that depends on the proposal's number alone: a sampler
    seeded once would repeat its first proposals after a restart."""

    kind: str

    @abstractmethod
    def build(self, seed: int) -> BaseSampler:
        """The sampler for one proposal."""

    @classmethod
    @abstractmethod
    def smoke(cls) -> Self:
        """A setting for contract tests."""
