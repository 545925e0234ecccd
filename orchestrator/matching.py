"""What each arm costs, and how closely arms match: known from their specs and the shape of the data before anything runs.

`match:` in an experiment file refuses arms that are too unlike in parameters or in training FLOPs per token, and says
which size would come closest. Nothing is fitted in silence: the file itself says every size.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, harmonic_mean
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import Field

from analysis.numbers import amount, count, listing
from analysis.records import ArmCost
from hrm.data.dataset import Dataset, open_dataset
from hrm.errors import Problem, SpecError
from hrm.spec import Spec
from hrm.tasks import IGNORE, TaskShape
from hrm.trial import BudgetSpec, TrialSpec

if TYPE_CHECKING:
    from orchestrator.experiment import Arm, Experiment, ExperimentSpec

_SHARES = 100
"""Points of the budget at which a training's FLOPs are asked for: exact where curricula change at whole per cents."""
_SAMPLED_ROWS = 1000
_LARGEST = 256
"""How far a size is raised in search of a match."""
_LAYERS = ("num_layers", "num_layers_per_stack", "H_layers", "L_layers")
_SIZES = {
    "parameters": ("hidden_size", *_LAYERS),
    "flops_per_token": ("hidden_size", *_LAYERS, "cycles", "H_cycles", "L_cycles"),
}
"""Whole-number fields of a model that a quantity rises with."""
_WORDS = {"parameters": "parameters", "flops_per_token": "training FLOPs per token"}


class MatchSpec(Spec):
    """How closely the arms must match, each as its file states it, without its space. By default nothing is enforced."""

    parameters: float | None = Field(None, ge=0.0)
    """The largest relative difference in parameters, puzzle tables left out: 0.05 is 5 %."""
    flops_per_token: float | None = Field(None, ge=0.0)
    """The same in training FLOPs per token and segment."""
    to: str | None = None
    """The arm that the others are compared with; null for the first."""

    def reference(self, arms: list[str]) -> str:
        """The name of that arm."""
        return self.to or arms[0]


def unmatched(spec: ExperimentSpec, place: str) -> list[Problem]:
    """What is wrong with `match` itself."""
    if spec.match.to is None or spec.match.to in spec.arms:
        return []
    rule, way_out = f"there is no arm {spec.match.to!r}", f"The arms are {', '.join(spec.arms)}"
    return [Problem(f"{place}: match.to", rule, way_out)]


def arm_costs(experiment: Experiment, data_root: Path) -> list[ArmCost]:
    """The costs of every arm on every task, in order. Needs the built data; builds models without memory for weights."""
    datasets = {name: open_dataset(task, data_root) for name, task in experiment.tasks.items()}
    scored = {name: _scored_tokens(dataset) for name, dataset in datasets.items()}
    return [_cost(arm, datasets[arm.task].shape, scored[arm.task]) for arm in experiment.arms]


def check_match(experiment: Experiment, costs: list[ArmCost], data_root: Path) -> None:
    """Raises SpecError with every arm that `match` refuses."""
    match, problems = experiment.spec.match, []
    reference = match.reference(list(experiment.spec.arms))
    for quantity in _SIZES:
        tolerance = getattr(match, quantity)
        for arm, cost in zip(experiment.arms, costs, strict=True):
            wanted = getattr(next(c for c in costs if (c.arm, c.task) == (reference, cost.task)), quantity)
            ratio = getattr(cost, quantity) / wanted
            if tolerance is None or abs(ratio - 1.0) <= tolerance:
                continue
            where = f"arm {arm.name} on {arm.task}" if len(experiment.tasks) > 1 else f"arm {arm.name}"
            rule = (
                f"{_WORDS[quantity]} must be within {100 * tolerance:g} % of the {_number(wanted)} of {reference}, got "
                f"{_number(getattr(cost, quantity))} in {where} ({ratio:.3g} times)"
            )
            shape = open_dataset(experiment.tasks[arm.task], data_root).shape
            near = _nearest(arm, quantity, wanted, shape, tolerance)
            advice = f"Set arms.{arm.name}.patch.model.{' or '.join(near)}, or raise" if near else "Raise"
            enough = math.ceil(100 * abs(ratio - 1.0)) / 100
            problems.append(Problem(f"match.{quantity}", rule, f"{advice} match.{quantity} to {enough:g}"))
    if problems:
        raise SpecError(*problems)


def how_well(costs: list[ArmCost], reference: str, budget: BudgetSpec) -> str:
    """In a sentence, how far the arms are from the one they are compared with."""
    size = amount(budget.amount, budget.axis)
    if len({cost.arm for cost in costs}) == 1:
        return f"Every trial trains for {size}."
    by_task = {cost.task: cost for cost in costs if cost.arm == reference}
    others = [(cost, by_task[cost.task]) for cost in costs if cost.arm != reference]

    def spread(value: Callable[[ArmCost], float]) -> str:
        ratios = [f"{value(cost) / value(own):.3g}" for cost, own in others]
        low, high = min(ratios, key=float), max(ratios, key=float)
        return f"{low} times" if low == high else f"{low} to {high} times"

    facts = [f"parameters {spread(lambda cost: cost.parameters)}"]
    facts.append(f"training FLOPs per token {spread(lambda cost: cost.flops_per_token)}")
    matched = f"Every trial trains for {size}"
    if budget.axis == "flops":
        matched += ": all arms match in training FLOPs by construction"
    elif budget.axis != "seconds":
        facts.append(f"training FLOPs of a trial {spread(lambda cost: (cost.steps or 0) * cost.flops_per_step)}")
    return f"Against {reference}: {listing(facts)}. {matched}."


