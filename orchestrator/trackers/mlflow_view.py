"""What a sweep looks like in MLflow: names, parameters, tags and curves, as pure functions of the sweep's records."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.records import SweepRecord, TrialRecord
from hrm.records import Report

MARKER = "progress/examples"
"""The metric that every step carries: its last step says how far MLflow is."""

_LONGEST_PARAMETER = 499
_LONGEST_TAG = 4000


@dataclass(frozen=True, slots=True)
class Point:
    """All metrics of one step: written together, so that a step is in MLflow whole or not at all."""

    step: int
    time: float
    metrics: dict[str, float]


def run_name(record: TrialRecord, tasks: Sequence[str]) -> str:
    """What tells a trial from its neighbours: `transformer replica seed 2`, `baseline search 3`."""
    seed = record.spec.get("seed")
    what = f"seed {seed}" if record.phase == "replica" and seed is not None else str(record.number)
    task = f"{record.task}: " if len(tasks) > 1 else ""
    return f"{task}{record.arm} {record.phase} {what}"


def points_of(reports: Iterable[Report]) -> list[Point]:
    """The curves of a trial by step: `train/*` of every step, and of every report `validation/*`, `system/*` and
    `progress/*`."""
    points: dict[int, Point] = {}
    for report in reports:
        for step in report.steps:
            metrics = _prefixed("train", step.metrics) | {MARKER: float(step.progress.examples)}
            points[step.progress.step] = Point(step.progress.step, step.time, metrics)
        progress = report.progress
        axes = {name: float(getattr(progress, name)) for name in ("examples", "tokens", "flops", "seconds")}
        metrics = (
            _prefixed("validation", report.validation)
            | _prefixed("system", report.system)
            | _prefixed("progress", axes)
        )
        before = points.get(progress.step, Point(progress.step, report.time, {}))
        points[progress.step] = Point(progress.step, before.time, before.metrics | metrics)
    return [points[step] for step in sorted(points)]


def batches_of(points: Iterable[Point], limit: int) -> Iterator[list[Point]]:
    """Batches of at most `limit` metrics, cut between steps."""
    batch: list[Point] = []
    size = 0
    for point in points:
        if batch and size + len(point.metrics) > limit:
            yield batch
            batch, size = [], 0
        batch.append(point)
        size += len(point.metrics)
    if batch:
        yield batch


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested data as dotted paths to text; lists stay whole, as JSON. Values too long for a parameter are left out."""
    flat: dict[str, str] = {}
    for name, value in data.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{path}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value)
            if len(text) <= _LONGEST_PARAMETER:
                flat[allowed_name(path)] = text
    return flat


def sweep_id(directory: Path, sweep: SweepRecord) -> str:
    # The time tells apart two sweeps that used one directory's name; a quote would end MLflow's filter string.
    return f"{directory.name}-{sweep.created:.3f}".replace("'", "_")


def sweep_parameters(sweep: SweepRecord) -> dict[str, str]:
    return flatten(sweep.experiment)


def answer_in(files: Iterable[Path]) -> str:
    """The sentence that answers the sweep's question, from the `report.json` among these files; empty without one."""
    report = next((path for path in files if path.name == "report.json" and path.exists()), None)
    return str(json.loads(report.read_text())["answer"]["sentence"]) if report else ""


def shown_as_tables(artifacts: Iterable[Path]) -> dict[str, str]:
    """The tag by which MLflow shows the JSON files of a folder `tables` as tables; none without such a folder."""
    folder = next((path for path in artifacts if path.name == "tables" and path.is_dir()), None)
    if folder is None:
        return {}
    files = [{"path": f"tables/{path.name}", "type": "table"} for path in sorted(folder.glob("*.json"))]
    return {"mlflow.loggedArtifacts": json.dumps(files)}


