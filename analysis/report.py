"""The report of a sweep: one value, written as JSON for programs, Markdown for a repository and HTML for a person.

A report can be built at any moment of a sweep. It never fails because something is missing; it says what is missing.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from analysis.ablations import Ablation, ablations
from analysis.answer import Answer, answer_task, summary
from analysis.arms import ArmResult, measure_arms
from analysis.document import render_markdown, render_page, report_sections
from analysis.efficiency import Efficiency, measure_efficiency
from analysis.front import Front, fronts
from analysis.glance import spent, trial_counts
from analysis.histories import Verdicts, convergences
from analysis.intervals import Direction
from analysis.matrix import Standing, matrix
from analysis.numbers import finite
from analysis.records import ArmCost
from analysis.search_findings import Importance, SearchFindings
from analysis.search_quality import SearchQuality
from analysis.sensitivity import Sensitivity
from analysis.summaries import ArmSummary, RowDifference, summarise
from analysis.sweep import Part, Sweep
from analysis.table_files import FOLDER as TABLES
from analysis.table_files import write_tables
from analysis.writing import write_whole

SCHEMA = 1


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
    """Best minus other, over all tasks: `task`, and the fields of `analysis.compare.Difference`."""
    matched_by: dict[str, Any]
    reference: dict[str, Any] | None
    """The first task's that has one; each of `answers` has its own."""
    failures: list[Failure]
    importance: dict[str, dict[str, float]]
    """By study (`arm`, or `task/arm`), by searched parameter: its share of the variance of the objective."""
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
    efficiency: Efficiency = field(default_factory=Efficiency)
    """What the arms need to become good."""
    exhausted: list[str] = field(default_factory=list)
    """The searches (`task/arm/search`) that ended before their number of trials, with every configuration run."""
    convergence: Verdicts = field(default_factory=Verdicts)
    """Whether the arms' trainings have converged, from their validation curves."""
    sweeps: list[Part] = field(default_factory=list)
    """Of a report on several sweeps: which; empty for one."""
    summaries: list[ArmSummary] = field(default_factory=list)
    """Of each arm with replicas: averages over seeds, and over seeds and test rows."""
    row_differences: list[RowDifference] = field(default_factory=list)
    """The best arm of each task minus the others, over seeds and test rows."""
    ablations: list[Ablation] = field(default_factory=list)
    """Every arm minus `compared_to`, by task: the effect, and what was changed."""
    matrix: list[Standing] = field(default_factory=list)
    """Of sweeps over several tasks: values, ranks and mean rank of each arm."""
    importances: list[Importance] = field(default_factory=list)
    """The same shares with their uncertainty, and what they rest on."""
    searches: list[SearchQuality] = field(default_factory=list)
    """Of each arm's search: whether fewer trials would have found it, what pruning saved and may have cost."""
    sensitivities: list[Sensitivity] = field(default_factory=list)
    """Of each arm's search: the objective around its best configuration, and pairs of parameters."""
    schema: int = field(default=SCHEMA)

    def to_json(self) -> str:
        """Strict JSON: what is not finite becomes null."""
        return json.dumps(finite(asdict(self)), indent=1, allow_nan=False)


def build_report(sweep: Sweep, search: SearchFindings | None = None) -> Report:
    """Everything that the sweep shows now. `search`: what `orchestrator.importance` found, where it was asked."""
    search = search or SearchFindings()
    record = sweep.record
    arms = measure_arms(sweep)
    answers = [answer_task(record, arms, task) for task in record.tasks]
    summaries, row_differences = summarise(sweep, arms, answers)
    compared_to = (record.experiment.get("match") or {}).get("to") or record.arms[0]
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
        trials=trial_counts(sweep),
        arms=arms,
        comparisons=[{"task": answer.task, **asdict(d)} for answer in answers for d in answer.comparisons],
        matched_by=dict(record.budget),
        reference=next((answer.reference for answer in answers if answer.reference), None),
        failures=_failures(sweep),
        importance=search.shares(len(record.tasks)),
        importances=list(search.importances),
        searches=list(search.qualities),
        sensitivities=list(search.sensitivities),
        cost=_cost(sweep),
        reproduce={
            "command": record.command,
            "name": record.name,
            "code": record.code,
            "environment": record.environment,
        },
        datasets=record.datasets,
        costs=record.costs,
        compared_to=compared_to,
        spent=spent(sweep),
        ended_early=_ended_early(sweep),
        fronts=fronts(sweep),
        efficiency=measure_efficiency(sweep),
        exhausted=list(record.exhausted),
        convergence=convergences(sweep),
        sweeps=sweep.parts,
        summaries=summaries,
        row_differences=row_differences,
        ablations=ablations(sweep, arms, compared_to),
        matrix=matrix(arms, record.tasks, record.direction),
    )


def write_report(sweep: Sweep, directory: Path, search: SearchFindings | None = None, *, steps: bool = False) -> Report:
    """Build the report and write report.json, report.md, report.html and tables/ into `directory`, each file whole or
    not at all. `steps`: with the table of every optimizer step."""
    report = build_report(sweep, search)
    root = os.path.relpath(sweep.directory, directory)
    write_whole(directory / "report.json", report.to_json() + "\n")
    sections = report_sections(report, sweep)
    write_whole(directory / "report.md", render_markdown(report, sections))
    write_whole(directory / "report.html", render_page(report, sections, sweep.record.arms, root))
    write_tables(report, sweep, directory / TABLES, steps=steps)
    return report


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
