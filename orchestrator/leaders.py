"""The best checkpoint of a finished sweep on each task: the leading arm's, as the report names it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from analysis.report import Report
    from orchestrator.store import SweepStore


@dataclass(frozen=True, slots=True)
class Leader:
    """Which it is, and where what it needs lies here."""

    task: str
    arm: str
    trial: str
    """The key."""
    checkpoint: Path
    data_root: Path


def leaders_of(report: Report, store: SweepStore) -> list[Leader]:
    """One for each task on which an arm leads; none of a sweep that has not finished."""
    from orchestrator.fetched import checkpoint_folder

    leading = {(answer.task, answer.best_arm) for answer in report.answers} if report.finished else set()
    return [
        Leader(
            arm.task,
            arm.name,
            arm.best_trial,
            checkpoint_folder(arm.best_checkpoint if store.root else str(store.directory / arm.best_checkpoint)),
            store.data_root,
        )
        for arm in report.arms
        if (arm.task, arm.name) in leading and arm.best_checkpoint
    ]
