"""What a trial is given to run on; none of it changes the numbers beyond the last bit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from hrm.context import Compile
from hrm.errors import Problem, SpecError
from hrm.spec import Spec


class ResourceSpec(Spec):
    """Workers, CPUs and GPUs per trial, and how trials are launched."""

    launcher: Literal["auto", "in_process", "ray_train"] = "auto"
    """`in_process`: in the reused trial process (one CPU worker). `ray_train`: on Ray Train workers in a warm slot that
    trials share. `auto`: the first where it suffices, else the second."""
    isolation: Literal["shared", "process"] = "shared"
    """`process`: a fresh slot (or process) for each trial; slower to start, nothing shared."""
    workers_per_trial: int = Field(1, ge=1)
    cpus_per_worker: int = Field(1, ge=1)
    """Also the number of threads of each worker."""
    gpus_per_worker: float = Field(0.0, ge=0.0)
    compile: Compile = "auto"
    """torch.compile of the blocks; `auto`: where a trial is long enough for it to pay, and a compiler works."""
    max_concurrent_trials: int | None = Field(None, ge=1)
    """At most this many at once; null for as many as fit."""
    max_attempts: int = Field(5, ge=1)
    """Starts of a trial, over failures of the cluster."""

    @property
    def resolved_launcher(self) -> Literal["in_process", "ray_train"]:
        """What `auto` becomes."""
        if self.launcher != "auto":
            return self.launcher
        return "in_process" if self.workers_per_trial == 1 and not self.gpus_per_worker else "ray_train"

    def concurrency(self, nodes: Sequence[tuple[float, float]]) -> int:
        """How many trials fit on nodes of (CPUs, GPUs). Raises SpecError, with the numbers, where not even one does."""
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
        """How many workers one node takes: a worker does not span nodes."""
        fits = int(cpus // self.cpus_per_worker)
        return min(fits, int(gpus / self.gpus_per_worker + 1e-9)) if self.gpus_per_worker else fits