def sweep_tags(sweep: SweepRecord, answer: str = "") -> dict[str, str]:
    tags = {
        "sweep": sweep.name,
        "question": sweep.question,
        "mlflow.note.content": f"{sweep.question}\n\n{answer}".strip(),
        "mlflow.source.name": "orchestrator",
        "command": sweep.command,
        "metric": sweep.metric,
        "direction": sweep.direction,
        "arms": ", ".join(sweep.arms),
        "tasks": ", ".join(sweep.tasks),
        "planned_trials": str(sweep.planned_trials),
        "state": "finished" if sweep.finished else "unfinished",
        **_code_tags(sweep),
        **{f"dataset.{task}": str(data.get("fingerprint", "")) for task, data in sweep.datasets.items()},
        **flatten(sweep.environment, "environment."),
    }
    return _as_tags(tags)


def _code_tags(sweep: SweepRecord) -> dict[str, str]:
    commit = str(sweep.code.get("commit", ""))
    dirty = str(sweep.code.get("dirty", "")).lower()
    return {"git_commit": commit, "git_dirty": dirty, "mlflow.source.git.commit": commit}


def trial_parameters(record: TrialRecord) -> dict[str, str]:
    """What one compares by, first: what was searched, arm, task, seed; then the whole spec under `spec.`."""
    spec = flatten(record.spec)
    chosen = {"arm": record.arm, "task": record.task, "phase": record.phase}
    for name in ("seed", "batch_size"):
        paths = [path for path in spec if path.split(".")[-1] == name]
        if paths:
            chosen[name] = spec[min(paths, key=lambda path: path.count("."))]
    if record.num_parameters is not None:
        chosen["num_parameters"] = str(record.num_parameters)
    return flatten(record.parameters) | chosen | flatten(record.spec, "spec.")


def trial_tags(record: TrialRecord, sweep: SweepRecord) -> dict[str, str]:
    best = (record.result or {}).get("best_checkpoint", "")
    error = f"\n\n```\n{record.error[-2000:]}\n```" if record.error else ""
    searched = ", ".join(f"{path} {value}" for path, value in record.parameters.items())
    tags = {
        "sweep": sweep.name,
        "arm": record.arm,
        "task": record.task,
        "seed": str(record.spec.get("seed", "")),
        "phase": record.phase,
        "trial_id": record.trial_id,
        "number": str(record.number),
        "source_trial": record.source,
        "attempts": str(record.attempts),
        "reason": record.reason,
        "mlflow.note.content": record.reason + error or searched,
        "mlflow.source.name": "orchestrator",
        "best_checkpoint": str(best),
        "dataset_fingerprint": str(sweep.datasets.get(record.task, {}).get("fingerprint", "")),
        **_code_tags(sweep),
        **flatten(record.resolved, "resolved."),
    }
    return _as_tags(tags)


def _as_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {allowed_name(key): value[:_LONGEST_TAG] for key, value in tags.items()}


def result_points(record: TrialRecord) -> list[Point]:
    """The best validation and the test metrics, at the step of the best checkpoint.

    Logged again they are the same rows in MLflow.
    """
    result = record.result or {}
    step = int(result.get("best_step", 0))
    metrics = (
        _prefixed("best", result.get("best_validation") or {})
        | _prefixed("test", result.get("test") or {})
        | {"best/step": float(step)}
    )
    return [Point(step, record.ended or 0.0, metrics)]


def pruned_points(record: TrialRecord, reports: Sequence[Report], metric: str) -> list[Point]:
    """The best validation of a pruned trial at its end, so that comparisons of the search have it, too."""
    if record.objective is None or not reports or not math.isfinite(record.objective):
        return []
    return [Point(reports[-1].progress.step, record.ended or 0.0, _prefixed("best", {metric: record.objective}))]


def _prefixed(prefix: str, metrics: Mapping[str, float]) -> dict[str, float]:
    return {allowed_name(f"{prefix}/{key}"): float(value) for key, value in metrics.items()}


def allowed_name(text: str) -> str:
    """Text as MLflow allows it for a name."""
    return re.sub(r"[^\w\-. /]", "_", text, flags=re.ASCII)[:250]


def milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
