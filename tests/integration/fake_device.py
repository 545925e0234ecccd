"""Whole training steps on a device that does not exist; as a script, it ends with the first thing that goes wrong.

Under FakeTensorMode every tensor has a device and a shape but no values, and an operation on tensors of two devices is
refused. Host values that a step reads are given by the context: two workers, of which this is the first.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

from hrm.context import LocalContext
from hrm.data.dataset import build_dataset
from hrm.evaluate import to_device
from hrm.models import Model, ModelSpec, Rows
from hrm.models.hrm_text import HRMTextSpec
from hrm.nn.halting import HaltingSpec
from hrm.optim import OptimizerSpec
from hrm.state import TrainState
from hrm.tasks import TaskShape
from hrm.tasks.red_team import RedTeamSpec
from hrm.tasks.sudoku import SudokuSpec
from hrm.train import Training
from hrm.trial import TrialSpec
from hrm.variants import discover

NAME = "fake_gpu"
MOST_SUMS = 64
"""The sums of a step are fewer numbers than this, the gradients of a model are more."""


class Absent(_DummyBackendModule):
    """Of a device that is not there, FakeTensorMode asks nothing, not even where a value is known."""

    def is_available(self) -> bool:
        return False


class FakeWorkers(LocalContext):
    """The first of two workers; what the host reads from a sum over workers is 1."""

    def all_reduce(self, tensor: Tensor) -> Tensor:
        assert tensor.device.type == NAME, f"a sum over workers is asked for on {tensor.device}"
        if tensor.numel() > MOST_SUMS:
            return tensor
        if tensor.numel() == 1:
            return torch.tensor(1.0)
        with unset_fake_temporarily():
            return torch.ones(tensor.shape)

    def all_gather(self, tensor: Tensor) -> Tensor:
        assert tensor.device.type == NAME, f"workers gather a tensor on {tensor.device}"
        return torch.cat((tensor, tensor))


class FakeTraining(Training):
    """A training in which the host chooses rows and looks at the gradient's norm without their values."""

    def _next_rows(self) -> Rows:
        rows = to_device(self.rows.gather(np.arange(len(self.slots))), self.context.device)
        if isinstance(self.trial.model, HRMTextSpec):
            return {**rows, "prefix_lengths": torch.ones_like(rows["puzzle_identifiers"])}
        return {**rows, "documents": torch.zeros_like(rows["inputs"])} if self.trial.task.next_token else rows

    def _guarded_norm(self, objective: float, step: int) -> float:
        torch.nn.utils.clip_grad_norm_(self.state.model.parameters(), 1.0, foreach=True)
        return 1.0


def trials() -> Iterator[TrialSpec]:
    """Every model on text as it is smallest; on puzzles with each halting rule it has and all its options; each
    optimizer in turn."""
    optimizers = cycle(cast("Any", kind).smoke() for kind in discover("hrm.optim", OptimizerSpec).values())
    for kind in discover("hrm.models", ModelSpec).values():
        smallest = cast("type[ModelSpec]", kind).smoke()
        yield trial(RedTeamSpec.smoke(), smallest, next(optimizers))
        for rule in ("none", "q", "q_with_target") if "halting" in type(smallest).model_fields else ("none",):
            yield trial(SudokuSpec.smoke(), with_options(smallest, rule), next(optimizers), loss="stablemax")


def trial(task: Any, model: ModelSpec, optimizer: OptimizerSpec, **fields: Any) -> TrialSpec:
    class BuiltOnTheHost(type(model)):  # type: ignore[misc]
        def build(self, shape: TaskShape) -> Model:
            with unset_fake_temporarily():  # with values: Module.to refuses fake parameters
                built: Model = super().build(shape)
            return built

    fields |= {"task": task, "model": BuiltOnTheHost(**dict(model)), "optimizer": optimizer}
    return TrialSpec(**fields, batch_size=20, ema=0.9, precision="bfloat16")


def with_options(spec: ModelSpec, rule: Any) -> ModelSpec:
    options = {
        "L_cycles": 1,
        "causal": False,
        "puzzle_embedding_size": 16,
        "halting": HaltingSpec(rule=rule, segments=2),
        "damping": 0.1,
        "noise": 0.1,
        "start": "random",
        "starts": 2 if rule == "q_with_target" else 1,
        "positions": "learned" if rule == "q" else "rotary",
        "mixer": "mlp" if rule == "q" else "attention",
    }
    return spec.model_copy(update={name: value for name, value in options.items() if name in type(spec).model_fields})


def main() -> None:
    _setup_privateuseone_for_python_backend(NAME, backend_module=Absent())
    with pytest.raises(RuntimeError, match="same device"), fake():
        torch.ones(2, device=NAME) + torch.ones(2)
    with tempfile.TemporaryDirectory() as folder:
        for task in (RedTeamSpec.smoke(), SudokuSpec.smoke()):
            build_dataset(task, Path(folder))
        for number, spec in enumerate(trials()):
            print(spec.model.kind, spec.model.halting_rule().rule, spec.optimizer.kind, spec.task.kind, flush=True)
            context = FakeWorkers(Path(folder) / str(number), Path(folder), torch.device(NAME), world_size=2)
            with fake():
                run(spec, context)


def fake() -> FakeTensorMode:
    """A shape environment, since how many puzzles a batch holds is a size that depends on values."""
    return FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())


def run(spec: TrialSpec, context: LocalContext) -> None:
    training = FakeTraining(spec, context)
    training.step()
    if not spec.task.next_token:  # a second step starts from the carry of the first
        training.step()
    with patch("hrm.evaluate.to_host", nothing):
        training._evaluate("validation")
    left = [name for name, tensor in held(training.state).items() if tensor.device.type != NAME]
    assert left == [], f"not on the device: {', '.join(left)}"


def nothing(tensor: Tensor) -> np.ndarray:
    """What a fake tensor has to copy to the host: its shape."""
    return np.zeros(tuple(tensor.shape))


def held(state: TrainState) -> dict[str, Tensor]:
    """All that lives from step to step; lists of tensors on two devices go through FakeTensorMode unseen."""
    assert state.ema is not None
    averages = {f"average {name}": mean for name, mean in state.ema.means.items()}
    moments = {
        f"optimizer {number} {name}": value
        for number, moments in enumerate(state.optimizer.state.values())
        for name, value in moments.items()
        if value.numel() > 1  # a count of steps may be on the host
    }
    tensors = {**state.model.state_dict(), **averages, **state.carry.state, **state.carry.rows, **moments}
    return tensors | {name: getattr(state.carry, name) for name in ("segments", "halted", "refills")}


if __name__ == "__main__":
    main()
