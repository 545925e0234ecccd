"""What each arm of a sweep achieved, and from what evidence.

The test metric of an arm's replicas decides. Where an arm has none yet, its best search trial stands in, and says that
it is no evidence: a validation value that was chosen for being the best, from one seed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from analysis.course import course, start_in_words
from analysis.intervals import Direction, Mean, mean_interval
from analysis.records import TrialRecord
from analysis.sweep import Sweep, model_kind, seed_of

REPLICAS = "replicas on test"
SEARCH = "validation of the search, one seed: not evidence"


@dataclass(frozen=True, slots=True)
class Metric:
    """The objective's metric of one arm; `low` and `high` are the 95 % interval, None for one seed."""

    name: str
    split: Literal["test", "validation"]
    mean: float
    low: float | None
    high: float | None
    n: int
    evidence: str
    """REPLICAS or SEARCH."""
    note: str
    """`one seed` where there is no interval."""
    seeds: dict[str, float]
    """Every value by its seed."""

    @property
    def decides(self) -> bool:
        """Whether it comes from replicas."""
        return self.evidence == REPLICAS


@dataclass(frozen=True, slots=True)
class ArmResult:
    """One arm on one task; costs are means over the trials that the metric is from."""

    name: str
    task: str
    model_kind: str
    metric: Metric | None = None
    parameters: int | None = None
    """Trainable values without puzzle tables."""
    steps: float | None = None
    flops: float | None = None
    seconds: float | None = None
    best_checkpoint: str = ""
    """The best by the objective on validation, never by test: relative to the sweep's directory, or a URI."""
    best_trial: str = ""
    """The key of its trial."""
    trials: dict[str, str] = field(default_factory=dict)
    """By seed the key of the trial that the metric's value is from."""
    best_configuration: dict[str, Any] = field(default_factory=dict)
    replicas: int = 0
    """Replicas of this configuration, in any state."""
    replicas_failed: int = 0
    """Of these, how many ended without a finite test metric: they are missing from the mean."""
    started_from: str = ""
    """Where its weights come from, if not from the seed."""
    course: list[str] = field(default_factory=list)
    """What happened on the way, in sentences: its population, and what got no more seeds and why."""


def measure_arms(sweep: Sweep) -> list[ArmResult]:
    """Every arm on each of its tasks, in the order of the experiment."""
    record = sweep.record
    return [_measured(sweep, task, arm) for task in record.tasks for arm in record.arms if record.runs_on(arm, task)]


def _measured(sweep: Sweep, task: str, arm: str) -> ArmResult:
    search, replicas = (sweep.select(task=task, arm=arm, phase=phase) for phase in ("search", "replica"))
    trials = [*replicas, *search]
    return replace(
        _measure(sweep, task, arm),
        started_from=start_in_words(trials[0].spec) if trials else "",
        course=course(search, replicas, chosen_replicas(sweep, task, arm)),
    )


def measured(arms: Sequence[ArmResult], task: str) -> dict[str, dict[int, float]]:
    """By arm and seed, the test metric of the task's replicas: what `analysis.compare` takes."""
    return {
        arm.name: {int(seed): value for seed, value in arm.metric.seeds.items()}
        for arm in arms
        if arm.task == task and arm.metric is not None and arm.metric.decides
    }


def ranked(arms: Sequence[ArmResult], direction: Direction) -> list[ArmResult]:
    """The arms with a metric, best mean first."""
    sign = 1.0 if direction == "minimize" else -1.0
    known = [(sign * arm.metric.mean, arm) for arm in arms if arm.metric is not None]
    return [arm for _, arm in sorted(known, key=lambda pair: pair[0])]


def chosen_replicas(sweep: Sweep, task: str, arm: str) -> list[TrialRecord]:
    """The replicas of the arm's configuration, whatever their state.

    Where several configurations were replicated, the one with most completed replicas counts, and among equals the one
    with the best mean objective on validation. The test split has no say in it.
    """
    by_source: dict[str, list[TrialRecord]] = {}
    for trial in sweep.select(task=task, arm=arm, phase="replica"):
        by_source.setdefault(trial.source, []).append(trial)
    sign = -1.0 if sweep.record.direction == "minimize" else 1.0

    def rank(trials: list[TrialRecord]) -> tuple[int, float]:
        values = [trial.objective for trial in trials if trial.state == "completed" and trial.objective is not None]
        return len(values), sign * float(np.mean(values)) if values else -math.inf

    return max(by_source.values(), key=rank, default=[])


def test_value(trial: TrialRecord, metric: str) -> float | None:
    """The trial's test metric; None where it has none that is finite."""
    value = ((trial.result or {}).get("test") or {}).get(metric)
    return float(value) if value is not None and math.isfinite(value) else None


def _measure(sweep: Sweep, task: str, arm: str) -> ArmResult:
    trials = sweep.select(task=task, arm=arm)
    kind = model_kind(trials[0]) if trials else ""
    replicas = chosen_replicas(sweep, task, arm)
    name = sweep.record.metric
    values = {trial.key: test_value(trial, name) for trial in replicas if trial.state == "completed"}
    done = [trial for trial in replicas if values.get(trial.key) is not None]
    failed = sum(trial.state == "failed" or (trial.key in values and values[trial.key] is None) for trial in replicas)
    if done:
        seeds = {seed_of(trial): value for trial in done if (value := values[trial.key]) is not None}
        metric = _metric(name, "test", mean_interval(list(seeds.values())), REPLICAS, seeds)
        return _result(sweep, task, arm, kind, metric, done, len(replicas), failed)
    best = sweep.best_search_trial(task, arm)
    if best is None or best.objective is None or not math.isfinite(best.objective):
        return ArmResult(arm, task, kind, replicas=len(replicas), replicas_failed=failed)
    metric = _metric(name, "validation", Mean(best.objective, None, None, 1), SEARCH, {seed_of(best): best.objective})
    return _result(sweep, task, arm, kind, metric, [best], len(replicas), failed)


def _metric(
    name: str, split: Literal["test", "validation"], mean: Mean, evidence: str, seeds: dict[int, float]
) -> Metric:
    by_seed = {str(seed): seeds[seed] for seed in sorted(seeds)}
    note = "one seed" if mean.n == 1 else ""
    return Metric(name, split, mean.mean, mean.low, mean.high, mean.n, evidence, note, by_seed)


def _result(
    sweep: Sweep,
    task: str,
    arm: str,
    kind: str,
    metric: Metric,
    trials: list[TrialRecord],
    replicas: int,
    failed: int,
) -> ArmResult:
    progress = [sweep.progress(trial) for trial in trials]
    best = sweep.best_of((trial, trial.objective) for trial in trials) or trials[0]
    return ArmResult(
        name=arm,
        task=task,
        model_kind=kind,
        metric=metric,
        parameters=trials[0].num_parameters,
        steps=float(np.mean([p.step for p in progress])),
        flops=float(np.mean([p.flops for p in progress])),
        seconds=float(np.mean([p.seconds for p in progress])),
        best_checkpoint=sweep.checkpoint_of(best),
        best_trial=best.key,
        trials={str(seed_of(trial)): trial.key for trial in trials},
        best_configuration=trials[0].parameters,
        replicas=replicas,
        replicas_failed=failed,
    )
