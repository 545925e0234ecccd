"""A trial that computes nothing: what is left of a sweep's time is the orchestrator's.

Its process imports neither torch nor `hrm.train`; its numbers are functions of the spec, so that they look like those
of a search. It is real to everything else: the ledger, the records, the trackers and Ray Tune.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import psutil
from ray import tune

from hrm.records import Progress, Report, StepRecord, TrialResult

STEPS_PER_REPORT = 10
EXPERIMENT = """\
question: What does a trial cost beside its training?
tasks: [{kind: red_team, num_train: 64, num_validation: 8, num_test: 8}]
base:
  model: {kind: transformer, hidden_size: 16, num_heads: 2, num_layers: 1, causal: true}
  optimizer: {kind: adamw}
  batch_size: 4
  num_reports: 4
arms:
  small_batch: {}
  large_batch: {patch: {batch_size: 8}}
space:
  optimizer.learning_rate: {low: 1e-3, high: 4e-3, log: true}
  optimizer.weight_decay: {low: 1e-3, high: 1.0, log: true}
search: {sampler: {kind: random}, pruner: {kind: successive_halving}}
budget: {axis: steps, amount: 40}
replicas: {seeds: 3}
trackers: []
resources: {launcher: in_process}
"""


def events(spec: dict[str, Any], attempt: int, test: bool, known_reports: int = 0) -> Iterator[Report | TrialResult]:
    """The reports beyond the known ones, then the result."""
    last = None
    for index in range(known_reports + 1, spec["num_reports"] + 1):
        yield (last := _report(spec, index, attempt))
    last = last or _report(spec, spec["num_reports"], attempt)
    test_metrics = {"loss": last.validation["loss"] + 0.01} if test else None
    yield TrialResult(last.progress, last.progress.step, "", last.validation, test_metrics)


def _report(spec: dict[str, Any], index: int, attempt: int) -> Report:
    loss = 1.0 + (math.log10(spec["optimizer"]["learning_rate"]) + 2.7) ** 2 + 0.3 / index
    loss += 0.01 * spec["batch_size"] + 0.001 * (spec["seed"] % 7)
    now = time.time()
    first = (index - 1) * STEPS_PER_REPORT
    steps = tuple(
        StepRecord(_progress(step), now, {"loss": loss + 0.1 / step, "learning_rate": 1e-3, "gradient_norm": 1.0})
        for step in range(first + 1, first + STEPS_PER_REPORT + 1)
    )
    system = {"process_id": float(os.getpid()), "process_memory_bytes": _resident_bytes(), "imports_torch": _torch()}
    facts = {"num_parameters": 1000, "resolved": {"precision": "float32"}} if index == 1 else {}
    validation = {"loss": loss, "token_accuracy": 1.0 / (1.0 + loss)}
    return Report(index, steps[-1].progress, now, validation, steps, system, facts=facts)


def _progress(step: int) -> Progress:
    return Progress(step, 4 * step, 100 * step, 1e9 * step, 0.01 * step)


def duration(spec: dict[str, Any], shortest: float) -> float:
    """Seconds of an uneven trial: `shortest` to four times that, by its learning rate."""
    return float(shortest * spec["optimizer"]["learning_rate"] / 1e-3)


def _torch() -> float:
    return float("torch" in sys.modules)


def _resident_bytes() -> float:
    return float(psutil.Process().memory_info().rss)


class TrivialTrial(tune.Trainable):
    """The Tune actor: gives every event at once."""

    def setup(self, config: dict[str, Any]) -> None:
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        job = json.loads(new_config["job"])
        self._events = events(job["spec"], job["attempt"], job["test"], job["known_reports"])
        return True

    def step(self) -> dict[str, Any]:
        event = next(self._events)
        if isinstance(event, Report):
            return {"report": event.to_json()}
        return {"result": json.dumps(asdict(event)), "done": True}


class UnevenTrial(TrivialTrial):
    """Holds its GPU for `duration`, as a training would; its processor rests. The records say how long it was held."""

    shortest = 3.0
    """Seconds."""

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        spec = json.loads(new_config["job"])["spec"]
        self._seconds, self._busy = duration(spec, self.shortest) / spec["num_reports"], 0.0
        return super().reset_config(new_config)

    def step(self) -> dict[str, Any]:
        event = next(self._events)
        if isinstance(event, TrialResult):
            return {"result": json.dumps(asdict(event)), "done": True}
        began = time.time()
        time.sleep(self._seconds)
        held = {**event.system, "held_from": began, "held_until": time.time()}
        return {"report": replace(event, time=time.time(), system=held).to_json()}
