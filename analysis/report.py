"""The report of a sweep: one value, written as JSON for programs, Markdown for a repository and HTML for a person.

A report can be built at any moment of a sweep. It never fails because something is missing; it says what is missing.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from analysis.answer import Answer, answer_task, summary
from analysis.arms import ArmResult, measure_arms
from analysis.compare import Direction
from analysis.front import Front, fronts
from analysis.markdown import render_markdown
from analysis.page import render_page
from analysis.records import ArmCost
from analysis.spending import spending
from analysis.sweep import Sweep

SCHEMA = 1

Importance = Mapping[str, Mapping[str, float]]
"""By study (`arm`, or `task/arm`), by searched parameter: its share of the variance of the objective."""


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed trial. `log` is relative to the sweep's directory."""

    key: str
    reason: str
    log: str


@dataclass(frozen=True, slots=True)
class Report:
    """What a sweep shows. Paths are relative to the sweep's directory; fields are added, never renamed, in a schema."""

    name: str
    question: str
    finished: bool
    created: float
    """When this report was made, in seconds since the epoch."""
    metric: str
    direction: Direction
    answer: dict[str, Any]
    """`{sentence, best_arm, decided, probability_best, evidence}` over all tasks."""
    answers: list[Answer]
    """One for each task."""
    elapsed_seconds: float
    trials: dict[str, int]
    """`{total, planned, waiting, running, completed, pruned, failed}`."""
    arms: list[ArmResult]
    comparisons: list[dict[str, Any]]
    """Best minus other, over all tasks: `{task, best, other, mean, low, high, n, p, adjusted_p, detectable}`."""
    matched_by: dict[str, Any]
    reference: dict[str, Any] | None
    """The first task's that has one; each of `answers` has its own."""
    failures: list[Failure]
    importance: dict[str, dict[str, float]]
    cost: dict[str, float]
    """`{trials, seconds, flops}` summed over all trials, whatever their end."""
    reproduce: dict[str, Any]
    datasets: dict[str, dict[str, Any]]
    costs: list[ArmCost]
    """What each arm costs as the experiment states it; empty for sweeps of earlier versions."""
    compared_to: str
    """The arm that these costs are compared with."""
    spent: dict[str, Any] = field(default_factory=dict)
    """`{gpu_hours, cpu_hours, seconds, energy_kwh, cost, currency, limits}`, over all attempts of all trials."""
    ended_early: list[Failure] = field(default_factory=list)
    """Completed trials whose training a guard ended before its budget was spent."""
    fronts: list[Front] = field(default_factory=list)
    """Of searches with several objectives: the Pareto front of each arm on each task."""
    exhausted: list[str] = field(default_factory=list)
    """The searches (`task/arm/search`) that ended before their number of trials, with every configuration run."""
    schema: int = field(default=SCHEMA)

    def to_json(self) -> str:
        """Strict JSON: what is not finite becomes null."""
        return json.dumps(_finite(asdict(self)), indent=1, allow_nan=False)


def build_report(sweep: Sweep, importance: Importance | None = None) -> Report:
    """Everything that the sweep shows now."""
    record = sweep.record
    arms = measure_arms(sweep)
    answers = [answer_task(record, arms, task) for task in record.tasks]
    return Report(
        name=record.name,
        question=record.question,
        finished=record.finished,
        created=time.time(),
        metric=record.metric,
        direction=record.direction,
        answer=summary(answers),
        answers=answers,
        elapsed_seconds=record.elapsed_seconds,
        trials=_trial_counts(sweep),
        arms=arms,
        comparisons=[{"task": answer.task, **asdict(d)} for answer in answers for d in answer.comparisons],
        matched_by=dict(record.budget),
        reference=next((answer.reference for answer in answers if answer.reference), None),
        failures=_failures(sweep),
        importance={study: dict(shares) for study, shares in (importance or {}).items()},
        cost=_cost(sweep),
        reproduce={
            "command": record.command,
            "name": record.name,
            "code": record.code,
            "environment": record.environment,
        },
        datasets=record.datasets,
        costs=record.costs,
        compared_to=(record.experiment.get("match") or {}).get("to") or record.arms[0],
        spent=_spent(sweep),
        ended_early=_ended_early(sweep),
        fronts=fronts(sweep),
        exhausted=list(record.exhausted),
    )


def write_report(sweep: Sweep, directory: Path, importance: Importance | None = None) -> Report:
    """Build the report and write report.json, report.md and report.html into `directory`, each whole or not at all."""
    report = build_report(sweep, importance)
    root = os.path.relpath(sweep.directory, directory)
    _write(directory / "report.json", report.to_json() + "\n")
    _write(directory / "report.md", render_markdown(report))
    _write(directory / "report.html", render_page(report, sweep, root))
    return report


def _trial_counts(sweep: Sweep) -> dict[str, int]:
    states = Counter(trial.state for trial in sweep.trials)
    by_state = {
        "waiting": states["waiting"],
        "running": states["running"],
        "completed": states["completed"],
        "pruned": states["pruned"],
        "failed": states["failed"],
    }
    return {"total": len(sweep.trials), "planned": sweep.record.planned_trials, **by_state}


def _failures(sweep: Sweep) -> list[Failure]:
    failed = sweep.select(state="failed")
    return [Failure(trial.key, trial.reason or "no reason was recorded", sweep.log_of(trial)) for trial in failed]


def _cost(sweep: Sweep) -> dict[str, float]:
    progress = [sweep.progress(trial) for trial in sweep.trials]
    return {
        "trials": len(progress),
        "seconds": sum(p.seconds for p in progress),
        "flops": sum(p.flops for p in progress),
    }


def _ended_early(sweep: Sweep) -> list[Failure]:
    return [Failure(t.key, t.reason, sweep.log_of(t)) for t in sweep.trials if t.state == "completed" and t.reason]


def _spent(sweep: Sweep) -> dict[str, Any]:
    asked = sweep.record.experiment
    prices, limits = asked.get("prices") or {}, asked.get("limits") or {}
    amounts = spending(sweep.trials, sweep.record.elapsed_seconds, prices)
    return {**asdict(amounts), "currency": prices.get("currency", ""), "limits": dict(limits)}


def _finite(value: Any) -> Any:
    """The value with None in the place of NaN and infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(path.suffix + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
