"""What a sweep will need on disk at most, forecast from the sizes of its models before anything runs."""

from __future__ import annotations

import os
import shutil
from typing import Any

import torch

from hrm.data.dataset import open_dataset
from hrm.errors import Problem, SpecError
from hrm.segments import Carry
from hrm.trial import TrialSpec
from orchestrator.experiment import Arm, Experiment
from orchestrator.store import SweepStore

COPIES_WHILE_RUNNING = 4
"""Of a running trial: the newest two checkpoints, the best one, and the one being written."""
_BYTES_PER_VALUE, _BYTES_PER_MEAN = 12, 4
"""Float32 weight and two moments; the average of the weights, where there is one."""


def check_disk(experiment: Experiment, store: SweepStore) -> None:
    """Raises SpecError if the sweep's checkpoints may not fit."""
    need, free = forecast_bytes(experiment, store), shutil.disk_usage(store.directory).free
    if need > free:
        raise SpecError(
            Problem(
                str(store.directory),
                f"the checkpoints may need {need / 1e9:.2f} GB and {free / 1e9:.2f} GB are free",
                "Free some space, give another --storage, or lower resources.max_concurrent_trials",
            )
        )


def forecast_bytes(experiment: Experiment, store: SweepStore) -> int:
    """Running trials, each arm's best trial or Pareto front, and all replicas, each at its arm's largest."""
    spec = experiment.spec
    sizes = [_checkpoint_bytes(arm, store) for arm in experiment.arms]
    running = COPIES_WHILE_RUNNING * max(sizes) * (spec.resources.max_concurrent_trials or os.cpu_count() or 1)
    best = spec.search.trials if spec.search.objectives else 1
    return running + sum(sizes) * (1 + best + spec.replicas.seeds * spec.replicas.configurations)


def _checkpoint_bytes(arm: Arm, store: SweepStore) -> int:
    """The largest over the template and both ends (or all choices) of each dimension of the space."""
    probes: list[dict[str, Any]] = [{}]
    probes += [{path: value} for path, dimension in arm.space.items() for _, value in dimension.probes()]
    return max(_trial_bytes(arm.trial(parameters, 0), store) for parameters in probes)


def _trial_bytes(trial: TrialSpec, store: SweepStore) -> int:
    shape = open_dataset(trial.task, store.data_root).shape
    with torch.device("meta"):
        model = trial.model.build(shape)
        carry = Carry.empty(model, trial.batch_size, shape.sequence_length, torch.device("meta"))
    carried = sum(value.numel() * value.element_size() for value in carry.state.values())
    rows = 24 * trial.batch_size * shape.sequence_length
    per_parameter = _BYTES_PER_VALUE + (0 if trial.ema is None else _BYTES_PER_MEAN)
    return per_parameter * model.num_parameters() + 4 * model.num_table_values() + carried + rows
