"""What changes over the checkpoints of one training: first to last for every number, and how far the weights moved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from analysis.checkpoints.rows import row_pieces
from analysis.checkpoints.tensors import Group, Weighting, pieces, value_of
from analysis.checkpoints.weights import Weights, is_buffer
from hrm.loading import part_of

_NUMBERS = ("mean", "mean_absolute", "std", "sparsity")
_TURNED = 1e-6
"""1 - cosine above which a row has turned: rounding to half precision alone stays below."""


@dataclass(frozen=True, slots=True)
class Change:
    """One number of a group of tensors in the first checkpoint and in the last."""

    group: str
    number: str
    weighting: str
    """`tensor`, `parameter`; empty for numbers that have only one."""
    first: float
    last: float
    absolute: float
    percent: float | None
    """Of the first's size; None where that is 0."""


@dataclass(frozen=True, slots=True)
class TensorDrift:
    """How far a tensor is from where it was in the training's first checkpoint, by checkpoint."""

    name: str
    component: str
    buffer: bool
    distance: list[float]
    """||w - w_first||; 0 for the first."""
    step_distance: list[float]
    """||w - w_before||; 0 for the first."""
    first_norm: float
    relative: float | None
    """The last distance over ||w_first||; None where that is 0."""
    cosine: float | None
    """Between first and last; None where one of them is 0."""
    changed: float
    """The share of its values that differ between first and last."""
    rows_moved: int | None
    """Of a matrix: rows that differ between first and last by more than one common factor for the whole row."""


@dataclass(frozen=True, slots=True)
class ComponentDrift:
    """How far a component is from the first checkpoint, by checkpoint, relative to its norm there."""

    component: str
    distance: list[float]
    relative: list[float | None]
    step_relative: list[float | None]
    """Against the checkpoint before."""


@dataclass(frozen=True, slots=True)
class Course:
    """The checkpoints of one training in the order of their steps."""

    training: str
    labels: list[str]
    steps: list[int | None]
    changes: list[Change]
    drifts: list[ComponentDrift]
    tensors: list[TensorDrift]
    not_comparable: list[str]
    """Tensors that some of them lack, or hold in another shape."""


def course(checkpoints: Sequence[Weights], groups: Sequence[Sequence[Group]]) -> Course:
    """Of two checkpoints or more, with what each of them showed."""
    first, last = groups[0], {group.name: group for group in groups[-1]}
    changes = [change for group in first if group.name in last for change in _changes(group, last[group.name])]
    common = [name for name in checkpoints[0].names if all(name in weights.names for weights in checkpoints)]
    drifts = {name: _drift(name, checkpoints) for name in common}
    known = [drift for drift in drifts.values() if drift is not None]
    every = dict.fromkeys(name for weights in checkpoints for name in weights.names)
    return Course(
        training=checkpoints[0].training,
        labels=[weights.label for weights in checkpoints],
        steps=[weights.step for weights in checkpoints],
        changes=changes,
        drifts=_components(known, len(checkpoints)),
        tensors=known,
        not_comparable=[name for name in every if drifts.get(name) is None],
    )


def _changes(first: Group, last: Group) -> list[Change]:
    found = [
        _change(first.name, number, weighting, *(getattr(_of(group, weighting), number) for group in (first, last)))
        for weighting in ("tensor", "parameter")
        for number in _NUMBERS
    ]
    found.append(_change(first.name, "minimum", "", value_of(first.minimum), value_of(last.minimum)))
    found.append(_change(first.name, "maximum", "", value_of(first.maximum), value_of(last.maximum)))
    found += [_change(first.name, name, "", getattr(first, name), getattr(last, name)) for name in ("norm", "zeros")]
    return [change for change in found if change is not None]


def _of(group: Group, weighting: str) -> Weighting:
    return group.per_tensor if weighting == "tensor" else group.per_parameter


def _change(group: str, number: str, weighting: str, first: float | None, last: float | None) -> Change | None:
    if first is None or last is None:
        return None
    percent = None if first == 0.0 else 100.0 * (last - first) / abs(first)
    return Change(group, number, weighting, first, last, last - first, percent)


def _drift(name: str, checkpoints: Sequence[Weights]) -> TensorDrift | None:
    """None where the shapes differ. Holds three tensors at a time."""
    first = before = now = checkpoints[0].read(name)
    distance, step_distance = [0.0], [0.0]
    for weights in checkpoints[1:]:
        now = weights.read(name)
        if now.shape != first.shape:
            return None
        distance.append(_distance(first, now))
        step_distance.append(distance[-1] if before is first else _distance(before, now))
        before = now
    norms, dot = (_norm(first), _norm(now)), 0.0
    for a, b in zip(pieces(first), pieces(now), strict=True):
        dot += float((a * b).nan_to_num().sum())
    return TensorDrift(
        name=name,
        component=part_of(name),
        buffer=is_buffer(name),
        distance=distance,
        step_distance=step_distance,
        first_norm=norms[0],
        relative=distance[-1] / norms[0] if norms[0] else None,
        cosine=dot / (norms[0] * norms[1]) if all(norms) else None,
        changed=float((first != now).sum()) / first.numel(),
        rows_moved=_rows_moved(first, now) if first.ndim == 2 else None,
    )


def _norm(tensor: Tensor) -> float:
    return math.sqrt(sum(_finite_square(piece) for piece in pieces(tensor)))


def _distance(a: Tensor, b: Tensor) -> float:
    """Over the values that are finite in both."""
    return math.sqrt(sum(_finite_square(x - y) for x, y in zip(pieces(a), pieces(b), strict=True)))


def _finite_square(piece: Tensor) -> float:
    total = float(piece.square().sum())
    return total if math.isfinite(total) else float(piece[piece.isfinite()].square().sum())


def _rows_moved(first: Tensor, last: Tensor) -> int:
    """Decay alone shrinks a row by a factor: only what turns it, or what was zero and is not, is training."""
    moved = 0
    for a, b in zip(row_pieces(first), row_pieces(last), strict=True):
        before, now, dots = a.double().norm(dim=1), b.double().norm(dim=1), (a.double() * b.double()).sum(dim=1)
        turned = (before > 0.0) & (now > 0.0) & (dots < (1.0 - _TURNED) * before * now)
        moved += int((turned | ((before > 0.0) != (now > 0.0))).sum())
    return moved


def _components(drifts: Sequence[TensorDrift], number: int) -> list[ComponentDrift]:
    found = []
    for component in dict.fromkeys(drift.component for drift in drifts):
        mine = [drift for drift in drifts if drift.component == component]
        distance = [_root(drift.distance[t] for drift in mine) for t in range(number)]
        steps = [_root(drift.step_distance[t] for drift in mine) for t in range(number)]
        norm = _root(drift.first_norm for drift in mine)
        relative = [value / norm if norm else None for value in distance]
        found.append(ComponentDrift(component, distance, relative, [value / norm if norm else None for value in steps]))
    return found


def _root(distances: Iterable[float]) -> float:
    return math.sqrt(sum(distance**2 for distance in distances))
