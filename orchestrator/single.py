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

from analysis.writing import write_whole
from hrm.context import LocalContext
from hrm.errors import Problem, SpecError
from hrm.records import TrialResult
from hrm.train import StopRequested, train
from orchestrator.checkpoint_places import RESULT
from orchestrator.experiment import Arm, Experiment, load_experiment
from orchestrator.resources import this_machine
from orchestrator.signals import STOPPED, stop_on_signals
from orchestrator.starts import check_starts
from orchestrator.trial_again import Work, trial_again
from orchestrator.trial_driver import log_to
from orchestrator.validation import with_data


def train_one(options: argparse.Namespace) -> int:
    """The `train` command; gives its exit code."""
    storage = options.storage.resolve()
    work = _of_sweep(options, storage) if options.trial else _of_experiment(options, storage / "data")
    directory = storage / "single" / f"{work.name}-{work.trial.hash()}"
    lock = _locked(directory)
    if work.arm is not None:
        check_starts([work.arm], storage / "data")
    attempts = [int(path.name) for path in (directory / "attempts").glob("[0-9]*")]
    machine = this_machine()
    resources, attempt = work.resources.resolved(machine), max(attempts, default=0) + 1
    context = LocalContext(
        directory,
        storage / "data",
        device=torch.device("cuda" if resources.gpus_per_worker and machine[0][1] else "cpu"),
        threads=resources.cpus_per_worker,
        compile=resources.compile,
        attempt=attempt,
    )
    console = Console(stderr=options.json)
    console.print(f"{work.name}, seed {work.trial.seed}, in {directory}", soft_wrap=True, highlight=False)
    try:
        with stop_on_signals(context.stop.set), log_to(directory / "log.txt"):
            result = _run(work, context, console)
    except StopRequested:
        console.print("stopped, everything saved; the same command goes on")
        return STOPPED
    finally:
        lock.close()
    write_whole(directory / RESULT, json.dumps(asdict(result), indent=1))
    if options.json:
        print(json.dumps({**asdict(result), "directory": str(directory)}))
    else:
        _show(work, result, directory, console)
    return 0


def _show(work: Work, result: TrialResult, directory: Path, console: Console) -> None:
    for split, values in (("validation", result.best_validation), ("test", result.test or {})):
        words = ", ".join(f"{name} {value:.4f}" for name, value in values.items())
        if words:
            console.print(f"[bold]{split}[/] {words}", soft_wrap=True, highlight=False)
    if work.before:
        console.print(work.before, soft_wrap=True, highlight=False, markup=False)
    console.print(f"best checkpoint {directory / result.best_checkpoint}", soft_wrap=True, highlight=False)


def _of_sweep(options: argparse.Namespace, storage: Path) -> Work:
    """A trial as its sweep ran it. Raises SpecError for options that would make it another."""
    asked = {
        "an experiment file": options.experiment,
        "--set": options.overrides,
        "--smoke": options.smoke,
        "--arm": options.arm,
        "--task": options.task,
        "--seed": options.seed,
    }
    if given := [name for name, value in asked.items() if value]:
        rule = f"is exactly this trial of its sweep, without {', '.join(given)}"
        raise SpecError(Problem(f"--trial {options.trial}", rule, "Leave one or the other out"))
    return trial_again(storage, options.trial)


def _of_experiment(options: argparse.Namespace, data: Path) -> Work:
    """The trial of an arm as its file states it."""
    if options.experiment is None:
        rule = "a trial is needed: an experiment file, or --trial SWEEP/KEY"
        raise SpecError(Problem("train", rule, "Give one of them, such as experiments/text_adapt.yaml"))
    loaded = load_experiment(options.experiment, options.overrides, options.smoke, storage=data.parent)
    experiment = with_data(loaded, data)
    arm = _arm(experiment, options)
    return Work(arm.name, arm.trial({}, options.seed), experiment.spec.resources, arm=arm)


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


def _run(work: Work, context: LocalContext, console: Console) -> TrialResult:
    began, trial = time.time(), work.trial
    reports = train(trial, context, test=work.test)
    while True:
        try:
            report = next(reports)
        except StopIteration as end:
            result: TrialResult = end.value
            return result
        values = ", ".join(f"{name} {value:.4f}" for name, value in report.validation.items())
        place = f"report {report.index}/{trial.num_reports}, step {report.progress.step}, {time.time() - began:.0f} s"
        console.print(f"{place}: validation {values}", soft_wrap=True)
