"""The contract of a tracker. One file here = one tracker: a place that shows a sweep, such as MLflow.

A tracker is a mirror of the sweep's files and never the truth: every call says what the files say now, sends what the
tracker misses, and may be repeated at will, also by another process after a kill.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Self

from analysis.records import SweepRecord, TrialRecord
from hrm.records import Report
from hrm.spec import Spec
from orchestrator.leaders import Leader


class Tracker(Protocol):
    """One sweep's view in a tracker. Used by one thread; every method may raise while the tracker is down."""

    @property
    def ui_command(self) -> str:
        """The one command that opens the tracker's pages, or their address where they are served already."""
        ...

    def sync_sweep(self, record: SweepRecord) -> None:
        """Send what the tracker misses of the sweep itself."""
        ...

    def sync_trial(self, record: TrialRecord, reports: Sequence[Report]) -> None:
        """Send what the tracker misses of a trial; `reports` are all of its reports so far."""
        ...

    def finish(self, record: SweepRecord, artifacts: list[Path]) -> None:
        """Send the files and folders, and close the sweep; a sweep that is not finished is shown as stopped."""
        ...

    def log_best(self, record: SweepRecord, leaders: Sequence[Leader]) -> None:
        """Send the best checkpoints of a finished sweep as models, where the tracker keeps models."""
        ...

    def run_id(self, key: str) -> str:
        """The tracker's own name of a trial, by its key; empty as long as none is known."""
        ...


class TrackerSpec(Spec, ABC):
    """How a sweep is shown."""

    kind: str

    @abstractmethod
    def build(self, sweep_directory: Path, storage: Path | None = None) -> Tracker:
        """The tracker of one sweep. Touches neither disk nor network. `storage` is the storage root, by default the
        folder two above the sweep's."""

    @classmethod
    @abstractmethod
    def smoke(cls) -> Self:
        """The spec that needs nothing but a local disk."""
