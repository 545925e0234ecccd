"""Tree-structured Parzen estimator (Bergstra et al. 2011), multivariate, aware of running trials."""

from __future__ import annotations

from typing import Literal, Self

from optuna.samplers import BaseSampler, TPESampler
from pydantic import Field

from orchestrator.search import Draw, SamplerSpec


class TPESpec(SamplerSpec):
    """TPE. Takes several objectives too (Ozaki et al. 2022)."""

    kind: Literal["tpe"] = "tpe"
    startup_trials: int = Field(4, ge=1)
    """Random proposals before the model is used."""

    def build(self, draw: Draw) -> BaseSampler:
        return TPESampler(seed=draw.seed, n_startup_trials=self.startup_trials, multivariate=True, constant_liar=True)

    @classmethod
    def smoke(cls) -> Self:
        return cls(startup_trials=2)
