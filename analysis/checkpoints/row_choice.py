"""Which rows of a split checkpoints are measured on: whole groups, drawn once, in two halves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hrm.data.dataset import Dataset


@dataclass(frozen=True, slots=True)
class RowChoice:
    """Which rows of a split are looked at."""

    split: str
    numbers: np.ndarray
    """[N], in the order that they were drawn in."""
    groups: np.ndarray
    """[N]: rows of one group are forms of one puzzle."""
    reports: np.ndarray
    """[N] bool: the half to report on; the other is to choose by."""
    available: int
    """Rows of the whole split."""


def choose_rows(dataset: Dataset, split: str, most: int, seed: int = 0) -> RowChoice:
    """Whole groups in an order drawn by `seed`, until there are `most` rows; the second half of the groups reports.

    At least two groups are taken where there are two.
    """
    rows = dataset.split(split)
    ends = rows.puzzle_indices[rows.group_indices]
    order, taken, count = np.random.default_rng(seed).permutation(len(ends) - 1), list[int](), 0
    for group in order.tolist():
        size = int(ends[group + 1] - ends[group])
        if len(taken) >= 2 and count + size > most:
            break
        taken.append(group)
        count += size
    numbers = np.concatenate([np.arange(ends[group], ends[group + 1]) for group in taken])
    sizes = [int(ends[group + 1] - ends[group]) for group in taken]
    groups = np.repeat(taken, sizes)
    reports = np.repeat(np.arange(len(taken)) >= len(taken) // 2, sizes)
    return RowChoice(split, numbers, groups, reports, len(rows))
