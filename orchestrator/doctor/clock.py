"""The doctor on the clock: whether somebody keeps it, and how far it is from the driver's.

Trials are timed and leases end by clocks, so that nodes should agree to about a second.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterable

from orchestrator.doctor.finding import Finding

MOST_SKEW_SECONDS = 1.0
_UNSYNCHRONISED = 5
"""TIME_ERROR of adjtimex(2)."""


def examine_clock() -> Iterable[Finding]:
    """Whether the kernel's clock is disciplined by NTP or PTP."""
    yield judge_synchronised(_is_synchronised())


def judge_synchronised(synchronised: bool | None) -> Finding:
    """None: this system does not tell."""
    if synchronised is None:
        return Finding("clock", "this system does not tell whether it is synchronised")
    if not synchronised:
        return Finding("clock", "not synchronised", "warn", "Start an NTP client: chrony, or systemd-timesyncd.")
    return Finding("clock", "synchronised")


def judge_skew(seconds: float, uncertainty: float) -> Finding:
    """A node's clock against the driver's."""
    text = f"{seconds:+.3f} s from the driver's, to {uncertainty:.3f} s"
    if abs(seconds) - uncertainty > MOST_SKEW_SECONDS:
        return Finding("clock skew", text, "warn", "Synchronise the nodes' clocks (chrony, or systemd-timesyncd).")
    return Finding("clock skew", text)


def _is_synchronised() -> bool | None:
    if platform.system() != "Linux":
        return None
    answer = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512))  # a zeroed struct timex: only look
    return None if answer < 0 else answer != _UNSYNCHRONISED
