"""What a sweep will take, from what its arms take: arithmetic alone, and the sentences for a person.

Between two bounds: every search trial trains to its end, or the pruner ends as many as it can, as early as it can.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.numbers import duration, flop
from analysis.spending import Spending, short, total, unit
from orchestrator.disk import COPIES_WHILE_RUNNING
from orchestrator.experiment import ExperimentSpec
from orchestrator.resources import Resources


@dataclass(frozen=True, slots=True)
class ArmForecast:
    """An arm on a task: means over the configurations that were measured."""

    task: str
    arm: str
    configurations: int
    step_seconds: float
    steps: float
    search_seconds: float
    """Of a search trial that is not pruned."""
    pruned_share: float
    """Of the budget, at which the pruner may act first."""
    pruned_seconds: float
    """Of a search trial that is pruned there."""
    replica_seconds: float
    flops: float
    """Of a whole training."""
    checkpoint_bytes: int
    watts: float | None
    refused: tuple[str, ...]
    """Why configurations could not be measured."""


@dataclass(frozen=True, slots=True)
class Start:
    """What comes before the first steps, in seconds."""

    connect: float
    """Until Ray is there."""
    process: float
    """Until a trial process is there and has imported what it needs."""


@dataclass(frozen=True, slots=True)
class Bound:
    """What the whole sweep takes under an assumption about pruning."""

    spending: Spending
    flops: float


@dataclass(frozen=True, slots=True)
class Forecast:
    """The whole sweep."""

    search_trials: int
    replicas: int
    concurrency: int
    arms: tuple[ArmForecast, ...]
    without_pruning: Bound
    most_pruned: Bound
    disk_bytes: int
    limits: tuple[str, ...]
    """What becomes of each limit, in a sentence."""


def assemble(
    spec: ExperimentSpec, arms: Sequence[ArmForecast], resources: Resources, concurrency: int, start: Start
) -> Forecast:
    """The sweep from its arms: pure arithmetic."""
    replicas = spec.replicas.seeds * spec.replicas.configurations
    kept = sum(arm.checkpoint_bytes * (2 + replicas) for arm in arms)
    largest = max(arm.checkpoint_bytes for arm in arms)
    whole, pruned = (
        _bound(spec, arms, resources, concurrency, start, survivors)
        for survivors in (spec.search.trials, _survivors(spec))
    )
    limits, prices = spec.limits.model_dump(), spec.prices.model_dump()
    return Forecast(
        search_trials=len(arms) * spec.search.trials,
        replicas=len(arms) * replicas,
        concurrency=concurrency,
        arms=tuple(arms),
        without_pruning=whole,
        most_pruned=pruned,
        disk_bytes=kept + COPIES_WHILE_RUNNING * concurrency * largest,
        limits=tuple(_against(whole.spending, pruned.spending, limits, prices)),
    )


def _survivors(spec: ExperimentSpec) -> int:
    """How few search trials of an arm the pruner can leave: those that it has nothing to compare with."""
    if spec.search.pruner.kind == "none" or spec.search.population is not None:
        return spec.search.trials
    return min(spec.search.trials, spec.search.generation if spec.search.deterministic else 1)


def _bound(
    spec: ExperimentSpec,
    arms: Sequence[ArmForecast],
    resources: Resources,
    concurrency: int,
    start: Start,
    survivors: int,
) -> Bound:
    replicas, pruned = spec.replicas.seeds * spec.replicas.configurations, spec.search.trials - survivors
    searches = [survivors * arm.search_seconds + pruned * arm.pruned_seconds for arm in arms]
    busy = [search + replicas * arm.replica_seconds for search, arm in zip(searches, arms, strict=True)]
    at_once = spec.search.generation if spec.search.deterministic else spec.search.trials
    longest = max(
        search / min(concurrency, at_once) + math.ceil(replicas / concurrency) * arm.replica_seconds
        for search, arm in zip(searches, arms, strict=True)
    )
    trials = len(arms) * (spec.search.trials + replicas)
    processes = trials if resources.isolation == "process" else min(concurrency, trials)
    held = sum(busy) + processes * start.process
    spent: dict[str, float] = {
        "cpu_seconds": held * resources.workers_per_trial * resources.cpus_per_worker,
        "gpu_seconds": held * resources.workers_per_trial * resources.gpus_per_worker,
    }
    if all(arm.watts is not None for arm in arms):
        watts = [(arm.watts or 0.0) * resources.workers_per_trial for arm in arms]
        spent["joules"] = sum(each * seconds for each, seconds in zip(watts, busy, strict=True))
    wall = start.connect + max(held / concurrency, start.process + longest)
    flops = sum(arm.flops * (survivors + replicas + pruned * arm.pruned_share) for arm in arms)
    return Bound(total([spent], wall, spec.prices.model_dump()), flops)


def _against(
    whole: Spending, pruned: Spending, limits: Mapping[str, float | None], prices: Mapping[str, Any]
) -> list[str]:
    sentences = []
    for name, limit in limits.items():
        if limit is None:
            continue
        most, least = getattr(whole, name), getattr(pruned, name)
        if most is None:
            verdict = "is not known beforehand here"
        elif least > limit:
            verdict = f"will be reached before the end: {short(least)} to {short(most)} are needed"
        elif most > limit:
            verdict = f"may be reached before the end: {short(least)} to {short(most)} are needed"
        else:
            verdict = f"is enough: {short(most)} at most"
        sentences.append(f"limits.{name} of {short(limit)} {unit(name, prices)} {verdict}")
    return sentences


def in_words(found: Forecast, spec: ExperimentSpec) -> list[str]:
    """For a person."""
    lines = [
        f"{found.search_trials} search trials and {found.replicas} replicas, {found.concurrency} at a time. Measured:"
    ]
    for arm in found.arms:
        lines.append(
            f"  {arm.task}/{arm.arm}: {short(1e3 * arm.step_seconds)} ms a step, {arm.steps:,.0f} steps, "
            f"{duration(arm.search_seconds)} a search trial, {duration(arm.replica_seconds)} a replica, "
            f"{arm.checkpoint_bytes / 1e6:.1f} MB a checkpoint ({arm.configurations} configurations)"
        )
        lines += [f"  note: a configuration of {arm.arm} cannot train: {reason}" for reason in arm.refused]
    most, least = found.without_pruning, found.most_pruned
    prices = spec.prices.model_dump()
    lines.append(f"Time           {_range(least.spending.seconds, most.spending.seconds, duration)}")
    lines.append(f"Training       {_range(least.flops, most.flops, flop)}")
    for name, title in (("cpu_hours", "CPU"), ("gpu_hours", "GPU"), ("energy_kwh", "Energy"), ("cost", "Cost")):
        low, high = getattr(least.spending, name), getattr(most.spending, name)
        if high:
            lines.append(f"{title:<15}{_range(low, high, short)} {unit(name, prices)}")
    lines.append(f"Disk           {found.disk_bytes / 1e9:.2f} GB of checkpoints at most")
    lines += found.limits
    lines.append("The larger figure is without pruning, the smaller with as much of it as there can be.")
    return lines


def _range(low: float, high: float, words: Callable[[float], str]) -> str:
    return words(high) if words(low) == words(high) else f"{words(low)} to {words(high)}"
