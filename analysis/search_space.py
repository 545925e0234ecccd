"""Where a search looked: every searched parameter as an axis from 0 to 1, so that its trials are points of a cube.

Ranges come from the experiment as the sweep recorded it; of a sweep that did not record them, from its trials.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.records import SweepRecord, TrialRecord

Array = npt.NDArray[np.float64]

_LOG_FROM = 10.0
"""Values of a recordless space that span such a factor lie on a logarithmic axis."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A searched parameter: a range, or choices."""

    path: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    whole: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def named(self) -> bool:
        """True where the values have no order: choices that are not all numbers."""
        return bool(self.choices) and not all(map(_is_number, self.choices))

    @property
    def num_values(self) -> int | None:
        """How many values there are; None for a continuous range."""
        if self.choices:
            return len(self.choices)
        return int(self.high - self.low) + 1 if self.whole else None

    def place(self, value: Any) -> float | None:
        """Where a value lies: 0 to 1, the number of a named choice; None where it is outside."""
        if self.choices:
            found = [i for i, choice in enumerate(self.choices) if choice == value and _alike(choice, value)]
            return None if not found else float(found[0]) if self.named else found[0] / max(1, len(self.choices) - 1)
        if not _is_number(value) or not self.low <= value <= self.high:
            return None
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return float((value - self.low) / (self.high - self.low))

    def grid(self, points: int = 25) -> tuple[list[Any], Array]:
        """Values over the whole axis, and where they lie."""
        if self.choices:
            values: list[Any] = list(self.choices)
        elif self.whole and (self.num_values or 0) <= points:
            values = list(range(int(self.low), int(self.high) + 1))
        elif self.log:
            values = [float(value) for value in np.geomspace(self.low, self.high, points)]
        else:
            values = [float(value) for value in np.linspace(self.low, self.high, points)]
        places = [self.place(min(max(v, self.low), self.high) if not self.choices else v) for v in values]
        return values, np.array(places, dtype=np.float64)


def space_of(record: SweepRecord, arm: str, trials: Sequence[TrialRecord]) -> list[Axis]:
    """The axes of an arm's search along which more than one value was possible."""
    asked = record.experiment
    said = {**(asked.get("space") or {}), **((asked.get("arms") or {}).get(arm, {}).get("space") or {})}
    tried: dict[str, list[Any]] = {}
    for trial in trials:
        for path, value in trial.parameters.items():
            tried.setdefault(path, []).append(value)
    axes = [_axis(path, said[path]) if path in said else _seen(path, values) for path, values in tried.items()]
    return [axis for axis in axes if axis is not None]


def points_of(axes: Sequence[Axis], trials: Sequence[TrialRecord]) -> tuple[list[TrialRecord], Array]:
    """The trials that lie in the space, and their points, [n, axes]. A space may have moved since a trial was asked."""
    kept, points = [], []
    for trial in trials:
        places = [axis.place(trial.parameters.get(axis.path)) for axis in axes]
        known = [place for place in places if place is not None]
        if len(known) == len(axes):
            kept.append(trial)
            points.append(known)
    return kept, np.array(points, dtype=np.float64).reshape(len(kept), len(axes))


def _axis(path: str, said: Mapping[str, Any]) -> Axis | None:
    if said.get("choices") is not None:
        choices = tuple(said["choices"])
        return Axis(path, choices=tuple(sorted(choices)) if all(map(_is_number, choices)) else choices) \
            if len(choices) > 1 else None  # fmt: skip
    low, high = said["low"], said["high"]
    whole = isinstance(low, int) and isinstance(high, int) and not isinstance(said.get("step"), float)
    return Axis(path, low, high, bool(said.get("log")), whole) if low < high else None


def _seen(path: str, values: Sequence[Any]) -> Axis | None:
    """An axis by the values that trials had."""
    if all(map(_is_number, values)) and len(set(values)) > 1:
        low, high = min(values), max(values)
        whole = all(isinstance(value, int) for value in values)
        return Axis(path, low, high, low > 0 and high >= _LOG_FROM * low, whole)
    choices = tuple(dict.fromkeys(value for value in values if isinstance(value, (str, bool, int, float, type(None)))))
    return Axis(path, choices=choices) if len(choices) > 1 else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _alike(one: Any, other: Any) -> bool:
    return isinstance(one, bool) == isinstance(other, bool)
