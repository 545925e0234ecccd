"""A finding, and the words that findings share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.numbers import listing

Level = Literal["problem", "notice", "fine"]
LEVELS: tuple[Level, ...] = ("problem", "notice", "fine")


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence or two about the weights."""

    level: Level
    """`problem`: something is broken; `notice`: a reader would want to know; `fine`: looked at and in order."""
    subject: str
    text: str
    checkpoint: str = ""
    """Its label; empty for what is about all of them."""


def count_of(number: int, one: str, several: str = "") -> str:
    """`1 matrix`, `4 matrices`."""
    return f"{number:,} {one if number == 1 else several or one + 's'}"


def share(part: int, whole: int) -> str:
    """`94.5 %`: one decimal, and never rounded to all or nothing."""
    exact = 100.0 * part / max(1, whole)
    if 0 < part < whole and not 0.05 <= exact < 99.95:
        return "< 0.1 %" if exact < 50.0 else "> 99.9 %"
    return f"{exact:.1f} %"


def megabytes(number: float) -> str:
    """`55.98 MB`, of a million bytes each."""
    return f"{number / 1e6:.2f} MB"


def few(names: Sequence[str], shown: int = 4) -> str:
    """The first of them, and how many more."""
    if len(names) <= shown:
        return listing(list(names))
    return f"{', '.join(names[:shown])} and {len(names) - shown} more"
