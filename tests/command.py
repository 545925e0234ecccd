"""Runs the real command in a process of its own, and looks at what it left."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from mlflow import MlflowClient

from analysis.records import TrialRecord, read_trial_records
from hrm.checkpoint import Checkpoint, read_checkpoint
from hrm.records import read_reports
from orchestrator.fetched import checkpoint_folder

ROOT = Path(__file__).parent.parent
STEADY = """\
question: Does it survive?
tasks: [{kind: red_team, num_train: 64, num_validation: 16, num_test: 4}]
base:
  model: {kind: hrm, hidden_size: 32, num_heads: 2, H_layers: 1, L_layers: 1, causal: true, dropout: 0.1}
  optimizer: {kind: adamw, learning_rate: 3e-3}
  batch_size: 4
  num_reports: 4
arms:
  hrm: {}
  transformer:
    patch: {model: {kind: transformer, hidden_size: 32, num_heads: 2, num_layers: 2, causal: true}}
space:
  optimizer.learning_rate: {low: 1e-3, high: 1e-2, log: true}
search:
  {trials: 4, generation: 2, deterministic: true, pruner: {kind: successive_halving, first_rung: 2}}
budget: {axis: steps, amount: 48}
replicas: {seeds: 2}
trackers: [{kind: mlflow, model: false}]
"""


STARTED: list[subprocess.Popen[str]] = []
"""What `start` has started, for the clean-up after a failed test."""


def command(*arguments: str | Path) -> list[str]:
    """The command line."""
    return [sys.executable, "-m", "orchestrator", *map(str, arguments)]


def start(*arguments: str | Path, environment: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Start the command in a process group of its own."""
    process = subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **(environment or {})},
    )
    STARTED.append(process)
    return process


def run(*arguments: str | Path, expect: int = 0, timeout: float = 240) -> str:
    """Run the command to its end and give its standard output; shows everything when the exit code is another."""
    done = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == expect, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def wait_for(what: Callable[[], Any], seconds: float = 90) -> Any:
    """Wait until `what` gives something true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.05)
    raise TimeoutError(f"waited {seconds} s in vain")


def kill(process: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    """Signal the driver alone, as `kill` would."""
    os.kill(process.pid, number)


def trials(storage: Path, name: str) -> dict[str, TrialRecord]:
    """The sweep's trials by key."""
    return {record.key: record for record in read_trial_records(storage / "sweeps" / name)}


def reports_of(storage: Path, name: str, key: str) -> int:
    """How many reports a trial has so far."""
    return len(list(read_reports(storage / "sweeps" / name / "trials" / key / "records.jsonl")))


def numbers(storage: Path, name: str) -> dict[str, Any]:
    """All that a disturbance must not change: ids, states, every loss of every step, results."""
    found = {}
    for key, record in trials(storage, name).items():
        reports = list(read_reports(storage / "sweeps" / name / "trials" / key / "records.jsonl"))
        steps = [(s.progress.step, s.metrics) for report in reports for s in report.steps]
        result = record.result and {k: record.result[k] for k in ("best_step", "best_validation", "test")}
        found[key] = (record.trial_id, record.state, steps, [r.validation for r in reports], result)
    return found


def same_weights(one: Path, other: Path, name: str, other_name: str) -> bool:
    """True if the best checkpoints of all replicas hold equal weights and optimizer states."""
    for key, record in trials(one, name).items():
        if record.phase == "replica":
            assert record.result is not None
            twin = trials(other, other_name)[key].result
            assert twin is not None
            a = _checkpoint(one / "sweeps" / name / "trials" / key / record.result["best_checkpoint"])
            b = _checkpoint(other / "sweeps" / other_name / "trials" / key / twin["best_checkpoint"])
            for mine, theirs in ((a.model, b.model), (a.training, b.training)):
                if mine.keys() != theirs.keys() or not all(torch.equal(mine[k], theirs[k]) for k in mine):
                    return False
    return True


def _checkpoint(path: Path) -> Checkpoint:
    """From the sweep's directory or, where that has a store, from there."""
    return read_checkpoint(checkpoint_folder(str(path)))


def check_mlflow(storage: Path, name: str) -> None:
    """One parent and one run per trial, each ended, every step of every metric once, none missing."""
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("hrm")
    assert experiment is not None
    runs = list(client.search_runs([experiment.experiment_id], max_results=1000))
    parents = [r for r in runs if "mlflow.parentRunId" not in r.data.tags and r.info.run_name == name]
    assert len(parents) == 1
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    by_key = {r.data.tags["trial_key"]: r for r in children}
    assert len(by_key) == len(children), "a trial appears twice"
    records = trials(storage, name)
    assert by_key.keys() == records.keys()
    for key, child in by_key.items():
        assert child.info.status in ("FINISHED", "KILLED"), key
        steps = [m.step for m in client.get_metric_history(child.info.run_id, "train/loss")]
        reports = read_reports(storage / "sweeps" / name / "trials" / key / "records.jsonl")
        assert sorted(steps) == [s.progress.step for report in reports for s in report.steps], key
        validations = [m.step for m in client.get_metric_history(child.info.run_id, "validation/loss")]
        assert len(validations) == len(set(validations)) == reports_of(storage, name, key)


def report(storage: Path, name: str) -> dict[str, Any]:
    """report.json."""
    found: dict[str, Any] = json.loads((storage / "sweeps" / name / "report.json").read_text())
    return found


@contextlib.contextmanager
def s3_store(port: int = 0, name: str = "store") -> Iterator[str]:
    """The URI of a store of an S3 server in this process: moto's, on HTTP; all servers share one memory."""
    from moto.server import ThreadedMotoServer

    os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_EC2_METADATA_DISABLED="true")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port)
    server.start()
    try:
        host, port = server.get_host_and_port()
        urllib.request.urlopen(urllib.request.Request(f"http://{host}:{port}/bucket", method="PUT")).close()
        yield f"s3://bucket/{name}?endpoint_override={host}:{port}&scheme=http"
    finally:
        server.stop()
