"""How pruned trials would have ended, from how the arm's completed trials went on after the same report.

A regression of the best value at the end on the best value at that report, with its whole uncertainty. Too few
completed trials foretell nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.intervals import Direction
from analysis.records import TrialRecord
from analysis.sweep import Sweep

Array = npt.NDArray[np.float64]

MIN_COMPLETED = 5
"""Completed trials (replicas count, too) below which nothing is foretold: a line and its scatter need some."""
DRAWS = 4000
MOST_TRIALS = 300
"""Pruned and completed trials that are looked at, of an arm that has more, evenly over the search."""
_LOG_FROM = 2.0


@dataclass(frozen=True, slots=True)
class Scale:
    """Values as the fits take them: less is better; logarithms where all are positive and span a factor of two."""

    log: bool
    sign: float

    @classmethod
    def of(cls, values: Array, direction: Direction) -> Scale:
        """The scale that suits these values."""
        log = bool(len(values) and values.min() > 0.0 and values.max() >= _LOG_FROM * values.min())
        return cls(log, 1.0 if direction == "minimize" else -1.0)

    def to(self, values: Array) -> Array:
        """Values on the scale."""
        return self.sign * (np.log(values) if self.log else values)

    def back(self, values: Array) -> Array:
        """The values again."""
        return np.exp(self.sign * values) if self.log else self.sign * values


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How an arm's search trials ended, or would have: what importance and sensitivity rest on."""

    trials: list[TrialRecord]
    values: Array
    """On the scale. Of a pruned trial what is expected of it."""
    spread: Array
    """Standard deviation of what is expected, on the scale; 0 where it was measured."""
    draws: Array
    """Of the pruned trials, which are the last, what else they may have reached: [draws, pruned], on the scale."""
    scale: Scale


@dataclass(frozen=True, slots=True)
class Foretold:
    """What the pruned trials of an arm would have reached: draws from what is known, as it is measured."""

    trials: list[TrialRecord]
    draws: Array
    """[draws, trials]"""
    completed: int
    """Trials that it rests on."""


def best_so_far(sweep: Sweep, trial: TrialRecord) -> dict[int, float]:
    """The best validation objective up to each report, by the report's index."""
    reports = sweep.reports(trial)
    values = reports.validation.get(sweep.record.metric)
    if values is None:
        return {}
    least = np.fmin if sweep.record.direction == "minimize" else np.fmax
    best = least.accumulate(np.asarray(values, dtype=np.float64))
    known = np.isfinite(best)
    return dict(zip(reports.index[known].tolist(), best[known].tolist(), strict=True))


def foretell(sweep: Sweep, task: str, arm: str, seed: int = 0) -> Foretold:
    """Of every pruned search trial of the arm; of none where too few trials completed."""
    pruned = _most(sweep.select(task=task, arm=arm, phase="search", state="pruned"))
    done = [trial for trial in sweep.select(task=task, arm=arm, state="completed") if _finite(trial.objective)]
    done = _most(done)
    nothing = Foretold([], np.empty((DRAWS, 0)), len(done))
    if not pruned or len(done) < MIN_COMPLETED:
        return nothing
    curves = {trial.key: best_so_far(sweep, trial) for trial in [*pruned, *done]}
    every = np.concatenate([np.fromiter(curve.values(), dtype=np.float64) for curve in curves.values()])
    scale, random = Scale.of(every, sweep.record.direction), np.random.default_rng(seed)
    by_report: dict[int, list[TrialRecord]] = {}
    for trial in pruned:
        if curves[trial.key]:
            by_report.setdefault(max(curves[trial.key]), []).append(trial)
    trials, draws = [], []
    for report, group in by_report.items():
        known = [trial for trial in done if report in curves[trial.key]]
        if len(known) < MIN_COMPLETED:
            continue
        ends = scale.to(np.array([trial.objective for trial in known], dtype=np.float64))
        so_far = scale.to(np.array([curves[trial.key][report] for trial in known]))
        asked = scale.to(np.array([curves[trial.key][report] for trial in group]))
        draws.append(scale.back(predict(so_far, ends, asked, random)))
        trials += group
    return Foretold(trials, np.concatenate(draws, axis=1), len(done)) if trials else nothing


def predict(x: Array, y: Array, asked: Array, random: np.random.Generator, draws: int = DRAWS) -> Array:
    """Draws of y at `asked` from the regression of y on x, [draws, asked]: normal errors, flat priors.

    Nothing gets worse than it was: what is drawn above `asked` (y is the best so far of what x was) is set to it.
    """
    design = np.stack([np.ones_like(x), x - x.mean()], axis=1)
    if np.ptp(x) == 0.0:
        design = design[:, :1]
    n, k = design.shape
    inverse = np.linalg.inv(design.T @ design)
    fitted = inverse @ design.T @ y
    residual = float(((y - design @ fitted) ** 2).sum())
    sigma = np.sqrt(residual / random.chisquare(n - k, size=draws))
    lines = fitted + sigma[:, None] * (random.standard_normal((draws, k)) @ np.linalg.cholesky(inverse).T)
    at = np.stack([np.ones_like(asked), asked - x.mean()], axis=1)[:, :k]
    drawn = lines @ at.T + sigma[:, None] * random.standard_normal((draws, len(asked)))
    return np.asarray(np.minimum(drawn, asked))


def outcomes(sweep: Sweep, task: str, arm: str, foretold: Foretold) -> Outcomes:
    """The completed search trials and, where they can be foretold, the pruned ones; all others are left out."""
    done = [t for t in sweep.select(task=task, arm=arm, phase="search", state="completed") if _finite(t.objective)]
    if any(trial.lineage for trial in done):
        done = []  # what a member of a population found hangs on more than the parameters that it began with
    measured = np.array([trial.objective for trial in done], dtype=np.float64)
    known = np.concatenate([measured, np.median(foretold.draws, axis=0)])
    scale = Scale.of(known, sweep.record.direction)
    draws = np.maximum(foretold.draws, 1e-3 * known.min()) if scale.log else foretold.draws  # what has no logarithm
    return Outcomes(
        trials=[*done, *foretold.trials],
        values=scale.to(known),
        spread=np.concatenate([np.zeros(len(done)), _spread(scale.to(draws))]),
        draws=scale.to(draws),
        scale=scale,
    )


def _most(trials: list[TrialRecord]) -> list[TrialRecord]:
    return trials[:: -(-len(trials) // MOST_TRIALS)] if trials else trials


def _spread(draws: Array) -> Array:
    """The standard deviation of a normal with their middle 68 %: with few trials the draws have long tails."""
    low, high = np.quantile(draws, [0.16, 0.84], axis=0)
    return np.asarray(np.maximum((high - low) / 2.0, 1e-9))


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
