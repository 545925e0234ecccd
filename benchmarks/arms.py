"""What the throughput benchmark measures: trainings of the discovered models at set sizes, and the limit beside them.

An arm is `hrm.train.Training` itself, on rows made here; a step is its `step()`, so that everything a trial does
between two files is measured. The limit is plain `torch.matmul` on the shapes of one block's products.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import numpy as np
import torch

from hrm.context import Compile, LocalContext
from hrm.data.dataset import DatasetWriter, build_dataset
from hrm.models import ModelSpec
from hrm.nn.halting import HaltingSpec
from hrm.nn.layers import BlockShape
from hrm.optim.adam_atan2 import AdamATan2Spec
from hrm.tasks import TaskShape, TaskSpec
from hrm.train import Training
from hrm.trial import BudgetSpec, TrialSpec
from hrm.variants import discover

Dtype = Literal["bfloat16", "float32"]

WITHOUT_TARGET = "hrm_without_target"
"""The arm of HRM that halts by q alone: no second forward pass for the continue target."""


@dataclass(frozen=True)
class Size:
    """The sizes that all models of one table share."""

    hidden_size: int
    num_heads: int
    layers: int
    batch_size: int
    sequence_length: int

    @property
    def block(self) -> BlockShape:
        return BlockShape(self.hidden_size, self.num_heads, 4.0)

    @property
    def shape(self) -> TaskShape:
        """Of Sudoku's tokens; one puzzle identifier, since the original cannot do without."""
        return TaskShape(vocab_size=11, sequence_length=self.sequence_length, num_puzzle_identifiers=1)


SIZES = {
    "large": Size(hidden_size=512, num_heads=8, layers=4, batch_size=64, sequence_length=81),
    "small": Size(hidden_size=128, num_heads=4, layers=2, batch_size=32, sequence_length=100),
}


def specs(size: Size) -> dict[str, ModelSpec]:
    """Every arm at this size: the discovered models by kind, and HRM without its continue target.

    The size gives widths and the depth of H, L and transformer; other depths and cycles are the models' own defaults.
    """
    shared: dict[str, Any] = {"hidden_size": size.hidden_size, "num_heads": size.num_heads}
    shared |= {"H_layers": size.layers, "L_layers": size.layers, "puzzle_embedding_size": size.hidden_size}
    own: dict[str, dict[str, Any]] = {
        "hrm": {"halting": HaltingSpec(rule="q_with_target", segments=16)},
        "trm": {"halting": HaltingSpec(rule="q", segments=16)},
        "urm": {"halting": HaltingSpec(rule="q", segments=16)},
        "transformer": {"num_layers": 2 * size.layers},
    }
    arms: dict[str, ModelSpec] = {}
    for kind, variant in discover("hrm.models", ModelSpec).items():
        fields = {name: value for name, value in (shared | own.get(kind, {})).items() if name in variant.model_fields}
        arms[kind] = variant(**fields)  # type: ignore[assignment]
    without = arms["hrm"].model_copy(update={"halting": HaltingSpec(rule="q", segments=16)})
    return {"hrm": arms.pop("hrm"), WITHOUT_TARGET: without, **arms}


class Arm(Protocol):
    """Something that trains, step by step."""

    flops: float
    """Of one step, by the model's formula."""

    @property
    def loss(self) -> float:
        """Of the last step."""

    def step(self) -> None: ...


class RowsSpec(TaskSpec):
    """Random rows whose labels are a fixed function of the inputs, so that a loss that does not fall is a fault."""

    kind: Literal["throughput_rows"] = "throughput_rows"
    sequence_length: int
    num_rows: int
    """One batch: then the first step has the same rows, and the same loss, in whatever order they are taken."""

    def build(self, writer: DatasetWriter) -> None:
        writer.vocabulary = [str(token) for token in range(11)]
        writer.num_puzzle_identifiers = 1
        random = np.random.default_rng(0)
        for split, rows in (("train", self.num_rows), ("validation", 8), ("test", 8)):
            inputs = random.integers(1, 11, (rows, self.sequence_length))
            identifiers = np.zeros(rows, dtype=np.int32)
            columns: dict[str, np.ndarray] = {"inputs": inputs, "labels": inputs * 3 % 11}
            writer.write_split(split, {**columns, "puzzle_identifiers": identifiers})

    def render(self, tokens: list[int], vocabulary: list[str]) -> str:
        return " ".join(vocabulary[token] for token in tokens)

    @classmethod
    def smoke(cls) -> Self:
        return cls(sequence_length=8, num_rows=8)


class OurArm:
    """A trial at work on this process's device."""

    def __init__(
        self,
        spec: ModelSpec,
        size: Size,
        dtype: Dtype,
        folder: Path,
        device: torch.device,
        threads: int,
        compiled: bool,
    ) -> None:
        task = RowsSpec(sequence_length=size.sequence_length, num_rows=size.batch_size)
        build_dataset(task, folder)
        # model_construct: the rows' spec is of no kind that YAML knows, and a trial that is validated refuses it.
        trial = TrialSpec.model_construct(
            task=task,
            model=spec,
            optimizer=AdamATan2Spec(learning_rate=1e-4),
            budget=BudgetSpec(amount=1e12),
            batch_size=size.batch_size,
            loss="stablemax",
            precision=dtype,
        )
        compiling: Compile = "always" if compiled else "never"
        self.training = Training(trial, LocalContext(folder / "trial", folder, device, threads, compiling))
        self.flops = spec.flops(self.training.dataset.shape).training * size.batch_size

    @property
    def loss(self) -> float:
        return self.training.state.pending[-1].metrics["loss"]

    def step(self) -> None:
        self.training.step()


class Limit:
    """The products of one block (qkv, output, gate and up, down) over all positions of a batch, by torch.matmul."""

    def __init__(self, size: Size, dtype: Dtype, device: torch.device) -> None:
        d, inner, tokens = size.hidden_size, size.block.inner_size, size.batch_size * (size.sequence_length + 1)
        kind = {"dtype": getattr(torch, dtype), "device": device}
        shapes = ((d, 3 * d), (d, d), (d, 2 * inner), (inner, d))
        self.pairs = [(torch.randn(tokens, k, **kind), torch.randn(n, k, **kind).t()) for k, n in shapes]
        self.flops = float(sum(2 * tokens * k * n for k, n in shapes))

    def step(self) -> None:
        for activations, weight in self.pairs:
            torch.matmul(activations, weight)


def synchronize(device: torch.device) -> None:
    """Wait for all that the device was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_per_step(step: Callable[[], None], at_least: float, device: torch.device) -> float:
    """The mean over as many steps as take `at_least` seconds, and one step at the least."""
    synchronize(device)
    started, steps = time.perf_counter(), 0
    while steps == 0 or time.perf_counter() - started < at_least:
        step()
        synchronize(device)
        steps += 1
    return (time.perf_counter() - started) / steps
