"""Keeps a tracker equal to the sweep's files, in one background thread, whatever the tracker does.

The driver says what changed and goes on; the thread reads the files and sends. What fails is kept and tried again, and
a new mirror starts with everything, so that neither an outage nor a kill leaves a gap.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from analysis.records import read_sweep_record, read_trial_record
from hrm.records import read_reports
from orchestrator.leaders import Leader
from orchestrator.trackers import Tracker

_log = logging.getLogger(__name__)

_SWEEP = "sweep.json"
_FINISH = "finish"
_BEST = "best"
_TRIAL = "trials/"
_FIRST_PAUSE_SECONDS = 1.0
_FAILURES_TO_GIVE_UP = 2
"""In a row while closing: one may be a single trial's own trouble, two mean that the tracker is down."""


class Mirror:
    """One tracker, one sweep directory, one daemon thread.

    `failures` counts the calls that failed and `last_error` keeps the latest, for the sweep's summary.
    """

    def __init__(
        self, tracker: Tracker, directory: Path, interval_seconds: float = 1.0, longest_pause_seconds: float = 30.0
    ) -> None:
        """Starts the thread with everything that the directory holds.

        Changes within `interval_seconds` are sent together; in an outage the pause grows to `longest_pause_seconds`.
        """
        self.failures = 0
        self.last_error = ""
        self._tracker = tracker
        self._directory = directory
        self._interval_seconds = interval_seconds
        self._longest_pause_seconds = longest_pause_seconds
        self._wake = threading.Condition()
        self._dirty = dict.fromkeys(self._everything())
        self._artifacts: list[Path] = []
        self._leaders: list[Leader] = []
        self._not_before = 0.0
        self._failures_in_outage = 0
        self._failures_in_a_row = 0
        self._closing = False
        self._gave_up = False
        self._is_even = not self._dirty
        """Nothing is left to send, and nothing is being sent."""
        self._thread = threading.Thread(target=self._run, name="tracker mirror", daemon=True)
        self._thread.start()

    def changed(self, key: str) -> None:
        """The trial's files changed. Never blocks, never raises."""
        self._mark(_TRIAL + key)

    def changed_sweep(self) -> None:
        """`sweep.json` changed. Never blocks, never raises."""
        self._mark(_SWEEP)

    def finish(self, artifacts: list[Path], leaders: Sequence[Leader] = ()) -> None:
        """Close the sweep in the tracker, after all that changed before, with these files and folders.

        leaders: what becomes a model in the tracker, last of all.
        """
        with self._wake:
            self._artifacts, self._leaders = list(artifacts), list(leaders)
        self._mark(_FINISH)
        if leaders:
            self._mark(_BEST)

    def catch_up(self, timeout_seconds: float) -> bool:
        """Wait until the tracker has everything so far. True when it has; early when it is down."""
        with self._wake:
            self._wake.wait_for(lambda: self._is_even or self._failures_in_outage > 0, timeout_seconds)
            return self._is_even

    def close(self, timeout_seconds: float) -> bool:
        """Send what is left and end the thread. True when the tracker has everything.

        Returns early when the tracker is down: the next mirror of this directory sends what is missing.
        """
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout_seconds)
        with self._wake:
            self._gave_up = True
            return not self._thread.is_alive() and not self._dirty

    def _everything(self) -> list[str]:
        trials = sorted(path.parent.name for path in self._directory.glob("trials/*/trial.json"))
        sweep = [_SWEEP] if (self._directory / "sweep.json").exists() else []
        return sweep + [_TRIAL + key for key in trials]

    def _mark(self, item: str) -> None:
        with self._wake:
            self._dirty.setdefault(item)
            self._is_even = False
            self._wake.notify_all()

    def _run(self) -> None:
        while self._wait_for_work():
            self._round()

    def _wait_for_work(self) -> bool:
        """Sleep until something is dirty and its time has come. False: the thread's work is over."""
        with self._wake:
            while not self._closing:
                pause = self._not_before - time.monotonic()
                if self._dirty and pause <= 0:
                    return True
                self._wake.wait(pause if self._dirty else None)
            return bool(self._dirty) and not self._gave_up

    def _round(self) -> None:
        """Send every dirty item; the first failure ends the round and goes to the end of the queue."""
        with self._wake:
            batch, self._dirty = list(self._dirty), {}  # before the files are read: a change from now on counts anew
        for position, item in enumerate(batch):
            try:
                self._send(item)
            except Exception as error:  # any error of a tracker is the tracker's: a sweep never fails for it
                self._failed(item, error, rest=batch[position + 1 :])
                return
            self._failures_in_a_row = 0
            if self._gave_up:
                self._requeue(batch[position + 1 :])
                return
        self._all_sent()

    def _send(self, item: str) -> None:
        if item == _SWEEP:
            self._tracker.sync_sweep(read_sweep_record(self._directory))
        elif item == _FINISH:
            self._tracker.finish(read_sweep_record(self._directory), self._artifacts)
        elif item == _BEST:
            self._tracker.log_best(read_sweep_record(self._directory), self._leaders)
        elif (self._directory / item / "trial.json").exists():
            record = read_trial_record(self._directory / item)
            self._tracker.sync_trial(record, list(read_reports(self._directory / item / "records.jsonl")))

    def _failed(self, item: str, error: Exception, rest: list[str]) -> None:
        self.failures += 1
        self.last_error = f"{item}: {type(error).__name__}: {error}"
        self._failures_in_a_row += 1
        if not self._failures_in_outage:
            _log.warning("The tracker cannot be written; the sweep goes on and it is tried again. %s", self.last_error)
        self._requeue(rest)
        self._mark(item)
        with self._wake:
            # Grows until everything was sent, not until something was: one trial that always fails must not busy us.
            pause = _FIRST_PAUSE_SECONDS * 2.0 ** min(self._failures_in_outage, 10)
            self._not_before = time.monotonic() + min(pause, self._longest_pause_seconds)
            self._failures_in_outage += 1
            self._gave_up |= self._closing and self._failures_in_a_row >= _FAILURES_TO_GIVE_UP
            self._wake.notify_all()

    def _requeue(self, items: list[str]) -> None:
        with self._wake:
            self._dirty = dict.fromkeys([*items, *self._dirty])
            self._wake.notify_all()

    def _all_sent(self) -> None:
        if self._failures_in_outage:
            _log.warning("The tracker is back and has everything.")
        with self._wake:
            self._failures_in_outage = 0
            self._is_even = not self._dirty
            self._wake.notify_all()
        self._not_before = time.monotonic() + self._interval_seconds
