"""A sweep's directory: where things lie, who may write, and how a line is appended so that a kill cannot tear it.

One driver at a time holds the lock, and the lease where machines share the directory. The driver alone writes
`sweep.json`, `trial.json`, `records.jsonl` and the journal; workers write checkpoints and logs under
`trials/KEY/attempts/N/`, or in the same place of a store, which then has copies of the rest.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from analysis.records import SweepRecord, TrialRecord, read_sweep_record, read_trial_record, write_json
from hrm.errors import Problem, SpecError
from hrm.records import Report, read_last_report, read_reports
from hrm.remote import Archive
from orchestrator.copies import Copies, is_behind, rebuild
from orchestrator.lease import Lease, LeaseHeldError, is_held_elsewhere

if TYPE_CHECKING:
    from orchestrator.experiment import Experiment


class SweepStore:
    """The files of one sweep below the storage root: `<storage>/sweeps/<name>`."""

    def __init__(self, storage: Path, name: str, archive: Archive | None = None) -> None:
        """archive: the whole store; None: the one that the sweep was begun with, if it was."""
        self.storage = storage.resolve()
        self.directory = self.storage / "sweeps" / name
        self.journal = self.directory / "journal.log"
        self.root = archive
        """The whole store."""
        self._lock: IO[str] | None = None
        self._lease = Lease(self.directory)
        self._copies: Copies | None = None
        self._listing: list[str] | None = None

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
            self._lease.acquire(alone=_lock_soon(lock))
        except LeaseHeldError as error:
            rule = f"another driver is at work on this sweep ({error})"
            raise SpecError(
                Problem(str(self.directory), rule, "Wait for it, end it with `stop`, or give another --name")
            ) from error
        self._lock = lock
        self.stop_file.unlink(missing_ok=True)
        self._mend_journal()
        self._open_archive()

    def _open_archive(self) -> None:
        """Find the sweep's place in its store, rebuild the directory where it is lost or behind, begin its copies."""
        if self.exists():
            self._find_root(self.read_sweep().store)
        if self.archive is None:
            return
        if not self.exists() or is_behind(self.archive, self.directory):
            rebuild(self.archive, self.directory)
            self._note_root()
        self._copies = Copies(self.archive, self.directory)
        self._copies.begin()

    def _note_root(self) -> None:
        """The copies may have been made when the store was at another address."""
        if self.root is not None and self.exists() and (record := self.read_sweep()).store != self.root.uri:
            self.write_sweep(replace(record, store=self.root.uri))

    def _find_root(self, began: str) -> None:
        """The store that the sweep was begun with. Raises SpecError if another one is given."""
        if self.root is not None and self.root.uri != began:
            rule = f"this sweep keeps its checkpoints in {began or 'its own directory'}, got --store {self.root}"
            raise SpecError(Problem(str(self.directory), rule, "Leave --store as it was, or give another --name"))
        if began and self.root is None:
            self.root = Archive(began)

    @property
    def archive(self) -> Archive | None:
        """The sweep's place in its store."""
        return self.root and self.root.at("sweeps", self.directory.name)

    def check(self) -> None:
        """Before each write of a driver. Raises LeaseLostError where another one has taken the sweep over."""
        self._lease.check()

    def commit(self, key: str = "") -> None:
        """After each event of a trial, or of the sweep: what was written survives the loss of this directory."""
        if self._copies is not None:
            self._copies.commit(key)

    def _mend_journal(self) -> None:
        """Remove what a killed driver left of the journal's own lock, and a line that it did not finish."""
        self.journal.with_name(self.journal.name + ".lock").unlink(missing_ok=True)
        if self.journal.exists():
            with self.journal.open("rb+") as file:
                _cut_torn_line(file)

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lease.release()
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
        return is_held_elsewhere(self.directory)

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
        self.check()
        write_json(self.directory / "sweep.json", record)

    def read_sweep(self) -> SweepRecord:
        """`sweep.json`."""
        return read_sweep_record(self.directory)

    def write_trial(self, record: TrialRecord) -> None:
        """Replace the trial's `trial.json`."""
        self.check()
        directory = self.trial_directory(record.key)
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / "trial.json", record)

    def trials(self) -> dict[str, TrialRecord]:
        """What every `trial.json` says; one that cannot be read is left out."""
        found = {}
        for path in (self.directory / "trials").glob("*/trial.json"):
            with contextlib.suppress(ValueError, TypeError, KeyError, SpecError):
                found[path.parent.name] = read_trial_record(path.parent)
        return found

    def reports(self, key: str) -> list[Report]:
        """The trial's reports so far."""
        return list(read_reports(self.trial_directory(key) / "records.jsonl"))

    def last_report(self, key: str) -> Report | None:
        """The newest of them, without its steps; None if there is none."""
        return read_last_report(self.trial_directory(key) / "records.jsonl")

    def append_report(self, key: str, report: Report) -> None:
        """Add a report, flushed to disk; a line that a kill has torn before is cut off first."""
        self.check()
        path = self.trial_directory(key) / "records.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+") as file:
            _cut_torn_line(file)
            file.write(report.to_json().encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def drop_checkpoints(self, key: str, keep: set[str] | None = None) -> int:
        """Remove a trial's checkpoints but those in `keep` (relative to its directory). Gives the bytes freed here."""
        directory = self.trial_directory(key)
        freed = 0
        for path in sorted((directory / "attempts").glob("*/*step-*")):
            if str(path.relative_to(directory)) not in (keep or set()):
                freed += sum(file.stat().st_size for file in path.glob("*") if file.is_file())
                shutil.rmtree(path, ignore_errors=True)
        if self.archive is not None:
            place = f"trials/{key}"
            stored = self.archive.folders(place) if self._listing is None else self._listing
            for name in stored:
                if name.startswith(f"{place}/attempts/") and name.removeprefix(f"{place}/") not in (keep or set()):
                    self.archive.delete(name)
        return freed

    @contextmanager
    def one_listing(self) -> Generator[None]:
        """While no trial runs, the store is asked once for what it has."""
        self._listing = self.archive.folders("trials") if self.archive is not None else None
        try:
            yield
        finally:
            self._listing = None


def _lock_soon(lock: IO[str]) -> bool:
    """Take the lock, trying for a moment: `status` holds it while it looks. False: another has it."""
    deadline = time.monotonic() + 1.0
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
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


def publish(experiment: Experiment, store: SweepStore) -> None:
    """Send to the store what trials read: the built data, and checkpoints to start from."""
    from hrm.data.dataset import open_dataset  # torch, which `status` does without

    if store.root is None:
        return
    for task in experiment.tasks.values():
        dataset = open_dataset(task, store.data_root)
        store.root.at("data").upload(dataset.directory, dataset.directory.name)
    for start in [arm.template.get("initialize_from") for arm in experiment.arms]:
        if start is not None:
            store.root.at("starts").upload(Path(start["path"]), start["sha256"])
