"""Uniform random proposals."""

from __future__ import annotations

from typing import Literal, Self

from optuna.samplers import BaseSampler, RandomSampler

from orchestrator.search import Draw, SamplerSpec


class RandomSpec(SamplerSpec):
    """Random search."""

    kind: Literal["random"] = "random"

    def build(self, draw: Draw) -> BaseSampler:
        return RandomSampler(seed=draw.seed)

    @classmethod
    def smoke(cls) -> Self:
        return cls()
