"""A sweep's directory: where things lie, who may write, and how a line is appended so that a kill cannot tear it.

One driver at a time holds the lock. The driver alone writes `sweep.json`, `trial.json`, `records.jsonl` and the
journal; workers write checkpoints and logs under `trials/KEY/attempts/N/`.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import time
from pathlib import Path
from typing import IO

from analysis.records import SweepRecord, TrialRecord, read_sweep_record, write_json
from hrm.errors import Problem, SpecError
from hrm.records import Report, read_reports


class SweepStore:
    """The files of one sweep below the storage root: `<storage>/sweeps/<name>`."""

    def __init__(self, storage: Path, name: str) -> None:
        self.storage = storage.resolve()
        self.directory = self.storage / "sweeps" / name
        self.journal = self.directory / "journal.log"
        self._lock: IO[str] | None = None

    @property
    def data_root(self) -> Path:
        """Where built datasets are, shared by all sweeps of the storage."""
        return self.storage / "data"

    def exists(self) -> bool:
        """True if a sweep was started here."""
        return (self.directory / "sweep.json").exists()

    def open(self) -> None:
        """Make the directory and take the lock. Raises SpecError if it cannot be written or another driver has it."""
        try:
            (self.directory / "trials").mkdir(parents=True, exist_ok=True)
            lock = (self.directory / "lock").open("a+")
        except OSError as error:
            rule = f"cannot be written: {error.strerror}"
            raise SpecError(
                Problem(str(self.directory), rule, "Give another --storage, or change its rights")
            ) from error
        try:
            _lock_soon(lock)
        except OSError as error:
            lock.seek(0)
            rule = f"another driver is at work on this sweep ({lock.read().strip() or 'unknown process'})"
            raise SpecError(
                Problem(str(self.directory), rule, "Wait for it, end it with `stop`, or give another --name")
            ) from error
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        self._lock = lock
        self.stop_file.unlink(missing_ok=True)
        self._mend_journal()

    def _mend_journal(self) -> None:
        """Remove what a killed driver left of the journal's own lock, and a line that it did not finish."""
        self.journal.with_name(self.journal.name + ".lock").unlink(missing_ok=True)
        if self.journal.exists():
            with self.journal.open("rb+") as file:
                _cut_torn_line(file)

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def is_locked(self) -> bool:
        """True if a driver is at work on it now."""
        try:
            with (self.directory / "lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return False

    @property
    def stop_file(self) -> Path:
        """While it exists, every trial saves and leaves, and the driver ends."""
        return self.directory / "STOP"

    def request_stop(self) -> None:
        """Ask the driver and the trials to end cleanly."""
        self.stop_file.touch()

    def trial_directory(self, key: str) -> Path:
        """Everything of one trial."""
        return self.directory / "trials" / key

    def write_sweep(self, record: SweepRecord) -> None:
        """Replace `sweep.json`."""
        write_json(self.directory / "sweep.json", record)

    def read_sweep(self) -> SweepRecord:
        """`sweep.json`."""
        return read_sweep_record(self.directory)

    def write_trial(self, record: TrialRecord) -> None:
        """Replace the trial's `trial.json`."""
        directory = self.trial_directory(record.key)
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / "trial.json", record)

    def reports(self, key: str) -> list[Report]:
        """The trial's reports so far."""
        return list(read_reports(self.trial_directory(key) / "records.jsonl"))

    def append_report(self, key: str, report: Report) -> None:
        """Add a report, flushed to disk; a line that a kill has torn before is cut off first."""
        path = self.trial_directory(key) / "records.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            _cut_torn_line(file)
            file.write(report.to_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def drop_checkpoints(self, key: str, keep: set[str] | None = None) -> int:
        """Remove a trial's checkpoints but those in `keep` (relative to its directory). Gives the bytes freed."""
        directory = self.trial_directory(key)
        freed = 0
        for path in sorted((directory / "attempts").glob("*/*step-*")):
            if str(path.relative_to(directory)) not in (keep or set()):
                freed += sum(file.stat().st_size for file in path.glob("*") if file.is_file())
                shutil.rmtree(path, ignore_errors=True)
        return freed


def _lock_soon(lock: IO[str]) -> None:
    """Take the lock, trying for a moment: `status` holds it while it looks whether anybody does."""
    deadline = time.monotonic() + 1.0
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _cut_torn_line(file: IO[bytes]) -> None:
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    whole = file.read().rfind(b"\n") + 1
    file.truncate(whole)
    file.seek(0, os.SEEK_END)
