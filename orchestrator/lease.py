"""Who may write in a sweep's directory, where its machines share it: a lease with a fencing token.

The holder's file `lease-TOKEN.json` is renewed by a thread. A driver on another machine takes over by creating the file
of the next token, which exactly one can, and only after it has seen no renewal for the lease time by its own clock: no
two clocks are compared. A holder looks for a newer token before each commit; one that has lost writes nothing more.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import socket
import threading
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from hrm.errors import InfrastructureError

LEASE_SECONDS = 30.0
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Goes on while the machine sleeps."""
logger = logging.getLogger(__name__)


class LeaseLostError(InfrastructureError):
    """Another driver has taken the sweep over."""


class LeaseHeldError(Exception):
    """Another driver is at work; the message names it."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Two processes with equal machines see each other's file locks."""

    host: str
    boot: str

    @classmethod
    def this(cls) -> Machine:
        """The one that this process runs on."""
        try:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            boot = socket.gethostname()
        return cls(socket.gethostname(), boot)


@dataclass(frozen=True, slots=True)
class Holder:
    """What a lease's file says."""

    token: int
    host: str
    boot: str
    pid: int
    beat: int = 0
    """Grows with every renewal."""
    released: bool = False

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Lease:
    """This process's right to write in `directory`, once `acquire` has returned."""

    def __init__(self, directory: Path, machine: Machine | None = None, seconds: float = LEASE_SECONDS) -> None:
        self._directory, self._machine, self._seconds = directory, machine or Machine.this(), seconds
        self._own: Holder | None = None
        self._lost = False
        self._renewed = 0.0
        self._writing = threading.Lock()
        self._ended = threading.Event()

    @property
    def token(self) -> int:
        """Grows with every driver of the sweep."""
        return self._own.token if self._own else 0

    def acquire(self, alone: bool) -> None:
        """Take the lease. alone: this machine's file lock is ours, so that no other process here can hold the lease.

        Raises LeaseHeldError; where another machine holds it, after up to the lease time.
        """
        before = newest(self._directory)
        if before is not None and not self._is_free(before, alone):
            raise LeaseHeldError(str(before))
        own = Holder(before.token + 1 if before else 1, self._machine.host, self._machine.boot, os.getpid())
        self._write(own, new=True)
        self._own, self._renewed = own, time.clock_gettime(_CLOCK)
        if before is not None and _read(self._path(before.token)) != before:  # it was renewed at the last moment
            self.release()
            raise LeaseHeldError(str(before))
        for token in range(own.token - 1, 0, -1):
            if not _unlinked(self._path(token)):
                break
        threading.Thread(target=self._keep, name="lease", daemon=True).start()

    def check(self) -> None:
        """Before each commit. Raises LeaseLostError if another driver has the sweep now, OSError if none can tell."""
        if self._own is None:
            return
        if time.clock_gettime(_CLOCK) - self._renewed > self._seconds / 2:  # stopped, asleep, or cut off for a while
            self._renew()
        if self._lost or self._path(self._own.token + 1).exists():
            self._lost = True
            raise LeaseLostError(
                f"another driver ({newest(self._directory)}) has taken over {self._directory} while this one was not "
                "heard of; this one ends and writes nothing more"
            )

    def release(self) -> None:
        """Another driver may begin at once."""
        self._ended.set()
        if self._own is not None and not self._lost:
            with self._writing, contextlib.suppress(OSError):
                self._write(replace(self._own, released=True))
        self._own = None

    def _is_free(self, holder: Holder, alone: bool) -> bool:
        if holder.released:
            return True
        if holder.boot == self._machine.boot:
            return alone
        deadline = time.monotonic() + self._seconds
        while time.monotonic() < deadline:
            time.sleep(self._seconds / 30)
            now = newest(self._directory)
            if now is None or now.released:
                return now is not None and now.token == holder.token
            if now != holder:
                return False
        return True

    def _keep(self) -> None:
        while not self._ended.wait(self._seconds / 6):
            try:
                self._renew()
            except FileNotFoundError:
                return  # the directory was removed
            except OSError as error:
                logger.warning("the lease could not be renewed: %s", error)
            if self._lost:
                return

    def _renew(self) -> None:
        with self._writing:
            if self._own is None or self._ended.is_set():
                return
            self._own = replace(self._own, beat=self._own.beat + 1)
            self._write(self._own)
            self._renewed = time.clock_gettime(_CLOCK)
            last = newest(self._directory)
            self._lost = last is not None and last.token > self._own.token

    def _write(self, holder: Holder, new: bool = False) -> None:
        """Whole or not at all. With `new` raises LeaseHeldError if there is one of this token."""
        path = self._path(holder.token)
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        temporary.write_text(json.dumps(asdict(holder)))
        if not new:
            temporary.replace(path)
            return
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise LeaseHeldError(str(_read(path))) from None
        finally:
            temporary.unlink()

    def _path(self, token: int) -> Path:
        return self._directory / f"lease-{token:08d}.json"


def newest(directory: Path) -> Holder | None:
    """The last holder of a directory's lease; None if it never had one."""
    names = sorted(name for name in os.listdir(directory) if name.startswith("lease-")) if directory.exists() else []
    return _read(directory / names[-1]) if names else None


def is_held_elsewhere(directory: Path) -> bool:
    """For a person who looks: whether a driver on another machine has renewed the lease lately, by the file's time."""
    holder = newest(directory)
    if holder is None or holder.released or holder.boot == Machine.this().boot:
        return False
    written = (directory / f"lease-{holder.token:08d}.json").stat().st_mtime
    return time.time() - written < 2 * LEASE_SECONDS


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None


def _unlinked(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:
        return False
    return True
