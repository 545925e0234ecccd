"""Whether a search was long enough, whether its sampler learnt, and what its pruner saved and may have cost.

Every number is of the trials that were run: fewer of them, drawn at random, are as if the search had been shorter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from analysis.columns import PROGRESS
from analysis.foretelling import Foretold, foretell
from analysis.records import TrialRecord
from analysis.search_space import Axis, space_of
from analysis.sweep import Sweep

Array = npt.NDArray[np.float64]

POINTS = 60
"""Numbers of trials for which the expected best is kept."""
_TREND_FROM = 6


@dataclass(frozen=True, slots=True)
class BestOf:
    """The best of `k` of the trials, drawn at random: its mean, and where 90 % of such draws lie."""

    k: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Cut:
    """What pruning may have cost: whether a pruned trial would have ended better than the best."""

    probability: float
    """That at least one would have, by more than seeds differ where that is known."""
    gain: float
    """How much better the best would be on average had none been pruned, in the objective's units."""
    likeliest: str
    """The pruned trial with the best prospects."""
    likeliest_probability: float
    foretold: int
    rests_on: int
    """Completed trials of the arm, replicas too."""


@dataclass(frozen=True, slots=True)
class SearchQuality:
    """The search of one arm on one task."""

    task: str
    arm: str
    trials: int
    """That have ended."""
    completed: int
    pruned: int
    failed: int
    best_trial: str
    best: float
    expected: list[BestOf] = field(default_factory=list)
    seed_spread: float | None = None
    """Standard deviation of the validation objective over replicas of one configuration: differences below it are
    chance."""
    enough: int | None = None
    """The least number of trials whose expected best is within `seed_spread` of the best; None: unknown."""
    trend_p: float | None = None
    """Of Kendall's test that later trials are no better than earlier ones; None below six trials."""
    saved: float = 0.0
    """The share of the search's training that pruning saved, by the budget's axis."""
    cut: Cut | None = None
    """None where nothing was pruned, or nothing can be foretold of what was."""
    untried: dict[str, list[Any]] = field(default_factory=dict)
    """By parameter: the choices that no trial which trained to the end had."""
    again: float | None = None
    """The mean validation objective of the best trial's replicas: other seeds, the same configuration."""
    replicas: int = 0


def search_qualities(sweep: Sweep) -> list[SearchQuality]:
    """Of every arm on each of its tasks, as soon as one of its search trials has completed."""
    record = sweep.record
    found = [_quality(sweep, task, arm) for task in record.tasks for arm in record.arms if record.runs_on(arm, task)]
    return [each for each in found if each is not None]


def best_of(values: Array, ks: Sequence[int]) -> list[BestOf]:
    """The best (least) of k of the values without putting back, by counting: no sample is drawn."""
    ranked, n = np.sort(values), len(values)
    k, place = np.array(ks)[:, None], np.arange(n)[None]
    with np.errstate(invalid="ignore"):
        later = _log_choose(n - 1 - place, k - 1) - _log_choose(np.array(n), k)
    chance = np.exp(np.where(place <= n - k, later, -np.inf))
    reached = np.cumsum(chance, axis=1)
    low = ranked[np.argmax(reached >= 0.05 - 1e-12, axis=1)]
    high = ranked[np.argmax(reached >= 0.95 - 1e-12, axis=1)]
    return [BestOf(int(n), *map(float, row)) for n, *row in zip(ks, chance @ ranked, low, high, strict=True)]


def _quality(sweep: Sweep, task: str, arm: str) -> SearchQuality | None:
    search = sweep.select(task=task, arm=arm, phase="search")
    best = sweep.best_search_trial(task, arm)
    if best is None or best.objective is None or any(trial.lineage for trial in search):
        return None
    sign = 1.0 if sweep.record.direction == "minimize" else -1.0
    ended = [trial for trial in search if trial.state in ("completed", "pruned", "failed")]
    by_state = {state: [t for t in ended if t.state == state] for state in ("completed", "pruned", "failed")}
    foretold = foretell(sweep, task, arm)
    values = _values(ended, foretold, sign)
    curve = best_of(values, _numbers(len(values)))
    spread, again, replicas = _over_seeds(sweep, task, arm, best)
    near = sign * best.objective + (spread or 0.0)
    return SearchQuality(
        task=task,
        arm=arm,
        trials=len(ended),
        **{state: len(group) for state, group in by_state.items()},
        best_trial=best.key,
        best=best.objective,
        expected=[BestOf(b.k, sign * b.mean, *sorted((sign * b.low, sign * b.high))) for b in curve],
        seed_spread=spread,
        enough=None if spread is None else next((b.k for b in curve if b.mean <= near), len(values)),
        trend_p=_trend(values),
        saved=_saved(sweep, by_state["pruned"], len(by_state["completed"])),
        cut=_cut(foretold, best.objective, spread or 0.0, sign),
        untried=_untried(space_of(sweep.record, arm, search), by_state["completed"]),
        again=again,
        replicas=replicas,
    )


