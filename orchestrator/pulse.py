"""The pulse of a sweep: one small Ray actor that hears from every worker how long ago its last step was.

To Ray a process that is frozen, deadlocked or lost in a loop is alive for ever; here it falls silent. Time counts only
while the driver looks, so that a machine that slept does not make its workers look dead.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

NAME = "pulse"
"""The actor's name in the namespace of the sweep's Ray job."""
Told = Literal["", "stop", "leave"]
"""Go on; save, for the sweep stops; save and end the process, for its place is taken away."""
EVERY_SECONDS = 5.0
"""How often a worker tells, and how often the driver looks."""


@dataclass(frozen=True, slots=True)
class Beat:
    """What a worker tells of itself."""

    key: str
    """Its trial."""
    attempt: int
    rank: int
    """-1: the Tune actor of a slot, which waits for the slot's workers."""
    node: str
    pid: int
    idle: float
    """Seconds since its last step; 0 while it waits for the driver."""
    group: str = ""
    """The placement group that it runs in."""


@dataclass(frozen=True, slots=True)
class Silence:
    """A worker as the driver sees it."""

    beat: Beat
    still: float
    """Seconds since it was last heard."""

    @property
    def seconds(self) -> float:
        """Since its last step."""
        return self.beat.idle + self.still


class Pulse:
    """The actor. Of each trial it knows the workers of the newest attempt."""

    def __init__(self) -> None:
        self._heard: dict[str, dict[int, tuple[Beat, float]]] = {}
        self._leaving: set[str] = set()
        self._stopping = False
        self._seconds, self._looked = 0.0, time.monotonic()

    def beat(self, beat: Beat) -> Told:
        """A worker is alive. Answered with what it is to do."""
        workers = self._heard.setdefault(beat.key, {})
        newest = max((known.attempt for known, _ in workers.values()), default=0)
        if beat.attempt < newest:
            return "leave"  # a later attempt has begun: this process was cut off
        if beat.attempt > newest:
            workers.clear()
        workers[beat.rank] = (beat, self._seconds)
        if self._stopping:
            return "stop"
        return "leave" if beat.node in self._leaving else ""

    def look(self, leaving: list[str], stopping: bool, live: list[str]) -> dict[str, list[Silence]]:
        """The workers of the trials in `live`; the others are forgotten. Notes which nodes go, and a stop."""
        now = time.monotonic()
        self._seconds += min(now - self._looked, 2 * EVERY_SECONDS)
        self._looked = now
        self._leaving, self._stopping = set(leaving), stopping
        self._heard = {key: workers for key, workers in self._heard.items() if key in live}
        return {
            key: [Silence(beat, self._seconds - heard) for beat, heard in workers.values()]
            for key, workers in self._heard.items()
        }
