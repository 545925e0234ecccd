"""What records, trackers and checkpoints take from a real training: the same training with and without them.

    python -m benchmarks.tracking [--experiment experiments/text_adapt.yaml] [--steps 120] [--rounds 6]

Two trainings of one spec run in turn in this process. One reports as in a sweep: its reports go to a driver in a
process of its own (ledger, journal, records, MLflow) and it goes on when that has answered; its checkpoints are written
beside its next steps, and the last one is waited for. The other takes the same steps and makes the same evaluations,
and writes and says nothing. Limit: 3 % more time.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import tempfile
import time
from dataclasses import asdict
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest.mock import patch

from benchmarks.scale import line
from hrm.context import LocalContext
from hrm.records import Report
from hrm.spec import parse_spec
from hrm.train import Training
from hrm.trial import TrialSpec
from orchestrator.experiment import load_experiment
from orchestrator.jobs import Job
from orchestrator.ledger import Ledger
from orchestrator.node import node_metrics
from orchestrator.store import SweepStore
from orchestrator.sweep import run_sweep

LIMIT = 0.03
NAME = "tracking"
REPORTS_PER_ROUND = 2
PAUSE_SECONDS = 3.0
"""Between the two, so that neither pays for what the other left: the mirror sends once a second."""


class Context(LocalContext):
    """This process, with the metrics that a trial process samples."""

    def system_metrics(self) -> dict[str, float]:
        return node_metrics()


class Silent(Training):
    """Writes no checkpoint."""

    def save(self) -> None:
        pass


def drive(pipe: Connection, experiment: Path, folder: Path, overrides: list[str]) -> None:
    """The driver's process: the sweep command, which hands its one job to the other end and takes its reports."""
    with patch.multiple("orchestrator.sweep", _run=partial(_serve, pipe)):
        run_sweep(load_experiment(experiment, overrides, name=NAME), folder)


def _serve(pipe: Connection, ledger: Ledger, *_: Any) -> str:
    job = ledger.next_job()
    assert job is not None
    pipe.send(asdict(job))
    while text := pipe.recv():
        ledger.on_report(job.key, Report.from_dict(json.loads(text)))
        pipe.send(True)
    ledger.on_stopped(job.key)
    ledger.stopping = True
    return ""


def round_of(training: Training, steps: int, pipe: Connection | None) -> tuple[float, float]:
    """Seconds, and seconds of the processor, of some reports with the steps before each; with a pipe they are told to
    the driver."""
    began, worked = time.perf_counter(), time.process_time()
    for _ in range(REPORTS_PER_ROUND):
        for _ in range(steps):
            training.step()
        report = training.report()
        if pipe is not None:
            pipe.send(report.to_json())
            pipe.recv()
    training.checkpoints.wait()
    return time.perf_counter() - began, time.process_time() - worked


def measure(experiment: Path, folder: Path, steps: int, rounds: int) -> None:
    """Run both in turn, and print the ratio of each pair."""
    reports = REPORTS_PER_ROUND * (rounds + 1)
    overrides = [f"budget={{axis: steps, amount: {steps * reports}}}", f"base.num_reports={reports}"]
    overrides += ["search.trials=1", "search.pruner={kind: none}", "replicas.seeds=0"]
    processes = multiprocessing.get_context("spawn")
    pipe, other_end = processes.Pipe()
    driver = processes.Process(target=drive, args=(other_end, experiment, folder, overrides), daemon=True)
    driver.start()
    job = Job(**pipe.recv())
    store, trial = SweepStore(folder, NAME), parse_spec(TrialSpec, job.spec, job.key)
    tracked = Training(trial, Context(store.trial_directory(job.key), store.data_root))
    silent = Silent(trial, Context(folder / "silent", store.data_root))
    pairs = []
    for number in range(rounds + 1):
        without = round_of(silent, steps, None)
        with_all = round_of(tracked, steps, pipe)
        time.sleep(PAUSE_SECONDS)
        if number:  # the first one warms up
            pairs.append((with_all, without))
            print(f"round {number}: {with_all[0]:.2f} s with, {without[0]:.2f} s without", flush=True)
    pipe.send("")
    driver.join()
    _show(tracked, pairs)


def _show(training: Training, pairs: list[tuple[tuple[float, float], tuple[float, float]]]) -> None:
    """The median over the rounds, and what it is made of."""
    size = sum(value.numel() for value in training.state.model.parameters())
    each = statistics.median(without[0] for _, without in pairs) / REPORTS_PER_ROUND
    print(f"{size:,} parameters, a report every {each:.1f} s")
    print(f"the last checkpoint took its own thread {training.checkpoints.metrics['checkpoint_seconds']:.2f} s")
    for number, what in enumerate(("time", "processor time of this process")):
        ratios = [with_all[number] / without[number] for with_all, without in pairs]
        print(f"{what}: ratios from {min(ratios):.4f} to {max(ratios):.4f}")
        line(f"more {what}, median", statistics.median(ratios) - 1.0, LIMIT, "")


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--experiment", type=Path, default=Path("experiments/text_adapt.yaml"))
    parser.add_argument("--steps", type=int, default=120, help="between two reports")
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(options.experiment, Path(folder), options.steps, options.rounds)


if __name__ == "__main__":
    main()
