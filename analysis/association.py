"""Whether a searched parameter, or two together, moved the objective at all: tests against shuffled trials.

What a shuffle of the values among the trials shows as often is no evidence. Holm's correction is over the parameters,
and over the pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import numpy.typing as npt

from analysis.effects import holm
from analysis.search_space import Axis

Array = npt.NDArray[np.float64]

SHUFFLES = 1999
_CURVED_FROM = 10
"""Trials from which on a parameter may have its best in the middle."""
_FREE = 5
"""Trials that a test of pairs needs beyond the numbers that it fits."""


def main_effects(axes: Sequence[Axis], points: Array, values: Array, seed: int = 0) -> list[float]:
    """For each axis the corrected p of: the ranks of the values do not hang on it, neither in a line nor in a bow."""
    ranks = _centred_ranks(values)
    total = float(ranks @ ranks)
    if total == 0.0:
        return [1.0] * len(axes)
    random = np.random.default_rng(seed)
    shuffled = random.permuted(np.tile(ranks[:, None], SHUFFLES), axis=0)
    bases = [_basis(_features(axis, points[:, i]), None) for i, axis in enumerate(axes)]
    return holm([_share_of_larger((basis.T @ ranks), basis.T @ shuffled) for basis in bases])


def pair_effects(axes: Sequence[Axis], points: Array, values: Array, seed: int = 0) -> dict[tuple[int, int], float]:
    """For each pair of axes the corrected p of: the values are a sum of what each parameter does alone.

    Freedman and Lane's (1983): residuals of the sum are shuffled. Empty where the trials are too few to fit the sum.
    """
    features = [_features(axis, points[:, i]) for i, axis in enumerate(axes)]
    alone = np.concatenate([np.ones((len(values), 1)), *features], axis=1)
    basis = _basis(alone, None)
    free = len(values) - basis.shape[1]
    if free < _FREE + 1:
        return {}
    residual = values - basis @ (basis.T @ values)
    random = np.random.default_rng(seed)
    shuffled = random.permuted(np.tile(residual[:, None], SHUFFLES), axis=0)
    shuffled = shuffled - basis @ (basis.T @ shuffled)
    raw: dict[tuple[int, int], float] = {}
    for one, other in combinations(range(len(axes)), 2):
        product = _basis(features[one][:, :, None] * features[other][:, None, :], basis)
        if 0 < product.shape[1] <= free - _FREE:
            found, chance = (_ratio(product, sample) for sample in (residual[:, None], shuffled))
            raw[one, other] = (1 + int((chance >= found[0] - 1e-12).sum())) / (1 + SHUFFLES)
    return dict(zip(raw, holm(list(raw.values())), strict=True))


def _centred_ranks(values: Array) -> Array:
    """Ranks from the least on, equal values with their mean rank, around 0."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2.0)[place]
    return np.asarray(ranks - ranks.mean())


def _share_of_larger(found: Array, chance: Array) -> float:
    explained = float(found @ found)
    return (1 + int(((chance**2).sum(axis=0) >= explained - 1e-9).sum())) / (1 + SHUFFLES)


def _ratio(basis: Array, values: Array) -> Array:
    """By column, how much of the values the basis explains, against what it does not."""
    explained = ((basis.T @ values) ** 2).sum(axis=0)
    return np.asarray(explained / np.maximum((values**2).sum(axis=0) - explained, 1e-300))


def _features(axis: Axis, column: Array) -> Array:
    """What of a parameter can move the values: its line and bow, or each of its named choices; centred."""
    if axis.named:
        features = np.stack([column == choice for choice in np.unique(column)[1:]], axis=1).astype(np.float64) \
            if len(np.unique(column)) > 1 else np.zeros((len(column), 1))  # fmt: skip
    else:
        line = column - column.mean()
        bow = len(column) >= _CURVED_FROM and len(np.unique(column)) > 2
        features = np.stack([line, line**2] if bow else [line], axis=1)
    return np.asarray(features - features.mean(axis=0))


def _basis(features: Array, without: Array | None) -> Array:
    """Orthonormal columns that span the features, or what of them does not lie in `without`."""
    flat = features.reshape(len(features), -1)
    if without is not None:
        flat = flat - without @ (without.T @ flat)
    if not flat.size:
        return np.empty((len(features), 0))
    u, sizes, _ = np.linalg.svd(flat, full_matrices=False)
    return np.asarray(u[:, sizes > 1e-9 * max(1.0, float(np.abs(features).max()))])
