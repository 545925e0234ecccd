"""The building blocks of the HRM family: linear, embedding, norm, attention, SwiGLU, block, stack.

Follows sapientinc/HRM `models/layers.py` as restated in the project's mathematics: post-norm blocks, parameter-free
RMSNorm, no biases, weights in float32 and cast at use. Module names match the original's state dict.

Shapes: B rows, S positions, D hidden, N heads, K head size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hrm.nn.attention import AttentionKernel, attend, rotate
from hrm.nn.cache import CachePass
from hrm.nn.draws import Draws, dropout, truncated

NORM_EPSILON = 1e-5


def truncated_normal(shape: tuple[int, ...], std: float) -> Tensor:
    """Fresh values, see `hrm.nn.draws.truncated`."""
    return truncated(torch.rand(shape), std)


def rms_norm(x: Tensor, epsilon: float = NORM_EPSILON) -> Tensor:
    """x / sqrt(mean(x^2) + epsilon) over the last dimension, computed in float32, without parameters."""
    return F.rms_norm(x, (x.shape[-1],), eps=epsilon)


class Linear(nn.Module):
    """y = x W^T (+ b), W in float32, cast to x's dtype at use. Fresh weights: truncated normal of 1/sqrt(fan_in)."""

    def __init__(self, fan_in: int, fan_out: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(truncated_normal((fan_out, fan_in), fan_in**-0.5))
        self.bias = nn.Parameter(torch.zeros(fan_out)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class Embedding(nn.Module):
    """A table of vectors, gathered in float32 and cast."""

    def __init__(self, num_rows: int, size: int, std: float) -> None:
        super().__init__()
        self.embedding_weight = nn.Parameter(truncated_normal((num_rows, size), std))

    def forward(self, ids: Tensor, dtype: torch.dtype) -> Tensor:
        return F.embedding(ids, self.embedding_weight).to(dtype)


@dataclass(frozen=True, slots=True)
class BlockShape:
    """Sizes and options of a stack's blocks."""

    hidden_size: int
    num_heads: int
    expansion: float
    causal: bool = False
    dropout: float = 0.0
    convolution: int = 0
    """Kernel size of a causal depthwise convolution between attention and MLP; 0 for none."""
    gated_convolution: int = 0
    """Kernel size of the depthwise convolution inside the MLP (ConvSwiGLU); 0 for none."""
    mixed_positions: int = 0
    """Positions that an MLP across positions mixes, instead of attention; 0 for attention."""

    @property
    def inner_size(self) -> int:
        """SwiGLU's inner width: expansion * hidden * 2/3, rounded up to a multiple of 256."""
        return _inner_size(self.hidden_size, self.expansion)

    def flops(self, length: int) -> float:
        """Forward operations of one block on one row of `length` positions, counting the whole attention square."""
        d = self.hidden_size
        if self.mixed_positions:
            mixing = 6.0 * d * length * _inner_size(length, self.expansion)
        else:
            mixing = 8.0 * length * d * d + 4.0 * length * length * d
        return mixing + 6.0 * length * d * self.inner_size


def _inner_size(size: int, expansion: float) -> int:
    return -(-round(expansion * size * 2 / 3) // 256) * 256


class Attention(nn.Module):
    """Multi-head attention with one fused projection (rows ordered q, k, v) and no biases."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.num_heads, self.causal = shape.num_heads, shape.causal
        self.kernel: AttentionKernel = "sdpa"
        self.qkv_proj = Linear(shape.hidden_size, 3 * shape.hidden_size)
        self.o_proj = Linear(shape.hidden_size, shape.hidden_size)

    def forward(
        self, x: Tensor, tables: Tensor | None, mask: Tensor | None = None, cache: CachePass | None = None
    ) -> Tensor:
        rows, length, _ = x.shape
        qkv = self.qkv_proj(x).view(rows, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k = qkv[:2] if tables is None else rotate(qkv[:2], tables)
        v = qkv[2]
        if cache is not None:
            k, v = cache.extend(k, v)
        y: Tensor = self.o_proj(attend(q, k, v, self.causal, mask, self.kernel))
        return y


class SwiGLU(nn.Module):
    """down(silu(gate) * up), gate and up from one projection (Shazeer 2020)."""

    def __init__(self, size: int, expansion: float) -> None:
        super().__init__()
        inner = _inner_size(size, expansion)
        self.gate_up_proj = Linear(size, 2 * inner)
        self.down_proj = Linear(inner, size)

    def forward(self, x: Tensor, mask: Tensor | None = None, cache: CachePass | None = None) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        y: Tensor = self.down_proj(self.mix(F.silu(gate) * up, mask, cache))
        return y

    def mix(self, inner: Tensor, mask: Tensor | None, cache: CachePass | None) -> Tensor:
        """What happens across positions between the two products: nothing here."""
        return inner


class ConvSwiGLU(SwiGLU):
    """down(silu(convolution(silu(gate) * up))), depthwise over positions t-k+1 .. t (URM, Gao et al. 2025)."""

    def __init__(self, size: int, expansion: float, kernel: int) -> None:
        super().__init__(size, expansion)
        inner = _inner_size(size, expansion)
        self.dwconv = nn.Conv1d(inner, inner, kernel, groups=inner)

    def mix(self, inner: Tensor, mask: Tensor | None, cache: CachePass | None) -> Tensor:
        weight, bias = self.dwconv.weight.to(inner.dtype), self.dwconv.bias
        assert bias is not None
        return F.silu(depthwise(inner, weight.squeeze(1).t(), mask, cache) + bias.to(inner.dtype))


def depthwise(x: Tensor, weight: Tensor, mask: Tensor | None = None, cache: CachePass | None = None) -> Tensor:
    """A causal depthwise convolution: x [B, S, D], weight [k, D], the last row for the present position.

    mask [B, 1, S, T]: True where a position may look, see `attend`; elsewhere it reads zeros.
    """
    length, kernel = x.shape[1], weight.shape[0]
    whole = x if cache is None else cache.extend_row(x)
    past = whole.shape[1] - length
    padded = F.pad(whole, (0, 0, kernel - 1, 0))

    def earlier(back: int) -> Tensor:
        start = kernel - 1 - back + past
        shifted = padded[:, start : start + length]
        if mask is None or back == 0:
            return shifted
        absent = max(0, back - past)  # positions before the row's first
        seen = F.pad(mask[:, 0].diagonal(past - back, 1, 2), (absent, 0))[:, :length]
        return shifted.where(seen.unsqueeze(-1), 0.0)

    y = earlier(kernel - 1) * weight[0]
    for offset in range(1, kernel):
        y = y + earlier(kernel - 1 - offset) * weight[offset]
    return y


class CausalConvolution(nn.Module):
    """Depthwise convolution over positions t-k+1 .. t: a local pattern detector that does not see the future."""

    def __init__(self, size: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(truncated_normal((kernel, size), kernel**-0.5))

    def forward(self, x: Tensor, mask: Tensor | None = None, cache: CachePass | None = None) -> Tensor:
        return depthwise(x, self.weight.to(x.dtype), mask, cache)


class Block(nn.Module):
    """x = rms(x + attention(x)); [x = rms(x + convolution(x));] x = rms(x + mlp(x)), dropout on each branch.

    With `mixed_positions` the first branch is an MLP across positions, and its norm is over the positions, too (TRM).
    """

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.dropout = shape.dropout
        self.mlp_t = SwiGLU(shape.mixed_positions, shape.expansion) if shape.mixed_positions else None
        self.self_attn = None if shape.mixed_positions else Attention(shape)
        self.conv = CausalConvolution(shape.hidden_size, shape.convolution) if shape.convolution else None
        self.mlp: SwiGLU = (
            ConvSwiGLU(shape.hidden_size, shape.expansion, shape.gated_convolution)
            if shape.gated_convolution
            else SwiGLU(shape.hidden_size, shape.expansion)
        )

    @property
    def num_dropouts(self) -> int:
        """How many draws a call takes."""
        return 2 if self.conv is None else 3

    def forward(
        self,
        x: Tensor,
        tables: Tensor | None,
        keys: Tensor | None,
        first: bool = False,
        mask: Tensor | None = None,
        cache: CachePass | None = None,
    ) -> Tensor:
        """x [B, S, D] -> the same, with `first` [B, 1, D]: the first position alone, which costs no MLP elsewhere.

        tables: of the rotary positions; keys [num_dropouts, B]: where dropout is at work; mask [B, 1, S, T]: True where
        a position may look, instead of everywhere or of everywhere back (an MLP across positions heeds none); cache:
        what is known of earlier positions.
        """
        rate = self.dropout
        if self.mlp_t is not None:
            columns = x.transpose(1, 2)
            x = rms_norm(columns + dropout(self.mlp_t(columns), rate, keys, 0)).transpose(1, 2)
        elif self.self_attn is not None:
            x = rms_norm(x + dropout(self.self_attn(x, tables, mask, cache), rate, keys, 0))
        x = x[:, :1] if first else x  # what follows reads no later position
        if self.conv is not None:
            x = rms_norm(x + dropout(self.conv(x, mask, cache), rate, keys, 1))
        return rms_norm(x + dropout(self.mlp(x, mask, cache), rate, keys, -1))


def recomputed(layer: nn.Module, *inputs: Any) -> Tensor:
    """layer(*inputs), of which only the inputs are kept: the rest is computed again when its gradient is asked for."""
    # Blocks draw from no generator, so that there is no state of one to put back
    y: Tensor = checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=False)
    return y


class Stack(nn.Module):
    """Blocks one after another."""

    recomputes: bool = False
    """Whether blocks that carry gradient are `recomputed`."""

    def __init__(self, num_layers: int, shape: BlockShape) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(shape) for _ in range(num_layers))

    def forward(
        self,
        x: Tensor,
        tables: Tensor | None,
        draws: Draws,
        first: bool = False,
        mask: Tensor | None = None,
        cache: CachePass | None = None,
    ) -> Tensor:
        """x [B, S, D] -> the same; with `first` the first position alone, [B, 1, D]. The rest: see `Block`."""
        for number, layer in enumerate(self.layers, 1):
            assert isinstance(layer, Block)
            keys = draws.keys(layer.num_dropouts) if layer.dropout else None
            inputs = x, tables, keys, first and number == len(self.layers), mask, cache
            x = recomputed(layer, *inputs) if self.recomputes and torch.is_grad_enabled() else layer(*inputs)
        return x
