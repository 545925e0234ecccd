"""What trainings told of themselves at their reports: from a sweep's files, a trial's directory, or a checkpoint."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from analysis.arms import chosen_replicas
from analysis.columns import ReportColumns, StepColumns, read_report_columns, read_step_columns
from analysis.convergence import Convergence, History, judge
from analysis.intervals import Direction
from analysis.records import TrialRecord, read_trial_record
from analysis.sweep import Sweep


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Of a sweep."""

    arms: list[Convergence] = field(default_factory=list)
    """Each arm on each task: its completed replicas together, or its best search trial where it has none."""
    trainings: list[Convergence] = field(default_factory=list)
    """The same replicas, each by itself; without their curves and forecasts."""


def convergences(sweep: Sweep) -> Verdicts:
    """Whether the arms' trainings have converged. An arm whose trials have not reported yet is not among them."""
    record, found = sweep.record, Verdicts()
    for task in record.tasks:
        for arm in (arm for arm in record.arms if record.runs_on(arm, task)):
            histories = [history_of(sweep, trial) for trial in _trials(sweep, task, arm)]
            known = [history for history in histories if len(history.values)]
            if known:
                found.arms.append(judge(arm, known, record.metric, record.direction, task))
            if len(known) > 1:
                about = record.metric, record.direction, task
                alone = [judge(each.key, [each], *about, forecasts=False) for each in known]
                found.trainings.extend(replace(each, steps=[], curve=[]) for each in alone)
    return found


def history_of(sweep: Sweep, trial: TrialRecord) -> History:
    """Of a trial of the sweep."""
    return _history(trial.key, trial.spec, sweep.reports(trial), sweep.steps(trial), sweep.record.metric)


def convergence_of_trial(directory: Path) -> Convergence | None:
    """Of a trial's directory, or a folder with a `records.jsonl`; None where it has no reports."""
    try:
        spec = read_trial_record(directory).spec
    except (OSError, ValueError, KeyError, TypeError):
        spec = {}
    path = directory / "records.jsonl"
    metric, direction = _objective(spec)
    history = _history(directory.name, spec, read_report_columns(path), read_step_columns(path), metric)
    return judge(directory.name, [history], metric, direction) if len(history.values) else None


def convergence_of_checkpoint(path: Path, name: str) -> Convergence | None:
    """Of the training `name` that a checkpoint of ours is from: it holds what guards keep of every report before it.

    None for an imported one.
    """
    try:
        marks = json.loads((path / "state.json").read_text()).get("history", [])
        spec = json.loads((path / "manifest.json").read_text())["spec"]
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    if not marks:
        return None
    metric, direction = _objective(spec)
    columns = {name: np.array([mark[name] for mark in marks], dtype=np.float64) for name in marks[0]}
    history = History(
        name,
        columns["step"],
        columns["objective"],
        columns["training_loss"],
        columns["validation_loss"],
        *_kind(spec),
    )
    return judge(name, [history], metric, direction)


def _trials(sweep: Sweep, task: str, arm: str) -> list[TrialRecord]:
    replicas = chosen_replicas(sweep, task, arm)
    best = sweep.best_search_trial(task, arm)
    return [trial for trial in replicas if trial.state == "completed"] or replicas or ([best] if best else [])


def _history(key: str, spec: Mapping[str, Any], reports: ReportColumns, steps: StepColumns, metric: str) -> History:
    values = reports.validation.get(metric, np.full(len(reports), math.nan))
    kept = np.isfinite(values)
    at = reports.axes["steps"]
    loss = reports.validation.get("loss")
    training = _training_losses(at, steps)
    return History(
        key,
        at[kept],
        values[kept],
        None if training is None else training[kept],
        None if loss is None or not np.isfinite(loss[kept]).all() else loss[kept],
        *_kind(spec),
    )


def _training_losses(at: np.ndarray, steps: StepColumns) -> np.ndarray | None:
    """By report the mean over the steps since the one before; None where a report has none."""
    losses = steps.metrics.get("loss")
    if losses is None or not len(at):
        return None
    ends = np.searchsorted(steps.axes["steps"], at, side="right")
    counts = np.diff(ends, prepend=0)
    return np.add.reduceat(losses[: ends[-1]], ends - counts) / counts if (counts > 0).all() else None


def _kind(spec: Mapping[str, Any]) -> tuple[int, bool, str]:
    """Segments of a row, whether there is dropout, the schedule's kind."""
    model = spec.get("model") or {}
    segments = (model.get("halting") or {}).get("segments") or 1
    return int(segments), bool(model.get("dropout")), str((spec.get("schedule") or {}).get("kind", "constant"))


def _objective(spec: Mapping[str, Any]) -> tuple[str, Direction]:
    asked = spec.get("objective") or {}
    return str(asked.get("metric", "loss")), "maximize" if asked.get("direction") == "maximize" else "minimize"
