"""Writes a sweep's directory as the orchestrator does, with made-up numbers, to test the analysis alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from analysis.records import SweepRecord, TrialRecord, write_json
from hrm.records import Progress, Report, StepRecord, TrialResult

NUM_REPORTS = 24
STEPS_PER_REPORT = 20
RIVALS = {"transformer": [0.189, 0.190, 0.191], "hrm": [0.204, 0.206, 0.207], "lstm": [0.248, 0.251, 0.250]}


def write_sweep(
    directory: Path,
    replicas: Mapping[str, Sequence[float]] = RIVALS,
    *,
    search: Mapping[str, int] | None = None,
    tasks: Sequence[str] = ("text",),
    **changes: Any,
) -> Path:
    """A sweep with the given test values of the replicas, by arm and seed, and `search` trials per arm (default 6).

    Of the search trials the second is pruned and the third failed. `changes` replace fields of the SweepRecord.
    """
    search = dict.fromkeys(replicas, 6) if search is None else search
    planned = len(tasks) * (sum(search.values()) + sum(len(values) for values in replicas.values()))
    record = _record(list(dict.fromkeys([*replicas, *search])), list(tasks))
    record = replace(record, **{"planned_trials": planned, **changes})
    (directory / "trials").mkdir(parents=True)
    write_json(directory / "sweep.json", record)
    for task in tasks:
        for arm, number in search.items():
            for index in range(number):
                write_trial(directory, search_trial(task, arm, index, record.metric))
        for arm, values in replicas.items():
            for seed, value in enumerate(values):
                write_trial(directory, replica(task, arm, seed, value, record.metric))
    return directory


def replica(task: str, arm: str, seed: int, value: float, metric: str = "loss") -> TrialRecord:
    """A completed replica with a test value."""
    key = f"{task}-{arm}-replica-{seed:04d}"
    result = _result(task, arm, value + 0.001, {metric: value}, metric)
    source = f"{task}-{arm}-search-0000"
    return replace(
        _trial(key, task, arm, seed),
        phase="replica",
        number=seed,
        objective=value + 0.001,
        result=result,
        source=source,
    )


def search_trial(task: str, arm: str, number: int, metric: str = "loss") -> TrialRecord:
    """A search trial: the second pruned, the third failed, the others completed, the first best."""
    key = f"{task}-{arm}-search-{number:04d}"
    trial = replace(_trial(key, task, arm, seed=0), phase="search", number=number)
    if number == 1:
        return replace(trial, state="pruned", objective=0.5, reason="below the median of its rung at step 160")
    if number == 2:
        reason = "TrialError: the loss is not finite at step 61"
        return replace(trial, state="failed", reason=reason, error="Traceback ...")
    value = 0.2 + 0.05 * math.sqrt(number) + 0.001 * (sum(map(ord, arm)) % 40)
    return replace(trial, objective=value, result=_result(task, arm, value, None, metric))


def write_trial(directory: Path, trial: TrialRecord, *, num_reports: int = NUM_REPORTS) -> None:
    """The trial's record, its reports up to how far it came, and its log."""
    place = directory / "trials" / trial.key
    place.mkdir(parents=True, exist_ok=True)
    write_json(place / "trial.json", trial)
    (place / "log.txt").write_text(trial.reason or "nothing to say\n")
    written = {"completed": num_reports, "pruned": 8, "running": 5}.get(trial.state, 0)
    end = trial.objective if trial.objective and math.isfinite(trial.objective) else 0.2
    lines = [_report(trial.arm, index, end).to_json() + "\n" for index in range(1, written + 1)]
    (place / "records.jsonl").write_text("".join(lines))


def _report(arm: str, index: int, end: float) -> Report:
    wobble = 0.01 * math.sin(index * 1.7 + end * 900)
    loss = end + 1.4 * math.exp(-index / 5) + wobble * (1 - index / NUM_REPORTS)
    progress = _progress(arm, index * STEPS_PER_REPORT)
    step = StepRecord(progress, 1.7e9 + index, {"loss": loss, "learning_rate": 1e-3, "gradient_norm": 1.0})
    return Report(index, progress, 1.7e9 + index, {"loss": loss, "token_accuracy": 1 - loss / 2}, (step,))


def _progress(arm: str, step: int) -> Progress:
    cost = 1 + len(arm) % 5
    return Progress(step, step * 32, step * 4096, step * 4096 * 6.0 * 1.2e6 * cost, step * 0.11 * cost)


def _result(task: str, arm: str, best: float, test: dict[str, float] | None, metric: str) -> dict[str, Any]:
    step = NUM_REPORTS * STEPS_PER_REPORT
    checkpoint = f"attempts/1/step-{step - 40:08d}"
    return asdict(TrialResult(_progress(arm, step), step - 40, checkpoint, {metric: best}, test))


def _trial(key: str, task: str, arm: str, seed: int) -> TrialRecord:
    kind = "hrm" if arm.startswith("hrm") else "transformer"
    parameters = {"optim.learning_rate": 3e-4 * (1 + len(arm) % 3), "model.num_heads": 4}
    spec = {"seed": seed, "model": {"kind": kind}, "task": {"kind": task}}
    return TrialRecord(
        key=key,
        task=task,
        arm=arm,
        phase="search",
        number=0,
        trial_id="0" * 16,
        spec=spec,
        parameters=parameters,
        state="completed",
        num_parameters=1_234_567 + 1000 * len(arm),
        started=1.7e9,
        ended=1.7e9 + 60,
    )


def _record(arms: list[str], tasks: list[str]) -> SweepRecord:
    facts = {"generator_cross_entropy": 0.1712, "vocabulary": 64}
    rows = {"train": 20_000, "validation": 1000, "test": 1000}
    dataset = {"recipe": "text_markov", "fingerprint": "9f31c07a52e4d8b6", "rows": rows, "facts": facts}
    return SweepRecord(
        name="text_adapt",
        question="Which change makes HRM learn text as well as a transformer of its size?",
        experiment={},
        arms=arms,
        tasks=tasks,
        metric="loss",
        direction="minimize",
        budget={"axis": "tokens", "amount": 1_966_080},
        planned_trials=27,
        datasets=dict.fromkeys(tasks, dataset),
        command="python -m orchestrator sweep experiments/text_adapt.yaml",
        code={"commit": "4685205c0ffee", "dirty": True},
        environment={"python": "3.11.7", "torch": "2.13.0+cpu", "host": "laptop", "cpu": "Example CPU", "cores": 2},
        created=1.7e9,
        elapsed_seconds=4210.0,
        finished=True,
    )
