"""What a trial is given to run on; none of it changes the numbers beyond the last bit.

`auto` counts become numbers once, against the nodes of the cluster (`resolved`), before anything is launched.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field, field_validator, model_validator

from hrm.context import Compile
from hrm.errors import Problem, SpecError
from hrm.spec import Spec

Nodes = Sequence[tuple[float, float]]
"""CPUs and GPUs of each node."""
Launcher = Literal["in_process", "ray_train"]


class ResourceSpec(Spec):
    """Workers, CPUs and GPUs per trial, and how trials are launched."""

    launcher: Literal["auto", "in_process", "ray_train"] = "auto"
    """`in_process`: in the reused trial process (one CPU worker). `ray_train`: on Ray Train workers in a warm slot that
    trials share. `auto`: the first where it suffices, else the second."""
    isolation: Literal["shared", "process"] = "shared"
    """`process`: a fresh slot (or process) for each trial; slower to start, nothing shared."""
    workers_per_trial: int = Field(1, ge=1)
    cpus_per_worker: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Also the number of threads of each worker. `auto`: 1; of a worker with GPUs their share of the node's CPUs."""
    gpus_per_worker: Annotated[float, Field(ge=0.0)] | Literal["auto"] = "auto"
    """Below 1 several workers share a GPU, each limited to its share of the memory. `auto`: 1 where the cluster has
    GPUs, else 0."""
    compile: Compile = "auto"
    """torch.compile of the blocks; `auto`: where a trial is long enough for it to pay, and a compiler works."""
    max_concurrent_trials: int | None = Field(None, ge=1)
    """At most this many at once; null for as many as fit."""
    max_attempts: int = Field(5, ge=1)
    """Starts of a trial, over failures of the cluster."""
    hang_seconds: float | None = Field(1800.0, gt=0.0)
    """A worker without a step for so long is ended, with its stacks in the trial's log; null for never."""

    @field_validator("gpus_per_worker")
    @classmethod
    def _one_share_or_whole_gpus(cls, value: float | str) -> float | str:
        if isinstance(value, float) and value > 1 and not value.is_integer():
            raise ValueError(f"must be a share of one GPU or a whole number, got {value:g}; Round it")
        return value

    @model_validator(mode="after")
    def _in_process_is_one_cpu_worker(self) -> ResourceSpec:
        if self.launcher == "in_process" and (self.workers_per_trial > 1 or self.gpus_per_worker not in ("auto", 0.0)):
            asked = f"{self.workers_per_trial} worker(s) of {self.gpus_per_worker} GPUs"
            raise ValueError(f"launcher in_process runs one worker on CPUs, got {asked}; Set launcher to ray_train")
        return self

    def resolved(self, nodes: Nodes) -> Resources:
        """In numbers, for a cluster of these nodes."""
        gpus = self.gpus_per_worker
        if gpus == "auto":
            gpus = 1.0 if self.launcher != "in_process" and any(on_node >= 1 for _, on_node in nodes) else 0.0
        cpus = self.cpus_per_worker
        if cpus == "auto":
            shares = [cpus_on / gpus_on * gpus for cpus_on, gpus_on in nodes if gpus and gpus_on >= gpus]
            cpus = max(1, int(min(shares, default=1) + 1e-9))
        return Resources(**{**self.model_dump(), "cpus_per_worker": cpus, "gpus_per_worker": gpus})

    def concurrency(self, nodes: Nodes) -> int:
        """How many trials fit on the nodes. Raises SpecError, with the numbers, where not even one does."""
        return self.resolved(nodes).concurrency(nodes)


class Resources(ResourceSpec):
    """With every count a number."""

    cpus_per_worker: int
    gpus_per_worker: float

    @property
    def resolved_launcher(self) -> Launcher:
        """What `auto` becomes."""
        if self.launcher != "auto":
            return self.launcher
        return "in_process" if self.workers_per_trial == 1 and not self.gpus_per_worker else "ray_train"

    def concurrency(self, nodes: Nodes) -> int:
        """As ResourceSpec's; nodes may have come and gone since the counts became numbers."""
        workers = sum(self._workers_on(cpus, gpus) for cpus, gpus in nodes)
        fits = workers // self.workers_per_trial
        if fits < 1:
            has = ", ".join(f"{cpus:g} CPUs and {gpus:g} GPUs" for cpus, gpus in nodes)
            raise SpecError(
                Problem(
                    "resources",
                    f"a trial needs {self.workers_per_trial} worker(s) of {self.cpus_per_worker} CPUs and "
                    f"{self.gpus_per_worker:g} GPUs, the cluster's nodes have {has}",
                    "Lower workers_per_trial, cpus_per_worker or gpus_per_worker, or give a larger cluster's --address",
                )
            )
        return min(fits, self.max_concurrent_trials or fits)

    def _workers_on(self, cpus: float, gpus: float) -> int:
        """How many workers one node takes: a worker does not span nodes, nor a share of a GPU two of them."""
        fits, share = int(cpus // self.cpus_per_worker), self.gpus_per_worker
        if not share:
            return fits
        if share >= 1:
            return min(fits, int(gpus // share))
        return min(fits, int(gpus) * int(1 / share + 1e-9) + int(gpus % 1 / share + 1e-9))


def this_machine() -> Nodes:
    """The CPUs and the GPUs that this process may use, as a cluster of one node."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return [(float(cores), float(torch.cuda.device_count() if torch.cuda.is_available() else 0))]
