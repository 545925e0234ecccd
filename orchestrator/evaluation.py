"""`checkpoint evaluate`: a checkpoint, ours or imported, measured on a split of a task; `judge`: what it said there."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hrm.checkpoint import Checkpoint, open_checkpoint
from hrm.context import LocalContext
from hrm.data.dataset import Dataset, build_dataset
from hrm.data.parallel import usable_cpus
from hrm.data.predictions import read_predictions
from hrm.errors import Problem, SpecError
from hrm.evaluate import evaluate, judge
from hrm.loading import working_model
from hrm.models import Model
from hrm.spec import parse_spec
from hrm.tasks import TaskShape, TaskSpec
from hrm.trial import TrialSpec, refusals
from orchestrator.recipes import named_tasks, task_of

_KEPT = ("model", "loss", "objective", "batch_size", "precision", "seed")
"""What an evaluation needs of the fields of a trial."""


@dataclass(frozen=True, slots=True)
class Bench:
    """A model and what it takes to measure it."""

    model: Model
    dataset: Dataset
    trial: TrialSpec
    context: LocalContext
    precision: str


def evaluate_checkpoint(options: argparse.Namespace) -> int:
    """The `checkpoint evaluate` command; gives its exit code."""
    checkpoint, place = open_checkpoint(options.path), str(options.path)
    trial = trial_of(checkpoint, place, options.task)
    if options.predictions is not None:
        _refuse_to_keep_nothing(trial.task, options.predictions)
    bench = bench_for(checkpoint, place, trial, options.storage)
    model, dataset, context = bench.model, bench.dataset, bench.context
    metrics = evaluate(model, dataset, options.split, trial, context)
    metrics |= judge(model, dataset, options.split, trial, context, keep=options.predictions)
    if options.json:
        print(json.dumps({"checkpoint": place, "task": trial.task.kind, "split": options.split, "metrics": metrics}))
    else:
        print(f"{place} on {trial.task.kind}, {options.split}, {bench.precision}: {_listed(metrics)}")
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
    if not task.has_predictions:
        rule = f"{task.kind} is measured by sums over rows and keeps no predictions"
        way_out = (
            "Give --task: a recipe with generated_rows"
            if "generated_rows" in type(task).model_fields
            else "Leave it out"
        )
        raise SpecError(Problem(f"--predictions {path}", rule, way_out))


def _listed(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())


def trial_of(checkpoint: Checkpoint, place: str, task: str | None) -> TrialSpec:
    """What the checkpoint's manifest says of its trial, on the task that is asked for; an imported one says little.

    Raises SpecError.
    """
    said: dict[str, Any] = checkpoint.manifest["spec"]
    recipe = said.get("task")
    if task is not None:
        tasks, problems = named_tasks([task], Path("--task"))
        if problems:
            raise SpecError(*problems)
        recipe = next(iter(tasks.values())).model_dump(mode="json")
    if recipe is None:
        rule = "does not say which task it is for, as it is imported"
        raise SpecError(Problem(place, rule, "Give --task: a recipe in datasets/, or the path of one"))
    kept = {name: said[name] for name in _KEPT if name in said}
    trial = parse_spec(TrialSpec, {**kept, "task": recipe, "optimizer": {"kind": "adam_atan2"}}, place)
    if problems := refusals(trial, place):
        raise SpecError(*problems)
    return trial


def bench_for(
    checkpoint: Checkpoint, place: str, trial: TrialSpec, storage: Path, precision: str | None = None
) -> Bench:
    """The checkpoint's model, which computes as `model_for` says, beside the trial's data. Raises SpecError."""
    dataset = build_dataset(trial.task, storage.resolve() / "data")
    model, context, computed = model_for(checkpoint, place, trial, dataset.shape, storage, precision)
    return Bench(model, dataset, trial, context, computed)


def model_for(
    checkpoint: Checkpoint,
    place: str,
    trial: TrialSpec,
    shape: TaskShape,
    storage: Path,
    precision: str | None = None,
) -> tuple[Model, LocalContext, str]:
    """The checkpoint's model, which computes as it was trained, where it does so, and in which precision.

    precision: another one, by the name of torch's type. Raises SpecError.
    """
    data = storage.resolve() / "data"
    context = LocalContext(Path(place), data, threads=min(usable_cpus(), torch.get_num_threads()), compile="never")
    model, trained = working_model(checkpoint, place, trial, shape, context)
    if precision in (None, trained):
        return model, context, trained
    model.configure(getattr(torch, precision), "sdpa")  # the kernel of every precision, and of Transformers
    return model, context, precision
