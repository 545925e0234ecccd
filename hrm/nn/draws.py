"""Random numbers as functions of (seed, step, global slot): no generator state, the same on any number of workers.

A slot is a row's place in the global batch. A draw hashes the seed, the step, the slot and the count of draws so far in
this step, so that nothing random has to be saved in a checkpoint and a reused process cannot leak into a trial.
Compute dtype, number of workers and order of trials do not change a draw.
"""

from __future__ import annotations

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit number


def _mix(x: Tensor) -> Tensor:
    """The finalizer of splitmix64 (Steele et al. 2014) on int64 tensors, which wrap around."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


class Draws:
    """The random draws of one training step; `Draws.none()` gives the evaluation mode, where nothing is random."""

    def __init__(self, seed: int, step: int, slots: Tensor) -> None:
        """slots [B]: int64 places of this worker's rows in the global batch, on the compute device."""
        self.training = True
        self._count = 0
        start = torch.tensor([seed, step], dtype=torch.int64)
        seed_key, step_key = _mix(start * _GOLDEN + torch.tensor([1, 2]))
        self._key = _mix(_mix(slots + seed_key.to(slots.device)) + step_key.to(slots.device))

    @classmethod
    def none(cls) -> Draws:
        """No randomness: dropout keeps everything."""
        draws = cls.__new__(cls)
        draws.training = False
        return draws

    def _next_key(self) -> Tensor:
        self._count += 1
        wrapped = (self._count * _GOLDEN + 2**63) % 2**64 - 2**63  # as int64 arithmetic would
        return _mix(self._key + wrapped)

    def uniform(self) -> Tensor:
        """[B] float32 in [0, 1)."""
        return ((self._next_key() >> 40) & 0xFFFFFF).float() / 16777216.0

    def integers(self, low: int, high: int) -> Tensor:
        """[B] int64, uniform over low .. high, both included."""
        return low + (self._next_key() & 0x7FFFFFFF) % (high - low + 1)

    def dropout(self, x: Tensor, rate: float) -> Tensor:
        """Zero a share `rate` of x [B, ...] (rounded to 1/65536) and scale the rest up."""
        if not self.training or rate == 0.0:
            return x
        dropped = round(rate * 65536)
        keys = self._next_key().view(torch.int32).view(-1, 2)
        bits = _bits(keys, (x[0].numel() + 1) // 2).view(torch.int16)[:, : x[0].numel()].view(x.shape)
        return x * (bits >= dropped - 32768).to(x.dtype).mul_(65536 / (65536 - dropped))


def _bits(keys: Tensor, count: int) -> Tensor:
    """[B, count] random int32 from keys [B, 2] int32: a counter through a 32-bit finalizer (Wellons' lowbias32)."""
    x = torch.arange(count, dtype=torch.int32, device=keys.device) * -1640531527 + keys[:, :1]
    x ^= (x >> 16) & 0xFFFF
    x *= 0x7FEB352D
    x ^= keys[:, 1:]
    x ^= (x >> 15) & 0x1FFFF
    x *= -2073254261
    x ^= (x >> 16) & 0xFFFF
    return x