def _cost(arm: Arm, shape: TaskShape, scored: float) -> ArmCost:
    trial, length = arm.trial({}, 0), shape.sequence_length
    with torch.device("meta"):
        model = trial.model.build(shape)
    training = _training_flops(trial, shape)
    steps = _steps(trial, training, scored)
    return ArmCost(
        arm=arm.name,
        task=arm.task,
        parameters=model.num_parameters(),
        table_values=model.num_table_values(),
        forward_flops_per_token=trial.model.flops(shape).forward / length,
        flops_per_token=training / length,
        segments=trial.model.halting_rule().segments,
        flops_per_step=training * trial.batch_size,
        steps=steps,
        tokens=None if steps is None else steps * trial.batch_size * scored,
        parameters_range=_range(arm, "parameters", shape),
        flops_per_token_range=_range(arm, "flops_per_token", shape),
    )


def _measure(quantity: str, trial: TrialSpec, shape: TaskShape) -> Any:
    if quantity == "flops_per_token":
        return _training_flops(trial, shape) / shape.sequence_length
    with torch.device("meta"):
        return trial.model.build(shape).num_parameters()


def _training_flops(trial: TrialSpec, shape: TaskShape) -> float:
    """Of a segment on a row, a mean over the training: depth curricula and growing gradient horizons change them."""
    each = [trial.model.flops(shape, (n + 0.5) / _SHARES).training for n in range(_SHARES)]
    # An equal share of a budget in FLOPs is fewer steps where a step costs more.
    return harmonic_mean(each) if trial.budget.axis == "flops" else fmean(each)


def _steps(trial: TrialSpec, row_flops: float, scored: float) -> int | None:
    """The optimizer steps that the budget buys, where no row halts early."""
    each = {
        "steps": 1.0,
        "examples": trial.batch_size / trial.model.halting_rule().segments,
        "tokens": trial.batch_size * scored,
        "flops": trial.batch_size * row_flops,
    }
    return math.ceil(trial.budget.amount / each[trial.budget.axis]) if trial.budget.axis in each else None


def _scored_tokens(dataset: Dataset) -> float:
    """Of a training row on average, by a sample evenly spread over the split."""
    rows = dataset.split("train")
    labels = rows.gather(np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLED_ROWS)).astype(np.int64))["labels"]
    return float((labels != IGNORE).sum() / len(labels))


def _range(arm: Arm, quantity: str, shape: TaskShape) -> Any:
    """The least and the most over the arm's space; None where the space does not change it."""
    low, high = _extreme(arm, quantity, shape, min), _extreme(arm, quantity, shape, max)
    return (low, high) if low < high else None


def _extreme(arm: Arm, quantity: str, shape: TaskShape, choose: Callable[..., Any]) -> Any:
    """With each searched field of the model at its cheapest or dearest end; ends that do not go together are left."""
    parameters: dict[str, Any] = {}
    for path, dimension in arm.space.items():
        options = []
        for _, value in dimension.probes() if path.startswith("model.") else []:
            with contextlib.suppress(SpecError):
                trial = arm.trial({**parameters, path: value}, 0)
                options.append((_measure(quantity, trial, shape), value))
        if options:
            parameters[path] = choose(options, key=lambda option: option[0])[1]
    return _measure(quantity, arm.trial(parameters, 0), shape)


def _nearest(arm: Arm, quantity: str, wanted: float, shape: TaskShape, tolerance: float) -> list[str]:
    """`field: value (ratio)` of each size of the arm's model that can be set to match; else of the one that is nearest."""
    model = arm.trial({}, 0).model
    found: list[tuple[float, str]] = []
    for field in _SIZES[quantity]:
        if field in type(model).model_fields:
            step = 2 * getattr(model, "num_heads", 1) if field == "hidden_size" else 1
            value, ratio = _closest(arm, f"model.{field}", step, lambda t: _measure(quantity, t, shape) / wanted)
            found.append((abs(ratio - 1.0), f"{field}: {value} ({ratio:.3g} times)"))
    found.sort(key=lambda pair: pair[0])
    return [words for off, words in found if off <= tolerance] or [words for _, words in found[:1]]


def _closest(arm: Arm, path: str, step: int, ratio_of: Callable[[TrialSpec], float]) -> tuple[int, float]:
    """The multiple of `step` whose ratio is nearest to 1, and that ratio; ratios rise with the value."""
    best, nearest = 0, math.inf
    for value in range(step, (_LARGEST + 1) * step, step):
        try:
            ratio = ratio_of(arm.trial({path: value}, 0))
        except SpecError:
            continue
        if abs(ratio - 1.0) >= abs(nearest - 1.0):
            break
        best, nearest = value, ratio
    return best, nearest


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else count(value)
