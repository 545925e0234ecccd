"""What a training needs from the place where it runs: a protocol, and the plainest place, this process.

The loop (`hrm.train`) is the same in this process, in a reused trial process and on Ray Train workers; only the
context differs. Collectives are over the workers of one trial.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor

from hrm.remote import Archive

Compile = Literal["auto", "always", "never"]


class TrainContext(Protocol):
    """One worker's view of its surroundings."""

    @property
    def rank(self) -> int: ...

    @property
    def world_size(self) -> int: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def threads(self) -> int:
        """Threads for this worker's computation: the CPUs that it was given."""

    @property
    def compile(self) -> Compile:
        """Whether blocks are compiled; `auto`: where the training is long enough for it to pay."""

    @property
    def attempt(self) -> int:
        """From 1; each start of a trial has its own, so that the remains of an earlier one cannot interfere."""

    @property
    def trial_directory(self) -> Path:
        """Where `attempts/N/` are, readable by every worker."""

    @property
    def data_root(self) -> Path:
        """Where built datasets are."""

    @property
    def archive(self) -> Archive | None:
        """Where checkpoints go besides, trial by trial: then `trial_directory` is this node's cache alone."""

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum over workers, in place."""

    def all_gather(self, tensor: Tensor) -> Tensor:
        """The workers' tensors, one after another along the first dimension."""

    def should_stop(self) -> bool:
        """True when the trial has to save and leave; every worker gets the same answer."""

    def beat(self) -> None:
        """A sign of life: a step or an evaluation's batch is done. What gives none for too long is taken for hung."""

    def system_metrics(self) -> dict[str, float]:
        """This worker's node now: cpu_percent, memory, GPU figures where there are any. All workers ask together."""


@dataclass
class LocalContext:
    """One worker: this process."""

    trial_directory: Path
    data_root: Path
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    threads: int = 1
    compile: Compile = "auto"
    attempt: int = 1
    rank: int = 0
    world_size: int = 1
    archive: Archive | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def all_reduce(self, tensor: Tensor) -> Tensor:
        return tensor

    def all_gather(self, tensor: Tensor) -> Tensor:
        return tensor

    def should_stop(self) -> bool:
        return self.stop.is_set()

    def beat(self) -> None:
        pass

    def system_metrics(self) -> dict[str, float]:
        return {}
