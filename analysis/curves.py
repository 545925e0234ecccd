"""Curves of a trial against any axis of its budget, thinned so that a page stays light and no peak is lost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from analysis.records import TrialRecord
from analysis.sweep import Sweep

MAX_POINTS = 1000

AXES = ("steps", "examples", "tokens", "flops", "seconds")


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric of one trial: `x` in units of the axis, ascending; `y` finite."""

    key: str
    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.float64]


def validation_curve(sweep: Sweep, trial: TrialRecord, axis: str, metric: str) -> Curve:
    """A validation metric at each report of the trial, against `axis` (one of AXES)."""
    reports = sweep.reports(trial)
    x = [_position(report.progress, axis) for report in reports]
    y = [report.validation.get(metric, math.nan) for report in reports]
    return _curve(trial.key, x, y)


def thin(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64], limit: int = MAX_POINTS
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """At most `limit` (>= 4) points: the first, the last, and the lowest and highest of each of equal stretches."""
    index = telling(y, limit)
    return x[index], y[index]


def telling(y: npt.NDArray[np.float64], limit: int) -> list[int]:
    """The places of at most `limit` (>= 4) values: the first, the last, the ends of each of equal stretches."""
    if len(y) <= limit:
        return list(range(len(y)))
    kept = {0, len(y) - 1}
    for stretch in np.array_split(np.arange(len(y)), (limit - 2) // 2):
        kept.add(int(stretch[np.argmin(y[stretch])]))
        kept.add(int(stretch[np.argmax(y[stretch])]))
    return sorted(kept)


def _curve(key: str, x: Sequence[float], y: Sequence[float]) -> Curve:
    across, up = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    finite = np.isfinite(up)
    return Curve(key, *thin(across[finite], up[finite]))


def _position(progress: object, axis: str) -> float:
    if axis not in AXES:
        raise ValueError(f"axis: must be one of {', '.join(AXES)}, got {axis!r}")
    return float(getattr(progress, "step" if axis == "steps" else axis))
