"""Synthetic sweeps for the MLflow tests, and what MLflow shows of them.

The files of a sweep directory are written by hand, since they are all that a tracker reads.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from analysis.records import SweepRecord, TrialRecord, read_sweep_record, read_trial_records, write_json
from hrm.records import Progress, Report, StepRecord, read_reports
from orchestrator.trackers import Tracker
from orchestrator.trackers.mlflow import MlflowSpec, MlflowTracker

START = 1_700_000_000.0
STEPS_PER_REPORT = 5


def write_five_trials(directory: Path) -> Path:
    """A sweep directory with a completed, a pruned, a failed, a running and a waiting trial."""
    write_sweep(directory)
    write_trial(directory, "baseline-search-0000", state="completed", reports=2, objective=0.5)
    write_trial(directory, "baseline-search-0001", state="pruned", reports=1, reason="worse than the median at step 5")
    write_trial(directory, "baseline-search-0002", state="failed", reports=1, reason="diverged: loss is nan")
    write_trial(directory, "baseline-search-0003", state="running", reports=1)
    write_trial(directory, "baseline-search-0004", state="waiting", reports=0, started=None)
    return directory


def write_sweep(directory: Path, **changes: Any) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    record = SweepRecord(
        name="demo",
        question="Which change makes it learn?",
        experiment={"name": "demo", "base": {"optimizer": {"kind": "adamw"}}, "replicas": 2},
        arms=["baseline"],
        tasks=["text"],
        metric="loss",
        direction="minimize",
        budget={"axis": "steps", "amount": 10},
        planned_trials=5,
        datasets={"text": {"recipe": "datasets/text.yaml", "fingerprint": "abc123", "rows": {"train": 8}}},
        command="python -m orchestrator sweep experiments/demo.yaml",
        code={"commit": "0123abcd", "dirty": True},
        environment={"python": "3.11.7", "cores": 2},
        created=START,
    )
    write_json(directory / "sweep.json", dataclasses.replace(record, **changes))


def write_trial(directory: Path, key: str, reports: int, **changes: Any) -> None:
    folder = directory / "trials" / key
    folder.mkdir(parents=True, exist_ok=True)
    arm, phase, number = key.rsplit("-", 2)
    state = changes.get("state", "running")
    record = TrialRecord(
        key=key,
        task="text",
        arm=arm,
        phase="search" if phase == "search" else "replica",
        number=int(number),
        trial_id=f"id{number}",
        spec={"seed": int(number) + 7, "data": {"batch_size": 4}, "model": {"kind": "hrm", "num_layers": 2}},
        parameters={"model.num_layers": 2},
        attempts=1,
        started=START + int(number),
        ended=START + 60 if state in ("completed", "pruned", "failed") else None,
        num_parameters=123,
        resolved={"precision": "float32"},
        result=result_of(reports) if state == "completed" else None,
    )
    write_json(folder / "trial.json", dataclasses.replace(record, **changes))
    lines = [report_at(index).to_json() + "\n" for index in range(1, reports + 1)]
    (folder / "records.jsonl").write_text("".join(lines))


def report_at(index: int) -> Report:
    steps = tuple(
        StepRecord(progress_at(step), START + step, {"loss": 1 / step, "learning_rate": 0.1, "gradient_norm": 1.0})
        for step in range((index - 1) * STEPS_PER_REPORT + 1, index * STEPS_PER_REPORT + 1)
    )
    last = index * STEPS_PER_REPORT
    return Report(index, progress_at(last), START + last, {"loss": 1 / last}, steps, {"cpu_percent": 50.0})


def progress_at(step: int) -> Progress:
    return Progress(step, 4 * step, 64 * step, 1e3 * step, 0.1 * step)


def result_of(reports: int) -> dict[str, Any]:
    last = reports * STEPS_PER_REPORT
    return {
        "progress": dataclasses.asdict(progress_at(last)),
        "best_step": last,
        "best_checkpoint": "attempts/1/step-00000010",
        "best_validation": {"loss": 0.5},
        "test": {"loss": 0.6},
    }


def tracker_of(directory: Path) -> MlflowTracker:
    return MlflowSpec().build(directory)


def sync_all(tracker: Tracker, directory: Path) -> None:
    tracker.sync_sweep(read_sweep_record(directory))
    for record in read_trial_records(directory):
        tracker.sync_trial(record, list(read_reports(directory / "trials" / record.key / "records.jsonl")))


def runs_of(uri: str, directory: Path) -> tuple[Run, dict[str, Run]]:
    """The parent run of the sweep and its trials' runs by key; fails when anything exists twice."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("hrm")
    assert experiment is not None
    every = client.search_runs([experiment.experiment_id])
    parents = [run for run in every if run.data.tags.get("sweep_id", "").startswith(f"{directory.name}-")]
    assert len(parents) == 1
    children = [run for run in every if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    by_key = {run.data.tags["trial_key"]: run for run in children}
    assert len(by_key) == len(children)
    return parents[0], by_key


def steps_of(uri: str, run: Run, metric: str) -> list[int]:
    return [entry.step for entry in MlflowClient(uri).get_metric_history(run.info.run_id, metric)]
