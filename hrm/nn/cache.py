"""What a stack remembers of earlier positions, so that a further token costs one position and not a whole row.

A recurrent model calls its stacks several times, and each call sees other states: each has slots of its own. A pass
hands the slots out in the order in which the parts of the model ask, which is the same in every pass. Under a causal
mask a position computes what it would in a whole row, so that the result is the uncached one.

Shapes: B rows, N heads, S positions, K head size, D hidden.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Cache(Protocol):
    """Where keys and values are kept, by slot; Transformers' caches are such a thing, too."""

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """Append [B, N, S, K] to a slot and give all that it holds."""
        ...


class KeyValueCache:
    """Keys and values that grow with each pass."""

    def __init__(self) -> None:
        self._slots: list[tuple[Tensor, Tensor]] = []

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int) -> tuple[Tensor, Tensor]:
        """See `Cache`."""
        if layer_idx == len(self._slots):
            self._slots.append((key_states, value_states))
        else:
            keys, values = self._slots[layer_idx]
            self._slots[layer_idx] = torch.cat((keys, key_states), 2), torch.cat((values, value_states), 2)
        return self._slots[layer_idx]

    def keep(self, rows: Tensor) -> None:
        """Let the other rows go; rows: indices, or a mask [B]."""
        self._slots = [(keys[rows], values[rows]) for keys, values in self._slots]


class CachePass:
    """One forward pass of new positions, all segments of it, after `past` positions that the cache holds."""

    def __init__(self, cache: Cache, past: int) -> None:
        self.past = past
        self._cache, self._slot = cache, 0

    def extend(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The next slot with these [B, N, S, K] appended: all positions up to here."""
        self._slot += 1
        return self._cache.update(keys, values, self._slot - 1)

    def extend_row(self, x: Tensor) -> Tensor:
        """The same for what a convolution reads: [B, S, D] -> all positions up to here."""
        row = x.unsqueeze(1)
        return self.extend(row, row[..., :0])[0].squeeze(1)
