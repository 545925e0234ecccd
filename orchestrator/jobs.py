"""What the driver gives a worker to do; without anything of the driver, so that a worker imports next to nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt at one trial, as the trial process gets it (all plain data)."""

    key: str
    spec: dict[str, Any]
    attempt: int
    known_reports: int
    test: bool
    leg: dict[str, Any] = field(default_factory=dict)
    """hrm.legs.Leg as a dict: the part of the training that it is."""
