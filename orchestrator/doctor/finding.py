"""What every part of the doctor speaks in: a finding, its verdict, and sizes as people read them.

Imports no part of the doctor, so that every part can import it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warn", "fail"]

GIB = 2**30


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, what was seen, and what to do about it."""

    name: str
    value: str
    verdict: Verdict = "ok"
    fix: str = ""
    node: str = ""
    """Of a cluster; empty: this machine."""


def gib(num_bytes: int) -> str:
    """Such as `7.8 GiB`."""
    return f"{num_bytes / GIB:.1f} GiB"
