"""The end of a sweep waits until its trackers know all runs, which its report links to; never for one that is down.

The tracker is a stand-in: how the real one sends is tested with real MLflow.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest
from sweep_fixture import write_sweep

from analysis.records import SweepRecord, TrialRecord
from orchestrator.trackers.mirror import Mirror


class Slow:
    """A tracker that lets nothing through before `open`, or fails always."""

    def __init__(self, *, down: bool = False) -> None:
        self.open, self.down, self.sent = threading.Event(), down, 0
        self.ui_command = ""

    def sync_sweep(self, record: SweepRecord) -> None:
        self.open.wait(10)
        if self.down:
            raise ConnectionError("no answer")

    def sync_trial(self, record: TrialRecord, reports: object) -> None:
        self.sent += 1

    def finish(self, record: SweepRecord, artifacts: list[Path]) -> None: ...

    def log_best(self, record: SweepRecord, leaders: object) -> None: ...

    def run_id(self, key: str) -> str:
        return ""


def test_catching_up_ends_when_everything_was_sent_and_not_before(tmp_path: Path) -> None:
    tracker = Slow()
    mirror = Mirror(tracker, write_sweep(tmp_path / "s", {"hrm": [0.2]}, search={"hrm": 2}))
    assert mirror.catch_up(0.1) is False
    tracker.open.set()
    assert mirror.catch_up(10) is True
    assert tracker.sent == 3
    mirror.changed("text-hrm-replica-0000")
    assert mirror.catch_up(10) is True
    assert tracker.sent == 4
    assert mirror.close(5)


@pytest.mark.filterwarnings("ignore")
def test_a_tracker_that_is_down_is_not_waited_for(tmp_path: Path) -> None:
    tracker = Slow(down=True)
    tracker.open.set()
    mirror = Mirror(tracker, write_sweep(tmp_path / "s", {"hrm": [0.2]}, search={"hrm": 0}))
    began = time.monotonic()
    assert mirror.catch_up(60) is False
    assert time.monotonic() - began < 30
    mirror.close(0)
