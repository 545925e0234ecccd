"""Quasi-random proposals (a scrambled Sobol sequence): as random, but spread evenly over the space."""

from __future__ import annotations

from typing import Any, Literal, Self

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, QMCSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from orchestrator.search import Draw, SamplerSpec

_PLACE = "qmc:place"
"""Of a proposal in the sequence; kept with the trial."""


class QMCSpec(SamplerSpec):
    """A Sobol sequence. A power of two as the number of trials covers the space most evenly."""

    kind: Literal["qmc"] = "qmc"

    def build(self, draw: Draw) -> BaseSampler:
        return _Sequence(draw)

    @classmethod
    def smoke(cls) -> Self:
        return cls()


class _Sequence(QMCSampler):
    """Optuna's counts its proposals in the study, and a driver killed after the count would leave out a point; this
    one goes on after the last point that a trial has."""

    def __init__(self, draw: Draw) -> None:
        super().__init__(scramble=True, seed=draw.study_seed, warn_independent_sampling=False)
        self._draw = draw

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return dict(sorted(trial.distributions.items()))

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        taken = [t.system_attrs.get(_PLACE, -1) for t in study.get_trials(deepcopy=False)]
        place = max(taken, default=-1) + 1 + self._draw.again
        study._storage.set_trial_system_attr(trial._trial_id, _PLACE, place)
        self._place = place
        return super().sample_relative(study, trial, search_space)

    def _find_sample_id(self, study: Study, search_space: dict[str, BaseDistribution]) -> int:
        return self._place
