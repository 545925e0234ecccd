"""A study as a sampler or a pruner sees it: only some of its trials, and a proposal that nobody else sees yet.

Optuna's samplers and pruners read a study through its storage, some of them through studies that they make themselves
(Hyperband's brackets), so the storage is where trials are left out. What they note about a proposal stays with the
proposal until it is logged as a whole.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Iterable, Iterator
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

_NOT_LOGGED = -1


def proposal(number: int, distributions: dict[str, BaseDistribution]) -> FrozenTrial:
    """A trial without parameters that no storage holds. It names the whole space, so that a sampler may know it."""
    return FrozenTrial(
        number=number,
        trial_id=_NOT_LOGGED,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=datetime.now(),
        datetime_complete=None,
        params={},
        distributions=distributions,
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )


def shown(
    study: Study,
    trials: list[FrozenTrial],
    trial: FrozenTrial,
    sampler: BaseSampler | None = None,
    pruner: BasePruner | None = None,
) -> Study:
    """The study with these trials alone; what is noted of a `trial` that is a proposal is kept in it."""
    storage: Any = _Shown(study._storage, trials, trial)
    return Study(study.study_name, storage, sampler, pruner)


class _Shown:
    """A storage that shows some trials of its one study and passes everything else on."""

    def __init__(self, storage: Any, trials: list[FrozenTrial], trial: FrozenTrial) -> None:
        self._storage, self._trials, self._trial = storage, trials, trial

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = [t for t in self._trials if states is None or t.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        if trial_id == _NOT_LOGGED:
            self._trial.system_attrs[key] = value
        else:
            self._storage.set_trial_system_attr(trial_id, key, value)


def within(trials: Iterable[FrozenTrial], distributions: dict[str, BaseDistribution]) -> Iterator[FrozenTrial]:
    """The trials whose configurations lie in a space, as if all had been drawn from it: a space may have changed."""
    for trial in trials:
        if trial.distributions == distributions:
            yield trial
        elif trial.params.keys() == distributions.keys() and all(
            distributions[path]._contains(distributions[path].to_internal_repr(value))
            for path, value in trial.params.items()
        ):
            fitted = copy.copy(trial)
            fitted.distributions = distributions
            yield fitted
