"""A calibration: the parts of a trial measured once each, in a process with the resources of a worker.

A few real optimizer steps after one that warms up, a batch of an evaluation, one checkpoint written. Of a trial with
several workers the share of one is measured; what they tell each other is not.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, cast

import numpy as np
import torch

from hrm.checkpoint import write_checkpoint
from hrm.context import Compile, LocalContext
from hrm.data.dataset import Dataset, Rows, fetch_dataset
from hrm.evaluate import evaluate
from hrm.remote import Archive, node_cache
from hrm.spec import parse_spec
from hrm.tasks import Answers
from hrm.train import Training
from hrm.trial import TrialSpec
from orchestrator.costs import scored_tokens, steps_of, training_flops
from orchestrator.gpu_memory import limit_to_share
from orchestrator.node import GpuEnergy, gpu_names

LEAST_STEPS, MOST_STEPS = 3, 40
STEPS_SECONDS = 1.0
"""Steps are repeated until they have taken so long."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What a calibration runs on (plain data)."""

    data_root: str
    threads: int
    compile: Compile
    workers: int
    gpu_share: float
    store: str = ""
    """The URI of the sweep's store, where workers share no disk with the driver."""

    def data_of(self, trial: TrialSpec) -> Path:
        """Where the trial's data are on this node; from the store where there is one."""
        if not self.store:
            return Path(self.data_root)
        fetch_dataset(trial.task, node_cache() / "data", Archive(self.store).at("data"))
        return node_cache() / "data"


@dataclass(frozen=True, slots=True)
class Calibration:
    """A trial's parts in seconds, and what they make together."""

    began: float
    """Wall clock."""
    start_seconds: float
    """From the spec to a model that can take its first step."""
    first_step_seconds: float
    """With compilation, where the trial is compiled."""
    step_seconds: float
    """A mean over the whole training: of curricula, which make later steps dearer, by their FLOPs."""
    steps: float
    validation_seconds: float
    checkpoint_seconds: float
    num_reports: int
    test_seconds: float
    """The whole test split, and the task's predictions."""
    flops: float
    """Of the whole training."""
    checkpoint_bytes: int
    watts: float | None
    """Of the worker's GPUs while they took steps; None where NVML does not count it."""

    def seconds(self, share: float = 1.0, test: bool = False) -> float:
        """Of the trial up to a share of its budget."""
        training = self.first_step_seconds + max(self.steps * share - 1, 0.0) * self.step_seconds
        reports = min(self.num_reports * share, self.steps)
        evaluations = reports * (self.validation_seconds + self.checkpoint_seconds)
        return self.start_seconds + training + evaluations + (self.test_seconds if test else 0.0)


def calibrate(data: dict[str, Any], bench: Bench, test: bool) -> Calibration:
    """Measure a trial; leaves nothing behind. test: its test split is measured too. Raises what its training raises."""
    began = time.time()
    trial = parse_spec(TrialSpec, {**data, "initialize_from": None}, "calibration")
    device = torch.device("cuda", 0) if bench.gpu_share and torch.cuda.is_available() else torch.device("cpu")
    limit_to_share(device, bench.gpu_share)
    with tempfile.TemporaryDirectory(prefix="calibration-") as folder:
        context = LocalContext(
            Path(folder), bench.data_of(trial), device, bench.threads, bench.compile, world_size=bench.workers
        )
        Training(trial, context)  # what a process loads once
        start_seconds, training = _timed(lambda: Training(trial, context))
        first_step_seconds, _ = _timed(training.step)
        energy = GpuEnergy(gpu_names([device]), bench.gpu_share)
        taken = _step_seconds(training)
        joules = energy.joules()
        shape = training.dataset.shape
        mean_flops = training_flops(trial, shape)
        step_seconds = median(taken) * mean_flops / trial.training_flops(shape, 0.0)
        steps = steps_of(trial, mean_flops, scored_tokens(training.dataset)) or trial.budget.amount / step_seconds
        checkpoint_seconds, _ = _timed(lambda: _write(training, Path(folder) / "step-00000000"))
        return Calibration(
            began=began,
            start_seconds=start_seconds,
            first_step_seconds=first_step_seconds,
            step_seconds=step_seconds,
            steps=float(steps),
            validation_seconds=_evaluation_seconds(training, "validation", predictions=False),
            checkpoint_seconds=checkpoint_seconds,
            num_reports=trial.num_reports,
            test_seconds=_evaluation_seconds(training, "test", predictions=True) if test else 0.0,
            flops=mean_flops * trial.batch_size * steps,
            checkpoint_bytes=sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()),
            watts=None if joules is None else joules / sum(taken),
        )


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, result


def _step_seconds(training: Training) -> list[float]:
    taken: list[float] = []
    while len(taken) < LEAST_STEPS or (sum(taken) < STEPS_SECONDS and len(taken) < MOST_STEPS):
        taken.append(_timed(training.step)[0])
    return taken


def _write(training: Training, path: Path) -> None:
    write_checkpoint(path, training.state.save(training.context, {}))


def _evaluation_seconds(training: Training, split: str, predictions: bool) -> float:
    """From one batch, after one that warms up, to all batches of the split and of the predictions for it."""
    trial, context, rows = training.trial, training.context, training.dataset.split(split)
    size = -(-trial.batch_size // context.world_size)
    first = cast(Dataset, _FirstRows(training.dataset, split, size * context.world_size))
    with training.state.with_evaluation_weights():
        for _ in range(2):
            seconds, _ = _timed(lambda: evaluate(training.state.model, first, split, trial, context))
    asked = [len(rows), *(_asked_rows(training, rows) if predictions else [])]
    return seconds * sum(math.ceil(math.ceil(count / context.world_size) / size) for count in asked)


class _FirstRows:
    """A dataset of which an evaluation sees the first rows of a split only."""

    def __init__(self, dataset: Dataset, split: str, count: int) -> None:
        self.manifest, self._rows = dataset.manifest, dataset.split(split)
        self._count = min(count, len(self._rows))

    def split(self, name: str) -> _FirstRows:
        """Itself: there is one split."""
        return self

    def __len__(self) -> int:
        return self._count

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """As the split's."""
        return self._rows.gather(indices)


def _asked_rows(training: Training, rows: Rows) -> list[int]:
    """How many rows the task's predictions ask the model about, by call: counted with answers that cost nothing."""
    asked = _Counting(training)
    training.trial.task.predictions(asked, rows, training.dataset.manifest.vocabulary)
    return asked.counts


class _Counting:
    """A model that is asked (`hrm.tasks.Answer`) and counts rows instead of answering."""

    def __init__(self, training: Training) -> None:
        task, dataset = training.trial.task, training.dataset
        self.tokenizer = task.text_tokenizer(dataset.directory, dataset.manifest.vocabulary)
        self.counts: list[int] = []

    def __call__(self, rows: Mapping[str, np.ndarray]) -> Answers:
        """What stands there."""
        self.counts.append(len(rows["inputs"]))
        return Answers(dict(rows), rows["inputs"], np.zeros(self.counts[-1]), None)

    def continued(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, prefix: Sequence[int] | None = None
    ) -> list[list[int]]:
        """Nothing. A pass of one token costs far less than one of a row, and more than its share of it: sixteen of them
        are taken for a row."""
        self.counts += [len(prompts)] * (1 + max_new_tokens // 16)
        return [[] for _ in prompts]
