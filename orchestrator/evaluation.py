"""`checkpoint evaluate`: a checkpoint, ours or imported, measured on a split of a task; `judge`: what it said there."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from hrm.checkpoint import Checkpoint, open_checkpoint
from hrm.context import LocalContext
from hrm.data.dataset import build_dataset
from hrm.data.parallel import usable_cpus
from hrm.data.predictions import read_predictions
from hrm.errors import Problem, SpecError
from hrm.evaluate import evaluate, judge
from hrm.loading import load_model
from hrm.resolve import resolve, resumed, take_effect
from hrm.spec import parse_spec
from hrm.tasks import TaskSpec
from hrm.trial import TrialSpec, refusals
from orchestrator.recipes import named_tasks, task_of


def evaluate_checkpoint(options: argparse.Namespace) -> int:
    """The `checkpoint evaluate` command; gives its exit code."""
    checkpoint, place = open_checkpoint(options.path), str(options.path)
    trial = _trial(checkpoint, options)
    if problems := refusals(trial, place):
        raise SpecError(*problems)
    if options.predictions is not None:
        _refuse_to_keep_nothing(trial.task, options.predictions)
    data = options.storage.resolve() / "data"
    dataset = build_dataset(trial.task, data)
    context = LocalContext(options.path, data, threads=usable_cpus(), compile="never")
    resolved = resolve(trial, dataset.shape, context)
    if trained := checkpoint.manifest.get("resolved"):
        resolved = resumed(trained, resolved) | {"threads": context.threads, "compiled": False}
    take_effect(resolved)
    model = load_model(checkpoint, dataset.shape, place)
    model.configure(getattr(torch, resolved["precision"]), resolved["attention"])
    metrics = evaluate(model, dataset, options.split, trial, context)
    metrics |= judge(model, dataset, options.split, trial, context, keep=options.predictions)
    if options.json:
        print(json.dumps({"checkpoint": place, "task": trial.task.kind, "split": options.split, "metrics": metrics}))
    else:
        print(f"{place} on {trial.task.kind}, {options.split}, {resolved['precision']}: {_listed(metrics)}")
    return 0


def judge_predictions(options: argparse.Namespace) -> int:
    """The `checkpoint judge` command: stored predictions, all together, without a model; gives its exit code."""
    predictions, recipe = read_predictions(options.files)
    task = task_of(json.loads(recipe), str(options.files[0]))
    metrics = task.judge(predictions)
    if options.json:
        print(json.dumps({"task": task.kind, "predictions": len(predictions), "metrics": metrics}))
    else:
        print(f"{len(predictions):,} predictions on {task.kind}: {_listed(metrics)}")
    return 0


def _refuse_to_keep_nothing(task: TaskSpec, path: Path) -> None:
    if type(task).predictions is TaskSpec.predictions:
        rule = f"{task.kind} is measured by sums over rows and keeps no predictions"
        raise SpecError(Problem(f"--predictions {path}", rule, "Leave it out"))


def _listed(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def _trial(checkpoint: Checkpoint, options: argparse.Namespace) -> TrialSpec:
    """What the checkpoint's manifest says of its trial, on the task that is asked for; an imported one says little."""
    said: dict[str, Any] = checkpoint.manifest["spec"]
    task = said.get("task")
    if options.task is not None:
        tasks, problems = named_tasks([options.task], Path("--task"))
        if problems:
            raise SpecError(*problems)
        task = next(iter(tasks.values())).model_dump(mode="json")
    if task is None:
        rule = "does not say which task it is for, as it is imported"
        raise SpecError(Problem(str(options.path), rule, "Give --task: a recipe in datasets/, or the path of one"))
    kept = {name: said[name] for name in ("model", "loss", "batch_size", "precision", "seed") if name in said}
    return parse_spec(TrialSpec, {**kept, "task": task, "optimizer": {"kind": "adam_atan2"}}, str(options.path))
