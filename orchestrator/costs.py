"""What each arm costs before anything runs: parameters, FLOPs per token, and what its budget buys.

All of it follows from the specs and the shape of the built data; models are built without memory for weights.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from statistics import fmean, harmonic_mean
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from analysis.records import ArmCost
from hrm.data.dataset import Dataset, open_dataset
from hrm.errors import SpecError
from hrm.tasks import IGNORE, TaskShape
from hrm.trial import TrialSpec

if TYPE_CHECKING:
    from orchestrator.experiment import Arm, Experiment

Quantity = Literal["parameters", "flops_per_token"]
"""What arms can be matched by; the fields of `match` and of `ArmCost`."""
_POINTS = 100
"""Of a training, at which its FLOPs are asked for: exact where curricula change at whole per cents."""
_SAMPLED_ROWS = 1000


def arm_costs(experiment: Experiment, data_root: Path) -> list[ArmCost]:
    """The costs of every arm on each of its tasks, in order. Needs the built data."""
    datasets = {name: open_dataset(task, data_root) for name, task in experiment.tasks.items()}
    scored = {name: scored_tokens(dataset) for name, dataset in datasets.items()}
    return [_cost(arm, datasets[arm.task].shape, scored[arm.task]) for arm in experiment.arms]


def measure(quantity: Quantity, trial: TrialSpec, shape: TaskShape) -> float:
    """One quantity of a trial."""
    if quantity == "flops_per_token":
        return training_flops(trial, shape) / shape.sequence_length
    with torch.device("meta"):
        return trial.model.build(shape).num_parameters()


def _cost(arm: Arm, shape: TaskShape, scored: float) -> ArmCost:
    trial, length = arm.trial({}, 0), shape.sequence_length
    with torch.device("meta"):
        model = trial.model.build(shape)
    training = training_flops(trial, shape)
    steps = steps_of(trial, training, scored)
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
        parameters_range=_range(arm, "parameters", model.num_parameters(), shape),
        flops_per_token_range=_range(arm, "flops_per_token", training / length, shape),
    )


def training_flops(trial: TrialSpec, shape: TaskShape) -> float:
    """Of a segment on a row, a mean over the training: depth curricula and growing gradient horizons change them."""
    each = [trial.training_flops(shape, (n + 0.5) / _POINTS) for n in range(_POINTS)]
    # An equal share of a budget in FLOPs is fewer steps where a step costs more
    return harmonic_mean(each) if trial.budget.axis == "flops" else fmean(each)


def steps_of(trial: TrialSpec, row_flops: float, scored: float) -> int | None:
    """The optimizer steps that the budget buys, where no row halts early; None for a budget in seconds."""
    spent_by_a_step = {
        "steps": 1.0,
        "examples": trial.batch_size / trial.model.halting_rule().segments,
        "tokens": trial.batch_size * scored,
        "flops": trial.batch_size * row_flops,
    }
    spent = spent_by_a_step.get(trial.budget.axis)
    return None if spent is None else math.ceil(trial.budget.amount / spent - 1e-9)


def scored_tokens(dataset: Dataset) -> float:
    """Of a training row on average, by rows evenly spread over the split."""
    rows = dataset.split("train")
    sample = np.linspace(0, len(rows) - 1, min(len(rows), _SAMPLED_ROWS)).astype(np.int64)
    return float((rows.gather(sample)["labels"] != IGNORE).sum() / len(sample))


def _range(arm: Arm, quantity: Quantity, own: float, shape: TaskShape) -> Any:
    """The least and the most over the arm's space, with every searched field of the model at its cheapest or dearest
    end; None where the space changes nothing."""
    fields = {path: dimension for path, dimension in arm.space.items() if path.startswith("model.")}
    ends: tuple[dict[str, Any], dict[str, Any]] = ({}, {})
    alone = [own]
    for path, dimension in fields.items():
        probes = [(measure(quantity, arm.trial({path: value}, 0), shape), value) for _, value in dimension.probes()]
        alone += [cost for cost, _ in probes]
        for parameters, choose in zip(ends, (min, max), strict=True):
            parameters[path] = choose(probes, key=lambda probe: probe[0])[1]
    found = [min(alone), max(alone)]
    for place, parameters in enumerate(ends):
        with contextlib.suppress(SpecError):  # ends that do not go together
            found[place] = measure(quantity, arm.trial(parameters, 0), shape)
    return None if found == [own, own] else tuple(found)
