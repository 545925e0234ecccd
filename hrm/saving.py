"""A trial's checkpoints as its loop sees them: the newest good one to go on from, and one at a time written beside it.

`write` returns at once and a thread of its own hashes, writes and flushes. Whoever needs the checkpoint to be whole
waits for it and gets the error of a write that failed: the next write, the result, a stop, any other end.
"""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from hrm.checkpoint import Checkpoint, checkpoint_path
from hrm.checkpoint_folder import CheckpointFolder
from hrm.context import TrainContext
from hrm.errors import InfrastructureError
from hrm.legs import WHOLE, Leg

logger = logging.getLogger(__name__)
LOG = "log.txt"
"""Of the trial, in its directory."""


def log_of(attempt: int) -> str:
    """The name of an attempt's log in a store."""
    return f"attempts/{attempt}/{LOG}"


def reports_in(found: tuple[Path, Checkpoint] | None) -> int:
    """How many reports a training had given when this checkpoint was written; 0 without one."""
    report = found[1].state["last_report"] if found else None
    return 0 if report is None else int(report["index"])


class TrialCheckpoints:
    """The checkpoints of the trial that `context` is at work on. As a context manager it waits at the end."""

    def __init__(self, context: TrainContext, leg: Leg = WHOLE) -> None:
        self._leg = leg
        self._context, self._directory, self._attempt = context, context.trial_directory, context.attempt
        self._folder = CheckpointFolder(self._directory, context.archive)
        self._writer = ThreadPoolExecutor(1, "checkpoint")
        self._in_flight: Future[None] | None = None
        self.metrics: dict[str, float] = {}
        """`checkpoint_seconds` of the last finished write; empty before it."""

    def newest(self) -> tuple[Path, Checkpoint] | None:
        """The good checkpoint of the largest step, damaged ones are set aside; or the state that the leg takes over.

        Raises InfrastructureError where that cannot be read.
        """
        own = self._folder.newest(self._attempt, self._leg.first_attempt)
        return self._taken_over() if own is None and self._leg.source else own

    def _taken_over(self) -> tuple[Path, Checkpoint]:
        leg, (first, last) = self._leg, self._leg.source_attempts
        found = CheckpointFolder(self._directory.parent / leg.source, self._context.archive).newest(last, first)
        if found is None or reports_in(found) != leg.after_report:
            raise InfrastructureError(f"the state of {leg.source} after its report {leg.after_report} cannot be read")
        return found

    def is_own(self, path: Path) -> bool:
        """False for another trial's checkpoint."""
        return path.is_relative_to(self._directory)

    def name(self, step: int) -> str:
        """Of this attempt's checkpoint at a step, relative to the trial's directory."""
        return str(checkpoint_path(self._directory, self._attempt, step).relative_to(self._directory))

    def read(self, name: str) -> Checkpoint:
        """One of them by its name. Raises DamagedCheckpointError."""
        return self._folder.read(name)

    def write(self, name: str, checkpoint: Checkpoint, best: str | None) -> None:
        """Begin to write it; then all but the newest and the best are removed. Waits for the write before it."""
        self.wait()
        self._in_flight = self._writer.submit(self._write, name, checkpoint, best)

    def wait(self) -> None:
        """Until the checkpoint in flight is whole. Raises what its write raised."""
        if self._in_flight is not None:
            future, self._in_flight = self._in_flight, None
            future.result()

    def wait_together(self) -> None:
        """The same on every worker of the trial, of which the first one writes."""
        self.wait()
        if self._context.world_size > 1:
            self._context.all_reduce(torch.zeros(1, device=self._context.device))

    def _write(self, name: str, checkpoint: Checkpoint, best: str | None) -> None:
        began = time.perf_counter()
        self._folder.write(name, checkpoint)
        leg = self._leg
        kept = self._folder.names(leg.kept_attempt, leg.first_attempt)[-1:] if leg.kept_attempt else []
        self._folder.retain(self._attempt, [*kept, *([best] if best else [])])
        self._folder.publish(LOG, log_of(self._attempt))
        self.metrics = {"checkpoint_seconds": time.perf_counter() - began}

    def _leave(self) -> None:
        """The store gets what the trial wrote beside its checkpoints; this node's copies go."""
        if self._context.rank == 0:
            for path in self._directory.glob("*.arrow"):
                self._folder.publish(path.name, path.name)
        self._folder.forget(written=self._context.rank == 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self.wait()
            self._leave()
        except Exception as failed:
            if kind is not GeneratorExit:
                raise
            logger.warning("the last checkpoint was not written: %s", failed)  # pruned: nobody will miss it
        finally:
            self._writer.shutdown()
