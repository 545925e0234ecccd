"""The numbers of one tensor, and of groups of tensors in two weightings: each tensor alike, or each value alike.

Sums are in float64, over pieces of a tensor, so that a table of gigabytes needs little memory. What is not finite is
counted and left out of every other number.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from analysis.checkpoints.rows import count_duplicates
from analysis.checkpoints.weights import is_buffer
from hrm.loading import part_of
from hrm.original.reading import dtype_name

PIECE = 2**17
"""Values that are looked at together: they fit a processor's cache."""
EVERYTHING, PARAMETERS, BUFFERS = "everything", "parameters", "buffers"
"""Groups that are no component."""


@dataclass(frozen=True, slots=True)
class TensorHealth:
    """One tensor. A matrix has rows: its first dimension."""

    name: str
    component: str
    buffer: bool
    dtype: str
    shape: tuple[int, ...]
    parameters: int
    """Values, also of a buffer."""
    mean: float | None
    """Of the finite values, as all that follows; None where there are none."""
    mean_absolute: float | None
    std: float | None
    """Of the sample (divided by n - 1); 0 for a single value."""
    minimum: float | None
    maximum: float | None
    norm: float
    """Euclidean."""
    nan: int
    infinite: int
    zeros: int
    """Values that are exactly 0."""
    sparsity: float
    """The share of these."""
    rows: int | None
    zero_rows: int | None
    """Rows of nothing but zeros: dead, or never trained."""
    duplicate_rows: int | None
    """Rows that repeat an earlier one, bit by bit; those of zeros are not counted."""


@dataclass(frozen=True, slots=True)
class Weighting:
    """Numbers of a group of tensors in one of the two weightings."""

    mean: float | None
    mean_absolute: float | None
    std: float | None
    sparsity: float


@dataclass(frozen=True, slots=True)
class Extreme:
    """A group's smallest or largest value, and where it is."""

    value: float
    tensor: str


def value_of(extreme: Extreme | None) -> float | None:
    """The value, where there is one."""
    return None if extreme is None else extreme.value


@dataclass(frozen=True, slots=True)
class Group:
    """Tensors taken together: a component, all parameters, all buffers, or everything."""

    name: str
    tensors: int
    parameters: int
    share: float
    """Of all values of the checkpoint."""
    per_tensor: Weighting
    """Every tensor counts alike, however many values it has."""
    per_parameter: Weighting
    """Every value counts alike."""
    minimum: Extreme | None
    maximum: Extreme | None
    norm: float
    nan: int
    infinite: int
    zeros: int


def pieces(tensor: Tensor) -> Iterator[Tensor]:
    """The values in float64, a bounded number at a time."""
    for piece in torch.split(tensor.reshape(-1), PIECE):
        yield piece.to(torch.float64)


def measure(name: str, tensor: Tensor) -> TensorHealth:
    """All numbers of a tensor, in one pass over its values and one over its rows."""
    sums = _Sums()
    for piece in pieces(tensor):
        sums.add(piece)
    zero_rows, duplicate_rows = count_duplicates(tensor) if tensor.ndim == 2 else (None, None)
    return TensorHealth(
        name=name,
        component=part_of(name),
        buffer=is_buffer(name),
        dtype=dtype_name(tensor),
        shape=tuple(tensor.shape),
        parameters=tensor.numel(),
        mean=sums.mean,
        mean_absolute=sums.absolute / sums.finite if sums.finite else None,
        std=_std(sums.finite, sums.total, sums.squares) if sums.finite else None,
        minimum=sums.minimum if sums.finite else None,
        maximum=sums.maximum if sums.finite else None,
        norm=math.sqrt(sums.squares),
        nan=sums.nan,
        infinite=sums.infinite,
        zeros=sums.zeros,
        sparsity=sums.zeros / max(1, tensor.numel()),
        rows=tensor.shape[0] if tensor.ndim == 2 else None,
        zero_rows=zero_rows,
        duplicate_rows=duplicate_rows,
    )


def group(name: str, tensors: Sequence[TensorHealth], all_parameters: int) -> Group:
    """These tensors taken together, of a checkpoint of so many values."""
    values = sum(tensor.parameters for tensor in tensors)
    zeros = sum(tensor.zeros for tensor in tensors)
    low = [Extreme(tensor.minimum, tensor.name) for tensor in tensors if tensor.minimum is not None]
    high = [Extreme(tensor.maximum, tensor.name) for tensor in tensors if tensor.maximum is not None]
    return Group(
        name=name,
        tensors=len(tensors),
        parameters=values,
        share=values / max(1, all_parameters),
        per_tensor=_each_tensor(tensors),
        per_parameter=_each_value(tensors, zeros / max(1, values)),
        minimum=min(low, key=lambda extreme: extreme.value, default=None),
        maximum=max(high, key=lambda extreme: extreme.value, default=None),
        norm=math.sqrt(sum(tensor.norm**2 for tensor in tensors)),
        nan=sum(tensor.nan for tensor in tensors),
        infinite=sum(tensor.infinite for tensor in tensors),
        zeros=zeros,
    )


def _each_tensor(tensors: Sequence[TensorHealth]) -> Weighting:
    return Weighting(
        _mean([tensor.mean for tensor in tensors]),
        _mean([tensor.mean_absolute for tensor in tensors]),
        _mean([tensor.std for tensor in tensors]),
        _mean([tensor.sparsity for tensor in tensors]) or 0.0,
    )


def _each_value(tensors: Sequence[TensorHealth], sparsity: float) -> Weighting:
    finite = {tensor.name: tensor.parameters - tensor.nan - tensor.infinite for tensor in tensors}
    number = sum(finite.values())
    if not number:
        return Weighting(None, None, None, sparsity)
    total = sum((tensor.mean or 0.0) * finite[tensor.name] for tensor in tensors)
    absolute = sum((tensor.mean_absolute or 0.0) * finite[tensor.name] for tensor in tensors)
    squares = sum(tensor.norm**2 for tensor in tensors)
    return Weighting(total / number, absolute / number, _std(number, total, squares), sparsity)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _std(number: int, total: float, squares: float) -> float:
    return math.sqrt(max(0.0, squares - total * total / number) / (number - 1)) if number > 1 else 0.0


class _Sums:
    """What is added up over the pieces of a tensor."""

    def __init__(self) -> None:
        self.nan = self.infinite = self.zeros = self.finite = 0
        self.total = self.absolute = self.squares = 0.0
        self.minimum, self.maximum = math.inf, -math.inf

    @property
    def mean(self) -> float | None:
        return self.total / self.finite if self.finite else None

    def add(self, piece: Tensor) -> None:
        squares = float(piece.square().sum())
        if not math.isfinite(squares):  # squares of finite values of any float type are finite, but of float64
            self.nan += int(piece.isnan().sum())
            self.infinite += int(piece.isinf().sum())
            piece = piece[piece.isfinite()]
            squares = float(piece.square().sum())
        if not piece.numel():
            return
        self.finite += piece.numel()
        self.zeros += int((piece == 0.0).sum())
        self.total += float(piece.sum())
        self.absolute += float(piece.abs().sum())
        self.squares += squares
        self.minimum = min(self.minimum, float(piece.min()))
        self.maximum = max(self.maximum, float(piece.max()))
