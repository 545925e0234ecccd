"""What a search's trials say about its space: around the best configuration, parameter by parameter, and of pairs.

A surrogate is asked what would change if one parameter alone were another; where it cannot foretell trials that it was
not shown, it says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import special

from analysis.association import pair_effects
from analysis.foretelling import Outcomes, foretell, outcomes
from analysis.search_space import Axis, points_of, space_of
from analysis.surrogate import MOST_TRIALS, Surrogate, fit
from analysis.sweep import Sweep

Array = npt.NDArray[np.float64]

MIN_TRIALS = 6
"""Trials below which no surrogate is fitted."""
_EDGE = 0.03
_SAMPLES = 256
_GRID = 15
_ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Around:
    """The objective along one parameter, all others as in the best configuration; values in the objective's units."""

    parameter: str
    best: Any
    values: list[Any]
    expected: list[float]
    low: list[float]
    high: list[float]
    worse: list[bool]
    """By value: the 95 % interval of its difference to the best says that it is worse."""
    edge: str
    """`lower` or `upper` where the best lies at an end of a range."""
    axis: Literal["linear", "log", "category"] = "linear"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two parameters that act together: the share of the surrogate's variance that neither explains alone."""

    one: str
    other: str
    share: float
    p: float | None
    """Corrected, of no joint effect; None where the trials are too few to test."""


@dataclass(frozen=True, slots=True)
class Plane:
    """The objective over two parameters, all others as in the best configuration."""

    one: str
    other: str
    values: list[Any]
    """Of `one`."""
    other_values: list[Any]
    expected: list[list[float]]
    """A row for each of `other_values`, in the objective's units."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """One arm's search on one task."""

    task: str
    arm: str
    best_trial: str
    trials: int
    """That it rests on, pruned ones that were foretold among them."""
    foretold: int
    foretells: float | None
    """Share of the variance that the surrogate foretells of trials left out; None without a surrogate."""
    logarithm: bool
    """The surrogate is of the logarithm of the objective."""
    around: list[Around] = field(default_factory=list)
    pairs: list[Pair] = field(default_factory=list)
    """The one with the largest share first."""
    plane: Plane | None = None
    """Of the pair that acts together most surely; None where none does."""
    expected: dict[str, float] = field(default_factory=dict)
    """By the key of a pruned trial: what it would have reached, in the objective's units."""


def sensitivities(sweep: Sweep) -> list[Sensitivity]:
    """Of every arm on each of its tasks; nothing where no search trial has completed or nothing was searched."""
    record = sweep.record
    pairs = [(task, arm) for task in record.tasks for arm in record.arms if record.runs_on(arm, task)]
    found = [_sensitivity(sweep, t, arm, outcomes(sweep, t, arm, foretell(sweep, t, arm))) for t, arm in pairs]
    return [each for each in found if each is not None]


def _sensitivity(sweep: Sweep, task: str, arm: str, found: Outcomes) -> Sensitivity | None:
    best = sweep.best_search_trial(task, arm)
    axes = space_of(sweep.record, arm, found.trials)
    if best is None or not axes:
        return None
    kept, points = points_of(axes, found.trials)
    place = {trial.key: index for index, trial in enumerate(found.trials)}
    keys = [trial.key for trial in kept]
    rows, points = _most(np.array([place[key] for key in keys], np.int64), points, keys, best.key)
    values, spread = found.values[rows], found.spread[rows]
    ends = found.scale.back(found.values).tolist()
    expected = {t.key: end for t, end, apart in zip(found.trials, ends, found.spread, strict=True) if apart > 0.0}
    whole = Sensitivity(
        task, arm, best.key, len(rows), int((spread > 0).sum()), None, found.scale.log, expected=expected
    )
    if len(rows) < MIN_TRIALS or np.ptp(values) == 0.0 or best.key not in keys:
        return whole
    surrogate = fit(axes, points, values, spread)
    start = points_of(axes, [best])[1][0]
    pairs = _pairs(surrogate, axes, pair_effects(axes, points, values))
    return replace(
        whole,
        foretells=surrogate.left_out,
        around=[_around(surrogate, axes, i, start, best.parameters, found) for i in range(len(axes))],
        pairs=pairs,
        plane=_plane(surrogate, axes, pairs, start, found) if surrogate.left_out > 0.0 else None,
    )


