"""The health of checkpoints from their weights alone, in numbers; what it means in sentences is in `findings`.

Weights say whether a checkpoint is intact, what is in it and how far it moved. Whether a training has converged, or
which checkpoint is best, they cannot say.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis.checkpoints.change import Course, course
from analysis.checkpoints.findings import findings
from analysis.checkpoints.rows import TableUse, table_use
from analysis.checkpoints.tensors import (
    BUFFERS,
    EVERYTHING,
    PARAMETERS,
    Group,
    TensorHealth,
    group,
    measure,
    pieces,
)
from analysis.checkpoints.weights import Weights, labelled
from analysis.checkpoints.wording import Finding

_TABLES = ("puzzle table", "token embedding", "positions")


@dataclass(frozen=True, slots=True)
class CheckpointHealth:
    """One checkpoint, by the weights that evaluations use."""

    label: str
    path: str
    training: str
    step: int | None
    format: str
    model: str | None
    """The model's kind, where the checkpoint says it."""
    halting: str | None
    """The rule, where the checkpoint says it."""
    averaged: bool
    bytes: int
    """Of the file of the weights."""
    parameters: int
    """All values, buffers too."""
    dtypes: dict[str, int]
    """How many tensors there are of each float type."""
    imported_dtypes: dict[str, int]
    """Of the file that an imported checkpoint was made of."""
    distance_to_raw: float | None
    """||average - raw|| / ||raw|| over the averaged tensors; None without an average."""
    raw_not_finite: int
    """Values of the weights as trained that are not finite, where evaluations use an average."""
    groups: list[Group]
    """Everything, the parameters, the buffers, then each component."""
    tables: list[TableUse]
    tensors: list[TensorHealth]

    def group(self, name: str) -> Group | None:
        """Of everything, of the parameters, of the buffers, or of a component; None where it has no such tensor."""
        return next((group for group in self.groups if group.name == name), None)


@dataclass(frozen=True, slots=True)
class Health:
    """All that the weights show."""

    checkpoints: list[CheckpointHealth]
    """By training, then by step."""
    courses: list[Course]
    """One for each training of which there are several checkpoints."""
    findings: list[Finding]


def examine(found: Sequence[Weights]) -> Health:
    """The health of these checkpoints, each tensor read on its own."""
    ordered = labelled(list(found))
    checkpoints = [_examine(weights) for weights in ordered]
    courses = []
    for training in dict.fromkeys(weights.training for weights in ordered):
        mine = [number for number, weights in enumerate(ordered) if weights.training == training]
        if len(mine) > 1:
            courses.append(course([ordered[i] for i in mine], [checkpoints[i].groups for i in mine]))
    return Health(checkpoints, courses, findings(checkpoints, courses))


def _examine(weights: Weights) -> CheckpointHealth:
    tensors = [measure(name, weights.read(name)) for name in weights.names]
    distance, not_finite = _raw(weights)
    model: dict[str, Any] = weights.manifest.get("spec", {}).get("model", {})
    dtypes = [tensor.dtype for tensor in tensors]
    return CheckpointHealth(
        label=weights.label,
        path=weights.path,
        training=weights.training,
        step=weights.step,
        format=weights.format,
        model=model.get("kind"),
        halting=(model.get("halting") or {}).get("rule"),
        averaged=weights.raw is not None,
        bytes=weights.bytes,
        parameters=sum(tensor.parameters for tensor in tensors),
        dtypes={name: dtypes.count(name) for name in sorted(set(dtypes))},
        imported_dtypes=(weights.manifest.get("lineage") or {}).get("dtypes", {}),
        distance_to_raw=distance,
        raw_not_finite=not_finite,
        groups=_groups(tensors),
        tables=[_table(weights, tensor) for tensor in tensors if tensor.component in _TABLES and tensor.rows],
        tensors=tensors,
    )


def _groups(tensors: Sequence[TensorHealth]) -> list[Group]:
    every = sum(tensor.parameters for tensor in tensors)
    members = {
        EVERYTHING: list(tensors),
        PARAMETERS: [tensor for tensor in tensors if not tensor.buffer],
        BUFFERS: [tensor for tensor in tensors if tensor.buffer],
    }
    for tensor in tensors:
        members.setdefault(tensor.component, []).append(tensor)
    return [group(name, mine, every) for name, mine in members.items() if mine]


def _table(weights: Weights, tensor: TensorHealth) -> TableUse:
    squares = weights.squares.get(tensor.name)
    return table_use(
        tensor.name, tensor.component, weights.read(tensor.name), squares(tensor.name) if squares else None
    )


def _raw(weights: Weights) -> tuple[float | None, int]:
    """How far the average is from the weights as trained, and how many of these are not finite."""
    if weights.raw is None:
        return None, 0
    apart = size = 0.0
    not_finite = 0
    for name in weights.names:
        for average, raw in zip(pieces(weights.read(name)), pieces(weights.raw(name)), strict=True):
            finite = raw.isfinite() & average.isfinite()
            not_finite += int((~raw.isfinite()).sum())
            apart += float((average - raw)[finite].square().sum())
            size += float(raw[finite].square().sum())
    return (math.sqrt(apart / size) if size else None), not_finite