def _values(trials: Sequence[TrialRecord], foretold: Foretold, sign: float) -> Array:
    """In the order of asking, less is better. A pruned trial counts with what is expected of it, else as it stood, and
    never as better than the best; a failed one as the worst."""
    expected = dict(zip([t.key for t in foretold.trials], np.median(foretold.draws, axis=0).tolist(), strict=True))
    raw = [None if t.state == "failed" else expected.get(t.key, t.objective) for t in trials]
    values = np.array([np.nan if value is None else sign * value for value in raw], dtype=np.float64)
    measured = np.array([trial.state == "completed" for trial in trials])
    values[~measured] = np.maximum(values[~measured], np.nanmin(values[measured]))
    finite = np.isfinite(values)
    values[~finite] = values[finite].max()
    return values


def _numbers(n: int) -> list[int]:
    return [int(k) for k in np.unique(np.round(np.geomspace(1, n, POINTS)))] if n > POINTS else list(range(1, n + 1))


def _log_choose(n: npt.NDArray[np.int64], k: npt.NDArray[np.int64]) -> Array:
    return np.asarray(special.gammaln(n + 1) - special.gammaln(k + 1) - special.gammaln(n - k + 1))


def _trend(values: Array) -> float | None:
    if len(values) < _TREND_FROM or np.ptp(values) == 0.0:
        return None
    from scipy import stats  # here: `status` does without what takes a second to import

    return float(stats.kendalltau(np.arange(len(values)), values, alternative="less").pvalue)


def _over_seeds(sweep: Sweep, task: str, arm: str, best: TrialRecord) -> tuple[float | None, float | None, int]:
    """The spread over seeds within configurations (pooled), and the mean of the best trial's own replicas."""
    groups: dict[str, list[float]] = {}
    for trial in sweep.select(task=task, arm=arm, phase="replica", state="completed"):
        if trial.objective is not None and np.isfinite(trial.objective):
            groups.setdefault(trial.source, []).append(trial.objective)
    free = sum(len(group) - 1 for group in groups.values())
    squares = sum(float(((np.array(group) - np.mean(group)) ** 2).sum()) for group in groups.values())
    own = groups.get(best.key, [])
    return float(np.sqrt(squares / free)) if free else None, float(np.mean(own)) if own else None, len(own)


def _saved(sweep: Sweep, pruned: Sequence[TrialRecord], completed: int) -> float:
    axis, amount = str(sweep.record.budget.get("axis", "")), float(sweep.record.budget.get("amount") or 0.0)
    if axis not in PROGRESS or not amount or not pruned:
        return 0.0
    left = [max(0.0, 1.0 - float(getattr(sweep.progress(trial), PROGRESS[axis])) / amount) for trial in pruned]
    return float(sum(left)) / (len(pruned) + completed)


def _cut(foretold: Foretold, best: float, margin: float, sign: float) -> Cut | None:
    if not foretold.trials:
        return None
    ends, top = sign * foretold.draws, sign * best
    better = ends < top - margin
    likeliest = int(better.mean(axis=0).argmax())
    return Cut(
        probability=float(better.any(axis=1).mean()),
        gain=float(np.maximum(0.0, top - ends.min(axis=1)).mean()),
        likeliest=foretold.trials[likeliest].key,
        likeliest_probability=float(better[:, likeliest].mean()),
        foretold=len(foretold.trials),
        rests_on=foretold.completed,
    )


def _untried(axes: Sequence[Axis], completed: Sequence[TrialRecord]) -> dict[str, list[Any]]:
    tried = {axis.path: [trial.parameters.get(axis.path) for trial in completed] for axis in axes if axis.choices}
    missing = {
        axis.path: [choice for choice in axis.choices if choice not in tried[axis.path]]
        for axis in axes
        if axis.choices
    }
    return {path: choices for path, choices in missing.items() if choices}
