"""What a sweep's searches show; which parameters mattered, by fANOVA (Hutter et al. 2014, Optuna's) on each of them.

A function of a sweep's files alone. Pruned trials count with what is expected of them, where that can be said. Members
of a population are left out: what they found hangs on more than the parameters that they began with.
"""

from __future__ import annotations

import warnings

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, create_trial

from analysis.association import main_effects
from analysis.foretelling import Array, Outcomes, foretell, outcomes
from analysis.search_findings import Importance, SearchFindings
from analysis.search_quality import search_qualities
from analysis.search_space import Axis, points_of, space_of
from analysis.sensitivity import sensitivities
from analysis.sweep import Sweep

optuna.logging.set_verbosity(optuna.logging.ERROR)

MIN_TRIALS = 4
"""Trials below which nothing is said."""
MOST_TRIALS = 200
"""Trials that are looked at, of an arm that has more, evenly over the search: fANOVA takes minutes for thousands."""
TREES = 64
"""Each is grown on trials drawn anew, so that their spread is that of the trials."""
DEPTH = 8


def search_findings(sweep: Sweep) -> SearchFindings:
    """All that can be said of the sweep's searches now."""
    return SearchFindings(importances(sweep), search_qualities(sweep), sensitivities(sweep))


def importances(sweep: Sweep) -> list[Importance]:
    """Of every parameter that was searched, arm by arm, the largest share first; nothing where there is no evidence."""
    record = sweep.record
    pairs = [(task, arm) for task in record.tasks for arm in record.arms if record.runs_on(arm, task)]
    return [each for task, arm in pairs for each in _of_arm(sweep, task, arm)]


def _of_arm(sweep: Sweep, task: str, arm: str) -> list[Importance]:
    found = outcomes(sweep, task, arm, foretell(sweep, task, arm))
    axes = space_of(sweep.record, arm, found.trials)
    kept, points = points_of(axes, found.trials)
    rows = _rows(found, [trial.key for trial in kept])
    if not axes or len(rows) < MIN_TRIALS or np.ptp(found.values[rows]) == 0.0:
        return []
    step = -(-len(rows) // MOST_TRIALS)
    rows, points = rows[::step], points[::step]
    shares = _shares(axes, points, _drawn(found, rows))
    low, high = np.quantile(shares, [0.025, 0.975], axis=0)
    tested = main_effects(axes, points, found.values[rows])
    pruned = int((found.spread[rows] > 0.0).sum())
    result = [
        Importance(task, arm, axis.path, float(shares[:, i].mean()), float(low[i]), float(high[i]), tested[i],
                   len(rows), pruned)
        for i, axis in enumerate(axes)
    ]  # fmt: skip
    return sorted(result, key=lambda each: -each.share)


def _rows(found: Outcomes, keys: list[str]) -> Array:
    place = {trial.key: index for index, trial in enumerate(found.trials)}
    return np.array([place[key] for key in keys], dtype=np.int64)


def _drawn(found: Outcomes, rows: Array) -> Array:
    """Values for each tree, [TREES, rows]: what was measured; of a pruned trial a draw of what it may have reached."""
    values = np.tile(found.values, (TREES, 1))
    pruned = found.draws.shape[1]
    every = np.linspace(0, len(found.draws) - 1, TREES).astype(int)
    values[:, len(found.trials) - pruned :] = found.draws[every]
    return values[:, rows]


def _shares(axes: list[Axis], points: Array, values: Array) -> Array:
    """What each axis explains alone, [TREES, axes]."""
    distributions = {str(i): _distribution(axis) for i, axis in enumerate(axes)}
    study = optuna.create_study()
    study.add_trials(
        [create_trial(params=_parameters(axes, point), distributions=distributions, value=0.0) for point in points]
    )
    shares = np.zeros((len(values), len(axes)))
    for tree, row in enumerate(values):
        evaluator = FanovaImportanceEvaluator(n_trees=1, max_depth=DEPTH, seed=tree)

        def value(trial: FrozenTrial, row: Array = row) -> float:
            return float(row[trial.number])

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                found = get_param_importances(study, evaluator=evaluator, target=value, normalize=False)
        except RuntimeError:  # the trials that this tree drew are all equal
            continue
        for name, share in found.items():
            shares[tree, int(name)] = share
    return shares


def _distribution(axis: Axis) -> BaseDistribution:
    """The axis as a place that is uniform: fANOVA measures a space by its volume, and knows no logarithms."""
    if axis.named:
        return CategoricalDistribution(range(len(axis.choices)))
    if axis.num_values is not None:
        return IntDistribution(0, axis.num_values - 1)
    return FloatDistribution(0.0, 1.0)


def _parameters(axes: list[Axis], point: Array) -> dict[str, float | int]:
    return {
        str(i): float(place) if axis.num_values is None
        else int(place) if axis.named
        else round(float(place) * (axis.num_values - 1))
        for i, (axis, place) in enumerate(zip(axes, point, strict=True))
    }  # fmt: skip
