"""`train`: one trial in this process, without Ray, search or trackers. Killed and started again, it resumes."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import time
from collections.abc import Generator
from dataclasses import asdict
from types import FrameType

from rich.console import Console

from hrm.context import LocalContext
from hrm.data.dataset import build_dataset
from hrm.errors import Problem, SpecError
from hrm.records import TrialResult
from hrm.train import StopRequested, train
from hrm.trial import TrialSpec
from orchestrator.experiment import Arm, Experiment, load_experiment
from orchestrator.trial_driver import log_to

STOPPED = 130


def train_one(options: argparse.Namespace) -> int:
    """The `train` command; gives its exit code."""
    experiment = load_experiment(options.experiment, options.overrides, options.smoke)
    arm = _arm(experiment, options)
    trial = arm.trial({}, options.seed)
    storage = options.storage.resolve()
    data = storage / "data"
    build_dataset(trial.task, data)
    directory = storage / "single" / f"{arm.name}-{trial.hash()}"
    attempts = [int(path.name) for path in (directory / "attempts").glob("[0-9]*")]
    context = LocalContext(
        directory, data, threads=experiment.spec.resources.cpus_per_worker, attempt=max(attempts, default=0) + 1
    )
    console = Console(stderr=options.json)
    console.print(f"{arm.name}, seed {options.seed}, in {directory}", soft_wrap=True)
    try:
        with _stop_on_signals(context), log_to(directory / "log.txt"):
            result = _run(trial, context, console)
    except StopRequested:
        console.print("stopped, everything saved; the same command goes on")
        return STOPPED
    if options.json:
        print(json.dumps({**asdict(result), "directory": str(directory)}))
    else:
        best = ", ".join(f"{name} {value:.4f}" for name, value in (result.test or {}).items())
        console.print(f"[bold]test[/] {best}\nbest checkpoint {directory / result.best_checkpoint}", soft_wrap=True)
    return 0


def _arm(experiment: Experiment, options: argparse.Namespace) -> Arm:
    for name, given, known in (
        ("--arm", options.arm, [arm.name for arm in experiment.arms]),
        ("--task", options.task, list(experiment.tasks)),
    ):
        if given is not None and given not in known:
            raise SpecError(Problem(f"{name} {given}", "is not in the experiment", f"Give one of {', '.join(known)}"))
    wanted = (options.arm or experiment.arms[0].name, options.task or experiment.arms[0].task)
    return next(arm for arm in experiment.arms if (arm.name, arm.task) == wanted)


def _run(trial: TrialSpec, context: LocalContext, console: Console) -> TrialResult:
    began = time.time()
    reports = train(trial, context, test=True)
    while True:
        try:
            report = next(reports)
        except StopIteration as end:
            result: TrialResult = end.value
            return result
        values = ", ".join(f"{name} {value:.4f}" for name, value in report.validation.items())
        place = f"report {report.index}/{trial.num_reports}, step {report.progress.step}, {time.time() - began:.0f} s"
        console.print(f"{place}: validation {values}", soft_wrap=True)


@contextlib.contextmanager
def _stop_on_signals(context: LocalContext) -> Generator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        if context.stop.is_set():
            raise KeyboardInterrupt
        context.stop.set()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
