"""Limits of a whole sweep: specs, the driver's account of what attempts took, and the check against the limits.

What was spent follows from the trials' records. At a limit every trial saves and leaves, and the sweep ends with the
reason; with a higher limit the same command goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from pydantic import Field

from analysis.records import TrialRecord
from analysis.spending import Spending, against_limits, limit_sentence, outlook, total
from hrm.errors import Problem, SpecError
from hrm.spec import Spec
from orchestrator.node import energy_problem

LOOK_SECONDS = 1.0
"""How often the driver adds up what was spent."""


class PriceSpec(Spec):
    """What an hour of a processor costs."""

    gpu_hour: float = Field(0.0, ge=0.0)
    cpu_hour: float = Field(0.0, ge=0.0)
    currency: str = "USD"


class LimitSpec(Spec):
    """What a whole sweep may spend, over all starts of its driver; null for no limit."""

    gpu_hours: float | None = Field(None, gt=0.0)
    """GPUs times the hours that trials hold them."""
    cpu_hours: float | None = Field(None, gt=0.0)
    seconds: float | None = Field(None, gt=0.0)
    """Of the driver at work."""
    energy_kwh: float | None = Field(None, gt=0.0)
    """Of the trials' GPUs, by NVML's energy counter; refused where a GPU has none."""
    cost: float | None = Field(None, gt=0.0)
    """In the currency of `prices`."""


def unpriced(limits: LimitSpec, prices: PriceSpec, place: str) -> list[Problem]:
    """The problem of a limit in money without prices, if there is one."""
    if limits.cost is None or prices.gpu_hour or prices.cpu_hour:
        return []
    rule = f"must be null where no price is given, got {limits.cost:g}"
    return [Problem(f"{place}: limits.cost", rule, "Set prices.gpu_hour or prices.cpu_hour")]


class LimitReachedError(Exception):
    """The sweep has spent what it may."""


class Meter:
    """What a sweep has spent up to now, running attempts included, against its limits.

    Time is by the driver's own clock, which no change of the date moves. It is booked at every report and at the end of
    an attempt, so that a kill of the driver loses at most what came after an attempt's last report.
    """

    def __init__(self, limits: LimitSpec, prices: PriceSpec) -> None:
        self.limits, self.prices = limits.model_dump(), prices.model_dump()
        self.cpus, self.gpus = 1.0, 0.0
        """Of one trial, over its workers."""
        self.elapsed: Callable[[], float] = lambda: 0.0
        """Seconds that a driver was at work, over all starts."""
        self._since: dict[str, float] = {}
        self._next_look, self._reached = 0.0, ""

    def begin(self, key: str) -> None:
        """An attempt at the trial starts."""
        self._since[key] = time.monotonic()

    def book(self, key: str, spent: Mapping[str, float], joules: float | None = None) -> dict[str, float]:
        """`spent` and what has come since the attempt's start or the last booking; the attempt goes on."""
        now = time.monotonic()
        new = self._of(now - self._since.get(key, now)) | ({} if joules is None else {"joules": joules})
        self._since[key] = now
        return {name: spent.get(name, 0.0) + new.get(name, 0.0) for name in {**spent, **new}}

    def end(self, key: str) -> None:
        """The attempt has ended and is booked."""
        self._since.pop(key, None)

    def spending(self, records: Collection[TrialRecord]) -> Spending:
        """All of it."""
        now = time.monotonic()
        unbooked = [self._of(now - since) for since in list(self._since.values())]
        return total([*(record.spent for record in list(records)), *unbooked], self.elapsed(), self.prices)

    def in_words(self, records: Collection[TrialRecord]) -> str:
        """`spent 1.2 of 8 GPU-hours`; empty for a sweep without limits."""
        words = against_limits(self.spending(records), self.limits, self.prices)
        return f"spent {words}" if words else ""

    def outlook(self, records: Collection[TrialRecord], planned: int) -> str:
        """Which limits the whole sweep will break by what its trials took so far; empty where none is in sight."""
        ended = sum(record.ended is not None for record in records)
        return outlook(self.spending(records), ended, planned, self.limits, self.prices)

    def reached(self, records: Collection[TrialRecord]) -> str:
        """Why the sweep has to end, in a sentence; empty while it may go on. Looks once a second."""
        now = time.monotonic()
        if not self._reached and now >= self._next_look:
            self._next_look = now + LOOK_SECONDS
            self._reached = limit_sentence(self.spending(records), self.limits, self.prices)
        return self._reached

    def _of(self, seconds: float) -> dict[str, float]:
        return {"seconds": seconds, "cpu_seconds": seconds * self.cpus, "gpu_seconds": seconds * self.gpus}


def check_energy(limits: LimitSpec, gpus_per_worker: float) -> None:
    """Raises SpecError for a limit in energy that some node cannot measure. Needs a connected Ray."""
    if limits.energy_kwh is None:
        return
    place = "limits.energy_kwh"
    if not gpus_per_worker:
        rule = f"must be null where trials have no GPU, got {limits.energy_kwh:g}: NVML counts the energy of GPUs alone"
        raise SpecError(Problem(place, rule, "Set limits.cpu_hours or limits.seconds"))
    problems = [
        Problem(place, f"cannot be measured on {node}: {problem}", "Set limits.gpu_hours, or leave this node out")
        for node, problem in _energy_problems().items()
    ]
    if problems:
        raise SpecError(*problems)


def _energy_problems() -> dict[str, str]:
    """By node with GPUs, why their energy cannot be measured; nodes where it can are left out."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    asked = {
        node["NodeManagerHostname"]: ray.remote(energy_problem)
        .options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
        .remote()
        for node in ray.nodes()  # type: ignore[no-untyped-call]
        if node["Alive"] and node["Resources"].get("GPU")
    }
    answers = {name: ray.get(answer, timeout=60) for name, answer in asked.items()}
    return {name: problem for name, problem in answers.items() if problem}
