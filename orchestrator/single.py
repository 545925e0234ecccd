"""`train`: one trial in this process, without Ray, search or trackers. Killed and started again, it resumes."""

from __future__ import annotations

import argparse
import fcntl
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO

import torch
from rich.console import Console

from hrm.context import LocalContext
from hrm.errors import Problem, SpecError
from hrm.records import TrialResult
from hrm.train import StopRequested, train
from hrm.trial import TrialSpec
from orchestrator.experiment import Arm, Experiment, load_experiment
from orchestrator.resources import this_machine
from orchestrator.signals import STOPPED, stop_on_signals
from orchestrator.starts import check_starts
from orchestrator.trial_driver import log_to
from orchestrator.validation import with_data


def train_one(options: argparse.Namespace) -> int:
    """The `train` command; gives its exit code."""
    storage = options.storage.resolve()
    data = storage / "data"
    experiment = with_data(load_experiment(options.experiment, options.overrides, options.smoke), data)
    arm = _arm(experiment, options)
    trial = arm.trial({}, options.seed)
    directory = storage / "single" / f"{arm.name}-{trial.hash()}"
    lock = _locked(directory)
    check_starts([arm], data)
    attempts = [int(path.name) for path in (directory / "attempts").glob("[0-9]*")]
    machine = this_machine()
    resources, attempt = experiment.spec.resources.resolved(machine), max(attempts, default=0) + 1
    context = LocalContext(
        directory,
        data,
        device=torch.device("cuda" if resources.gpus_per_worker and machine[0][1] else "cpu"),
        threads=resources.cpus_per_worker,
        compile=resources.compile,
        attempt=attempt,
    )
    console = Console(stderr=options.json)
    console.print(f"{arm.name}, seed {options.seed}, in {directory}", soft_wrap=True)
    try:
        with stop_on_signals(context.stop.set), log_to(directory / "log.txt"):
            result = _run(trial, context, console)
    except StopRequested:
        console.print("stopped, everything saved; the same command goes on")
        return STOPPED
    finally:
        lock.close()
    if options.json:
        print(json.dumps({**asdict(result), "directory": str(directory)}))
    else:
        best = ", ".join(f"{name} {value:.4f}" for name, value in (result.test or {}).items())
        console.print(f"[bold]test[/] {best}\nbest checkpoint {directory / result.best_checkpoint}", soft_wrap=True)
    return 0


def _locked(directory: Path) -> IO[str]:
    """The open lock of a trial's directory. Raises SpecError if it cannot be written, or another process has it."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / "lock").open("a")
    except OSError as error:
        rule = f"cannot be written: {error.strerror}"
        raise SpecError(Problem(str(directory), rule, "Give another --storage, or change its rights")) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise SpecError(Problem(str(directory), "another process trains this trial", "Wait for it")) from error
    return lock


def _arm(experiment: Experiment, options: argparse.Namespace) -> Arm:
    for name, given, known in (
        ("--arm", options.arm, list(experiment.spec.arms)),
        ("--task", options.task, list(experiment.tasks)),
    ):
        if given is not None and given not in known:
            raise SpecError(Problem(f"{name} {given}", "is not in the experiment", f"Give one of {', '.join(known)}"))
    fitting = [arm for arm in experiment.arms if options.arm in (None, arm.name) and options.task in (None, arm.task)]
    if not fitting:
        theirs = [arm.task for arm in experiment.arms if arm.name == options.arm]
        rule = f"the arm {options.arm} does not run on it"
        raise SpecError(Problem(f"--task {options.task}", rule, f"Give one of {', '.join(theirs)}"))
    return fitting[0]


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
