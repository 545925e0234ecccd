"""Rows of next-token data as contexts: each cut after one scored position, the answer is the token that follows.

Which position is drawn from the row's number, so that a context is the same whoever asks for it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hrm.data.keys import draws, row_keys
from hrm.halting_scores import READ_AT, Gather
from hrm.tasks import IGNORE


def contexts(gather: Gather, seed: int = 0) -> Gather:
    """A way to gather rows that gives contexts in their place."""

    def gather_contexts(numbers: np.ndarray) -> Mapping[str, np.ndarray]:
        return cut(gather(numbers), numbers, seed)

    return gather_contexts


def cut(columns: Mapping[str, np.ndarray], numbers: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows [B] as contexts: `read_at` [B] is the last position, `labels` [B, 1] its label; what follows is blanked.

    A row without a scored position is read at its last one and has nothing to be scored.
    """
    labels, inputs = columns["labels"], columns["inputs"]
    scored = labels != IGNORE
    count = scored.sum(axis=1)
    drawn = draws(row_keys(seed, numbers), 1)[:, 0] % np.maximum(count, 1).astype(np.uint64)
    place = ((scored.cumsum(axis=1) - 1 == drawn.astype(np.int64)[:, None]) & scored).argmax(axis=1)
    place = np.where(count > 0, place, labels.shape[1] - 1)
    after = np.arange(inputs.shape[1]) > place[:, None]
    own = {
        "inputs": np.where(after, 0, inputs).astype(inputs.dtype),
        "labels": np.take_along_axis(labels, place[:, None], axis=1),
        READ_AT: place.astype(np.int32),
    }
    return {**columns, **own}