def _most(
    rows: npt.NDArray[np.int64], points: Array, keys: Sequence[str], best: str
) -> tuple[npt.NDArray[np.int64], Array]:
    """At most MOST_TRIALS of them, evenly over the search, and the best."""
    if len(rows) <= MOST_TRIALS:
        return rows, points
    evenly = np.linspace(0, len(rows) - 1, MOST_TRIALS - 1).astype(np.int64)
    chosen = np.unique(np.append(evenly, keys.index(best) if best in keys else 0))
    return rows[chosen], points[chosen]


def _around(
    surrogate: Surrogate, axes: Sequence[Axis], index: int, start: Array, best: dict[str, Any], found: Outcomes
) -> Around:
    axis = axes[index]
    values, places = axis.grid()
    line = np.repeat(start[None], len(values) + 1, axis=0)
    line[1:, index] = places
    mean, covariance = surrogate.joint(line)
    wide = float(special.stdtrit(len(surrogate.processes[0].points) - 2, 0.975))
    doubt = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    apart = np.sqrt(np.maximum(np.diag(covariance) + covariance[0, 0] - 2 * covariance[0], 0.0))
    low, high = np.sort(found.scale.back(np.stack([mean - wide * doubt, mean + wide * doubt])), axis=0)
    ranged = axis.num_values is None or axis.num_values > 3
    edge = "" if axis.choices or not ranged else "lower" if start[index] <= _EDGE else \
        "upper" if start[index] >= 1 - _EDGE else ""  # fmt: skip
    return Around(
        axis.path, best[axis.path], values,
        found.scale.back(mean)[1:].tolist(), low[1:].tolist(), high[1:].tolist(),
        (mean - mean[0] > wide * apart)[1:].tolist(), edge,
        "category" if axis.named else "log" if axis.log else "linear",
    )  # fmt: skip


def _pairs(surrogate: Surrogate, axes: Sequence[Axis], tested: dict[tuple[int, int], float]) -> list[Pair]:
    """Second-order indices of Sobol' by samples that share a pair of coordinates."""
    count = len(axes)
    if count < 2:
        return []
    from scipy.stats import qmc  # here: `status` does without what takes a second to import

    cube = qmc.Sobol(2 * count, scramble=False).random(_SAMPLES) + 0.5 / _SAMPLES
    one, other = (_spread_out(axes, half) for half in (cube[:, :count], cube[:, count:]))
    pairs = list(combinations(range(count), 2))
    fixed = [(i,) for i in range(count)] + pairs
    first, second = surrogate.mean(one), surrogate.mean(other)
    centre, variance = float(np.mean([first, second])), float(np.var([first, second]))
    if variance == 0.0:
        return []
    closed = []
    for kept in fixed:
        mixed = other.copy()
        mixed[:, kept] = one[:, kept]
        closed.append(float(((first - centre) * (surrogate.mean(mixed) - second)).mean()) / variance)
    shares = [closed[count + k] - closed[i] - closed[j] for k, (i, j) in enumerate(pairs)]
    found = [
        Pair(axes[i].path, axes[j].path, max(0.0, share), tested.get((i, j)))
        for (i, j), share in zip(pairs, shares, strict=True)
    ]
    return sorted(found, key=lambda pair: -pair.share)


def _plane(
    surrogate: Surrogate, axes: Sequence[Axis], pairs: Sequence[Pair], start: Array, found: Outcomes
) -> Plane | None:
    sure = [pair for pair in pairs if pair.p is not None and pair.p < _ALPHA]
    if not sure:
        return None
    pair = min(sure, key=lambda each: each.p or 0.0)
    names = [axis.path for axis in axes]
    i, j = names.index(pair.one), names.index(pair.other)
    (values, across), (others, up) = axes[i].grid(_GRID), axes[j].grid(_GRID)
    grid = np.tile(start, (len(up), len(across), 1))
    grid[:, :, i], grid[:, :, j] = across[None], up[:, None]
    expected = found.scale.back(surrogate.mean(grid.reshape(-1, len(axes)))).reshape(len(up), len(across))
    return Plane(pair.one, pair.other, values, others, expected.tolist())


def _spread_out(axes: Sequence[Axis], cube: Array) -> Array:
    """Points of the cube as points of the space: every value of an axis equally often."""
    points = cube.copy()
    for index, axis in enumerate(axes):
        if axis.num_values is not None and axis.num_values <= _SAMPLES:
            numbers = np.floor(cube[:, index] * axis.num_values)
            points[:, index] = numbers if axis.named else numbers / max(1, axis.num_values - 1)
    return points
