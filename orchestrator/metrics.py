"""The sweep's own numbers for Prometheus, through Ray's exporter: what `docs/grafana/hrm.json` draws.

They live in the driver while Ray is connected. Labels are the sweep, its task, arm and phase, never a trial, so that
ten thousand trials make no more series than ten. Ray puts `ray_` before each name.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Generator, Mapping

from ray.util import metrics as exported

from analysis.records import TrialRecord
from analysis.spending import total
from hrm.records import Progress, Report
from orchestrator.ledger import Ledger

_LINE = ("sweep", "task", "arm", "phase")
GAUGES = {
    "hrm_trials": ("Trials by state", (*_LINE, "state")),
    "hrm_planned_trials": ("Trials that the sweep will have", ("sweep",)),
    "hrm_training_loss": ("Loss of the step that was reported last", _LINE),
    "hrm_objective": ("The objective on validation, as reported last", _LINE),
    "hrm_best_objective": ("The best of the objective on validation so far", _LINE),
    "hrm_gpu_hours": ("GPUs that trials held times the hours that they held them, over all starts", _LINE),
    "hrm_cpu_hours": ("CPUs that trials held times the hours that they held them, over all starts", _LINE),
    "hrm_energy_kwh": ("Energy of the GPUs while trials held them, where NVML counts it", _LINE),
    "hrm_cost": ("Money, by the experiment's prices", (*_LINE, "currency")),
}
COUNTERS = {
    "hrm_steps": ("Optimizer steps", _LINE),
    "hrm_tokens": ("Scored tokens worked on", _LINE),
    "hrm_flops": ("Floating-point operations of training, by the model's formula", _LINE),
    "hrm_training_seconds": ("Seconds of training steps, summed over trials", _LINE),
    "hrm_lost_attempts": ("Attempts that ended before their trial did: a worker lost, hung or preempted", _LINE),
}
HISTOGRAMS = {"hrm_checkpoint_seconds": ("Seconds that writing a checkpoint took", _LINE)}
_BOUNDARIES = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]


def names() -> set[str]:
    """The names as Prometheus gets them from Ray: counters end in `_total`, a histogram is three series."""
    counters = {f"{name}_total" for name in COUNTERS}
    parts = {f"{name}_{part}" for name in HISTOGRAMS for part in ("bucket", "count", "sum")}
    return {f"ray_{name}" for name in {*GAUGES, *counters, *parts}}


Line = tuple[str, ...]
"""The values of `_LINE`: an arm on a task in one phase."""


@contextlib.contextmanager
def exporting(ledger: Ledger) -> Generator[None]:
    """Export the ledger's numbers meanwhile. Needs a connected Ray."""
    metrics = Metrics(ledger)
    ledger.listeners.append(metrics)
    try:
        yield
    finally:
        ledger.listeners.remove(metrics)


class Metrics:
    """A listener of the ledger that exports what changed. Needs a connected Ray; used in the driver's main thread."""

    def __init__(self, ledger: Ledger) -> None:
        """Starts with the trials as they stand; what earlier drivers did is not counted again."""
        self._ledger = ledger
        self._gauges = {name: exported.Gauge(name, *about) for name, about in GAUGES.items()}
        self._counters = {name: exported.Counter(name, *about) for name, about in COUNTERS.items()}
        self._histograms = {
            name: exported.Histogram(name, text, _BOUNDARIES, labels) for name, (text, labels) in HISTOGRAMS.items()
        }
        self._states: dict[str, str] = {}
        self._trials: Counter[tuple[Line, str]] = Counter()
        self._best: dict[Line, float] = {}
        self._spent: dict[str, Mapping[str, float]] = {}
        self._sums: dict[Line, dict[str, float]] = {}
        self._progress = {key: report.progress for key, report in ledger.reports.items()}
        self._gauges["hrm_planned_trials"].set(ledger.planned_trials, {"sweep": ledger.experiment.name})
        for record in ledger.records.values():
            self._count(record, self._line(record))
            self._spend(record, self._line(record))

    def changed(self, key: str) -> None:
        """A trial changed its state, or reported."""
        record = self._ledger.records[key]
        line = self._line(record)
        self._count(record, line)
        self._spend(record, line)
        report = self._ledger.reports.get(key)
        before = self._progress.get(key, Progress())
        if report is not None and report.progress.step > before.step:
            self._measure(report, before, line)
            self._progress[key] = report.progress

    def _line(self, record: TrialRecord) -> Line:
        return self._ledger.experiment.name, record.task, record.arm, record.phase

    def _count(self, record: TrialRecord, line: Line) -> None:
        """Trials by state, lost attempts, the best."""
        labels, before = _labels(line), self._states.get(record.key)
        self._states[record.key] = record.state
        if before == "running" and record.state == "waiting" and not self._ledger.stopping:
            self._counters["hrm_lost_attempts"].inc(1, labels)
        if before != record.state:
            for state, step in ((before, -1), (record.state, 1)):
                if state is not None:
                    self._trials[line, state] += step
                    self._gauges["hrm_trials"].set(self._trials[line, state], {**labels, "state": state})
        if record.objective is not None:
            better = min if self._ledger.experiment.spec.objective.direction == "minimize" else max
            self._best[line] = better(self._best.get(line, record.objective), record.objective)
            self._gauges["hrm_best_objective"].set(self._best[line], labels)

    def _spend(self, record: TrialRecord, line: Line) -> None:
        """What the trial has spent since it was last looked at."""
        labels, sums = _labels(line), self._sums.setdefault(line, {})
        before = self._spent.get(record.key, {})
        for name, value in record.spent.items():
            sums[name] = sums.get(name, 0.0) + value - before.get(name, 0.0)
        self._spent[record.key] = record.spent
        prices = self._ledger.meter.prices
        spending = total([sums], 0.0, prices)
        self._gauges["hrm_gpu_hours"].set(spending.gpu_hours, labels)
        self._gauges["hrm_cpu_hours"].set(spending.cpu_hours, labels)
        self._gauges["hrm_energy_kwh"].set(spending.energy_kwh, labels)
        self._gauges["hrm_cost"].set(spending.cost, {**labels, "currency": prices["currency"]})

    def _measure(self, report: Report, before: Progress, line: Line) -> None:
        """What a report adds."""
        now, labels = report.progress, _labels(line)
        for name, amount in (
            ("hrm_steps", now.step - before.step),
            ("hrm_tokens", now.tokens - before.tokens),
            ("hrm_flops", now.flops - before.flops),
            ("hrm_training_seconds", now.seconds - before.seconds),
        ):
            if amount > 0:
                self._counters[name].inc(amount, labels)
        self._gauges["hrm_objective"].set(self._ledger.objectives.first(report.validation), labels)
        loss = report.steps[-1].metrics.get("loss", math.nan) if report.steps else math.nan
        if math.isfinite(loss):
            self._gauges["hrm_training_loss"].set(loss, labels)
        if "checkpoint_seconds" in report.system:
            self._histograms["hrm_checkpoint_seconds"].observe(report.system["checkpoint_seconds"], labels)


def _labels(line: Line) -> dict[str, str]:
    return dict(zip(_LINE, line, strict=True))
