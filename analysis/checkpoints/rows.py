"""The rows of tables and matrices: dead ones, repeated ones, and those that no gradient reached."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

PIECE = 2**17
SHOWN = 20


@dataclass(frozen=True, slots=True)
class TableUse:
    """How the rows of a table are used: a row for each puzzle, token or position."""

    name: str
    component: str
    rows: int
    zero_rows: int
    duplicate_rows: int
    smallest_norm: float
    """Of the rows that are not zero, as the two below; 0 where all are."""
    median_norm: float
    largest_norm: float
    largest_row: int
    without_gradient: int | None
    """Rows of whose gradients the optimizer remembers nothing; None where the checkpoint has no optimizer's state."""
    first_without: list[int]
    """The first of these."""


def row_pieces(tensor: Tensor) -> Iterator[Tensor]:
    """A matrix in float32, some rows at a time."""
    for rows in torch.split(tensor, max(1, PIECE // max(1, tensor.shape[1]))):
        yield rows.to(torch.float32)


def table_use(name: str, component: str, tensor: Tensor, squares: Tensor | None) -> TableUse:
    """The use of one table; `squares`: the running mean of its squared gradients."""
    norms = row_norms(tensor)
    untouched = None if squares is None else np.flatnonzero(row_norms(squares) == 0.0)
    zero_rows, duplicate_rows = count_duplicates(tensor)
    used = norms[norms > 0.0]
    return TableUse(
        name=name,
        component=component,
        rows=len(norms),
        zero_rows=zero_rows,
        duplicate_rows=duplicate_rows,
        smallest_norm=float(used.min()) if len(used) else 0.0,
        median_norm=float(np.median(used)) if len(used) else 0.0,
        largest_norm=float(used.max()) if len(used) else 0.0,
        largest_row=int(np.nanargmax(np.nan_to_num(norms))) if len(norms) else 0,
        without_gradient=None if untouched is None else len(untouched),
        first_without=[] if untouched is None else untouched[:SHOWN].tolist(),
    )


def row_norms(tensor: Tensor) -> np.ndarray:
    """The Euclidean norm of each row, in float64."""
    return np.concatenate([rows.double().norm(dim=1).numpy() for rows in row_pieces(tensor)])


def count_duplicates(tensor: Tensor) -> tuple[int, int]:
    """How many rows are zero, and how many others repeat an earlier row.

    Rows are sorted by a hash and neighbours compared, so that no pair is counted that is not equal.
    """
    zero = np.concatenate([(rows == 0.0).all(dim=1).numpy() for rows in row_pieces(tensor)])
    places = np.flatnonzero(~zero)
    if not len(places):
        return len(zero), 0
    hashes = np.concatenate([_hashes(rows) for rows in row_pieces(tensor[torch.from_numpy(places)])])
    order = np.argsort(hashes, kind="stable")
    places, hashes = places[order], hashes[order]
    alike = np.flatnonzero(hashes[1:] == hashes[:-1])
    repeated = sum(torch.equal(tensor[int(a)].double(), tensor[int(b)].double()) for a, b in _pairs(places, alike))
    return int(zero.sum()), int(repeated)


def _pairs(places: np.ndarray, at: np.ndarray) -> Iterator[tuple[int, int]]:
    return zip(places[at], places[at + 1], strict=True)


def _hashes(rows: Tensor) -> np.ndarray:
    """A 64-bit hash of each row's float32 values; 0 and -0 are one."""
    words = (rows + 0.0).contiguous().view(torch.int32).numpy().astype(np.uint64)
    factors = np.random.default_rng(0).integers(1, 2**63, words.shape[1], dtype=np.uint64) | np.uint64(1)
    words ^= words >> np.uint64(13)
    with np.errstate(over="ignore"):
        return np.asarray((words * factors).sum(axis=1, dtype=np.uint64))
