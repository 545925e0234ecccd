"""Curves of trials and arms against every axis that a training can be counted on, thinned so that no peak is lost.

An arm's curves are those of its completed replicas; where no arm of the task has one, of each arm's best search trial,
which is one seed that was chosen for being the best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.arms import REPLICAS, SEARCH, chosen_replicas
from analysis.columns import PROGRESS, ReportColumns
from analysis.intervals import t_interval
from analysis.records import TrialRecord
from analysis.spending import total
from analysis.sweep import Sweep, seed_of

Array = npt.NDArray[np.float64]

AXES = (*PROGRESS, "joules", "cost")
"""What a training can be counted in; the last two where they are known."""
BAND_FROM = 3
"""Replicas from which on a mean gets a band: two give one of 13 standard errors."""


@dataclass(frozen=True, slots=True)
class Curve:
    """A metric on validation at each report of a trial."""

    key: str
    seed: int
    axes: dict[str, Array]
    """Where the reports are, by the names of AXES."""
    values: Array
    """Finite."""
    best: Array
    """The best value up to each report: that of the checkpoint that is kept."""


@dataclass(frozen=True, slots=True)
class ArmCurves:
    """The curves that stand for an arm, and what kind of evidence they are (REPLICAS or SEARCH)."""

    arm: str
    evidence: str
    curves: list[Curve]


@dataclass(frozen=True, slots=True)
class MeanCurve:
    """The mean over replicas at the reports that all of them have, with its 95 % interval at each (Student's t)."""

    axes: dict[str, Array]
    mean: Array
    low: Array
    high: Array
    n: int


def curves_of(sweep: Sweep, task: str) -> list[ArmCurves]:
    """Of each arm of the task that has any; arms without replicas are left out where others have them."""
    record = sweep.record
    names = [arm for arm in record.arms if record.runs_on(arm, task)]
    replicated = [ArmCurves(arm, REPLICAS, _all(sweep, _completed(sweep, task, arm))) for arm in names]
    found = [each for each in replicated if each.curves]
    if found:
        return found
    best = {arm: sweep.best_search_trial(task, arm) for arm in names}
    searched = [ArmCurves(arm, SEARCH, _all(sweep, [trial])) for arm, trial in best.items() if trial is not None]
    return [each for each in searched if each.curves]


def curve_of(sweep: Sweep, trial: TrialRecord) -> Curve | None:
    """The sweep's metric on validation; None where the trial has no finite value of it."""
    reports = sweep.reports(trial)
    values = reports.validation.get(sweep.record.metric)
    if values is None or not np.isfinite(values).any():
        return None
    finite = np.isfinite(values)
    better = np.minimum if sweep.record.direction == "minimize" else np.maximum
    axes = {**reports.axes, **_spent(sweep, trial, reports)}
    return Curve(
        key=trial.key,
        seed=seed_of(trial),
        axes={name: positions[finite] for name, positions in axes.items()},
        values=values[finite],
        best=better.accumulate(values[finite]),
    )


def mean_curve(curves: Sequence[Curve]) -> MeanCurve | None:
    """None for fewer than BAND_FROM curves."""
    length = min((len(curve.values) for curve in curves), default=0)
    if len(curves) < BAND_FROM or length == 0:
        return None
    values = np.stack([curve.values[:length] for curve in curves], axis=-1)
    low, high = t_interval(values)
    axes = {axis: np.mean([curve.axes[axis][:length] for curve in curves], axis=0) for axis in shared_axes(curves)}
    return MeanCurve(axes, values.mean(axis=-1), low, high, len(curves))


def shared_axes(curves: Sequence[Curve]) -> list[str]:
    """The axes that all of the curves have."""
    return [axis for axis in AXES if all(axis in curve.axes for curve in curves)]


def telling(y: Array, limit: int) -> list[int]:
    """The places of at most `limit` (>= 4) values: the first, the last, the extremes of each of equal stretches."""
    if len(y) <= limit:
        return list(range(len(y)))
    kept = {0, len(y) - 1}
    for stretch in np.array_split(np.arange(len(y)), (limit - 2) // 2):
        kept.add(int(stretch[np.argmin(y[stretch])]))
        kept.add(int(stretch[np.argmax(y[stretch])]))
    return sorted(kept)


def _completed(sweep: Sweep, task: str, arm: str) -> list[TrialRecord]:
    return [trial for trial in chosen_replicas(sweep, task, arm) if trial.state == "completed"]


def _all(sweep: Sweep, trials: Sequence[TrialRecord]) -> list[Curve]:
    return [curve for trial in trials if (curve := curve_of(sweep, trial)) is not None]


def _spent(sweep: Sweep, trial: TrialRecord, reports: ReportColumns) -> dict[str, Array]:
    """`joules` where every report counted those of its GPUs, `cost` where prices are known.

    What a trial cost, with its evaluations, is spread evenly over its seconds of training.
    """
    axes = {}
    joules = reports.system.get("energy_joules")
    if joules is not None and np.isfinite(joules).all():
        axes["joules"] = np.cumsum(joules)
    prices: dict[str, Any] = sweep.record.experiment.get("prices") or {}
    cost = total([trial.spent], 0.0, prices).cost
    seconds = reports.axes["seconds"]
    if cost and seconds[-1] > 0.0:
        axes["cost"] = cost * seconds / seconds[-1]
    return axes
