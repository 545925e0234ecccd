"""Random numbers as functions of (seed, step, global slot): no generator state, the same on any number of workers.

A slot is a row's place in the global batch. A draw hashes the seed, the step, the slot and the count of draws so far in
this step, so that nothing random has to be saved in a checkpoint and a reused process cannot leak into a trial.
Compute dtype, number of workers and order of trials do not change a draw.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed 64-bit number


def _mix(x: Tensor) -> Tensor:
    """The finalizer of splitmix64 (Steele et al. 2014) on int64 tensors, which wrap around."""
    x = (x ^ ((x >> 30) & 0x3FFFFFFFF)) * -4658895280553007687
    x = (x ^ ((x >> 27) & 0x1FFFFFFFFF)) * -7723592293110705685
    return x ^ ((x >> 31) & 0x1FFFFFFFF)


class Draws:
    """The random draws of one step, or of one batch of an evaluation."""

    def __init__(self, seed: int, step: int, slots: Tensor, training: bool = True) -> None:
        """slots [B]: int64 places of this worker's rows in the global batch, on the compute device.

        training: whether there are dropout, noise and exploration; random starts are drawn in an evaluation, too.
        """
        self.training = training
        self._count = 0
        start = torch.tensor([seed, step], dtype=torch.int64)
        seed_key, step_key = _mix(start * _GOLDEN + torch.tensor([1, 2]))
        self._key = _mix(_mix(slots + seed_key.to(slots.device)) + step_key.to(slots.device))

    def spread(self, count: int) -> Draws:
        """Draws for `count` copies of each slot, copies of a slot next to each other, all different."""
        copies = Draws.__new__(Draws)
        copies.training, copies._count = self.training, 0
        salts = torch.arange(1, count + 1, device=self._key.device) * _GOLDEN
        copies._key = _mix(self._next_key().unsqueeze(1) + salts).flatten()
        return copies

    def part(self, number: int, of: int) -> Draws:
        """The same draws for one of `of` parts of the slots (`Tensor.tensor_split`), from where they are now."""
        mine = Draws.__new__(Draws)
        mine.training, mine._count = self.training, self._count
        mine._key = self._key.tensor_split(of)[number]
        return mine

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

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """[B, *shape] float32, standard normal (Box and Muller 1958)."""
        count = math.prod(shape)
        share = self._shares(2 * count)
        radius = share[:, :count].log().mul_(-2.0).sqrt_()
        return (radius * (share[:, count:] * (2.0 * math.pi)).cos_()).view(-1, *shape)

    def truncated_normal(self, shape: tuple[int, ...]) -> Tensor:
        """[B, *shape] float32, see `truncated`."""
        return truncated(self._shares(math.prod(shape)), 1.0).view(-1, *shape)

    def _shares(self, count: int) -> Tensor:
        """[B, count] float32 in (0, 1)."""
        bits = _bits(self._next_key().view(torch.int32).view(-1, 2), count)
        return ((bits >> 8) & 0xFFFFFF).float().add_(0.5).div_(16777216.0)

    def keys(self, count: int) -> Tensor | None:
        """[count, B] int64 for `dropout`; None where nothing is dropped."""
        return torch.stack([self._next_key() for _ in range(count)]) if self.training else None


def truncated(uniform: Tensor, std: float) -> Tensor:
    """Values uniform in 0 .. 1 as normal ones cut at two sigma, of standard deviation `std` after the cut (so does JAX,
    torch does not)."""
    if uniform.is_meta:
        return uniform  # a model of which only the shapes are asked for: erfinv is slow there
    edge = math.erf(math.sqrt(2.0))  # the mass within two sigma
    density = math.exp(-2.0) / math.sqrt(2.0 * math.pi)
    sigma = std / math.sqrt(1.0 - 4.0 * density / edge)
    return (torch.erfinv(uniform * 2.0 * edge - edge) * math.sqrt(2.0) * sigma).clamp_(-2.0 * sigma, 2.0 * sigma)


def dropout(x: Tensor, rate: float, keys: Tensor | None, which: int) -> Tensor:
    """Zero a share `rate` of x [B, ...] (rounded to 1/65536) by the draw `which` of keys [n, B], scale the rest up."""
    if keys is None:
        return x
    dropped = round(rate * 65536)
    key = keys[which].contiguous().view(torch.int32).view(-1, 2)
    bits = _bits(key, (x[0].numel() + 1) // 2).view(torch.int16)[:, : x[0].numel()].view(x.shape)
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
