"""A Gaussian process with expected improvement, for few and costly trials (Optuna's own, on PyTorch)."""

from __future__ import annotations

from typing import Literal, Self

from optuna.samplers import BaseSampler, GPSampler
from pydantic import Field

from orchestrator.search import Draw, SamplerSpec


class GPSpec(SamplerSpec):
    """GP. Takes several objectives too (expected hypervolume improvement). Its cost grows with the cube of the trials:
    a proposal takes seconds after some hundred."""

    kind: Literal["gp"] = "gp"
    startup_trials: int = Field(6, ge=1)
    """Random proposals before the model is used."""

    def build(self, draw: Draw) -> BaseSampler:
        return GPSampler(seed=draw.seed, n_startup_trials=self.startup_trials, warn_independent_sampling=False)

    @classmethod
    def smoke(cls) -> Self:
        return cls(startup_trials=4)
