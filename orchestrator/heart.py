"""A worker process's signs of life, and how it is told to leave.

The watchdog is a timer in C: where no step comes for too long it writes the stacks of all threads into the trial's log
and ends the process, even if Python itself hangs. A frozen process cannot do that, so a thread tells the sweep's pulse
(`orchestrator.pulse`) how it goes, and the driver ends what has fallen silent. SIGTERM, and the pulse's answer, ask the
trial to save and leave.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import threading
import time
from collections.abc import Generator
from pathlib import Path
from types import FrameType
from typing import IO, Any

from orchestrator.pulse import EVERY_SECONDS, NAME, Beat, Told


class Heart:
    """One per process (`HEART`). The training thread beats; a thread of its own tells the pulse."""

    def __init__(self) -> None:
        self.told: Told = ""
        """Whether the trial is to save and leave: the sweep stops, or this process has to go."""
        self._at_work = False
        self._last = self._armed = 0.0
        self._hang_seconds: float | None = None
        self._log: IO[str] | None = None
        self._subject = ("", 0, 0)
        self._thread: threading.Thread | None = None

    def take(self, key: str, attempt: int, rank: int, hang_seconds: float | None, log: Path) -> None:
        """From now on it beats for this attempt."""
        log.parent.mkdir(parents=True, exist_ok=True)
        if self._log is not None:
            self._log.close()
        self._log = log.open("a")
        self._hang_seconds, self._subject = hang_seconds, (key, attempt, rank)
        self._armed = 0.0
        self.beat()
        if self._thread is None:
            self._thread = threading.Thread(target=self._tell, name="heart", daemon=True)
            self._thread.start()

    def drop(self) -> None:
        """The attempt is over: there is nothing to tell until the next one."""
        self._subject = ("", 0, 0)

    @contextlib.contextmanager
    def at_work(self) -> Generator[None]:
        """Steps are expected; outside of it the process waits for the driver, and may do so for ever."""
        self._at_work = True
        self._armed = 0.0
        self.beat()
        try:
            yield
        finally:
            self._at_work = False
            faulthandler.cancel_dump_traceback_later()

    def beat(self) -> None:
        """A step is done. Winds the watchdog up again, but not at every step: that starts a thread."""
        self._last = now = time.monotonic()
        if not self._at_work or self._hang_seconds is None or self._log is None:
            return
        if now - self._armed > min(1.0, self._hang_seconds / 4):
            self._armed = now
            faulthandler.dump_traceback_later(self._hang_seconds, exit=True, file=self._log)

    def leave_on_sigterm(self) -> None:
        """Handle SIGTERM from now on (main thread only). A process that has no attempt ends as before; one that waits
        for the driver between two reports has one."""
        before = signal.getsignal(signal.SIGTERM)

        def told(number: int, frame: FrameType | None) -> None:
            if self._at_work or self._subject[0]:
                self.told = "leave"
            elif callable(before):
                before(number, frame)
            else:
                raise SystemExit(128 + number)

        signal.signal(signal.SIGTERM, told)

    def _tell(self) -> None:
        import ray

        if not ray.is_initialized():
            return  # not part of a sweep
        here = ray.get_runtime_context()
        node, group = here.get_node_id(), here.get_placement_group_id() or ""
        pulse: Any = None
        while True:
            idle = time.monotonic() - self._last if self._at_work else 0.0
            beat = Beat(*self._subject, node, os.getpid(), idle, group)
            try:
                pulse = pulse or ray.get_actor(NAME)
                if beat.key:
                    self.told = self.told or ray.get(pulse.beat.remote(beat), timeout=4 * EVERY_SECONDS)
            except (ValueError, ray.exceptions.RayError):
                pulse = None  # it died, and the driver makes another; or the driver is gone, and Ray ends this process
            time.sleep(EVERY_SECONDS)


HEART = Heart()
