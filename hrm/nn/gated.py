"""The parts of HRM-Text: pre-norm blocks whose attention is gated, and their stacks.

A stack ends with a norm, so that a state keeps its scale however often the stack is called. No norm has parameters.

Shapes: B rows, S positions, D hidden, N heads, K head size.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hrm.nn.attention import AttentionKernel, attend, rotate
from hrm.nn.cache import CachePass
from hrm.nn.draws import Draws, dropout
from hrm.nn.layers import BlockShape, Linear, SwiGLU, recomputed, rms_norm

EPSILON = 1e-6


class GatedAttention(nn.Module):
    """Causal attention, each channel of each head scaled by a sigmoid gate (Qiu et al. 2025).

    One fused projection, rows ordered gate, q, k, v.
    """

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.num_heads = shape.num_heads
        self.kernel: AttentionKernel = "sdpa"
        self.gqkv_proj = Linear(shape.hidden_size, 4 * shape.hidden_size)
        self.o_proj = Linear(shape.hidden_size, shape.hidden_size)

    def forward(self, x: Tensor, tables: Tensor, mask: Tensor | None, cache: CachePass | None = None) -> Tensor:
        """mask: instead of the causal one."""
        rows, length, _ = x.shape
        gqkv = self.gqkv_proj(x).view(rows, length, 4, self.num_heads, -1)
        q, k, v = gqkv[:, :, 1:].permute(2, 0, 3, 1, 4)
        k = rotate(k, tables)
        if cache is not None:
            k, v = cache.extend(k, v)
        mixed = attend(rotate(q, tables), k, v, True, mask, self.kernel)
        y: Tensor = self.o_proj(gqkv[:, :, 0].flatten(2).sigmoid() * mixed)
        return y


class GatedBlock(nn.Module):
    """x = x + attention(rms(x)); x = x + mlp(rms(x)), dropout on each branch."""

    num_dropouts = 2

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.dropout = shape.dropout
        self.self_attn = GatedAttention(shape)
        self.mlp = SwiGLU(shape.hidden_size, shape.expansion)

    def forward(
        self, x: Tensor, tables: Tensor, keys: Tensor | None, mask: Tensor | None, cache: CachePass | None = None
    ) -> Tensor:
        """keys [num_dropouts, B]: where dropout is at work."""
        mixed = self.self_attn(rms_norm(x, EPSILON), tables, mask, cache)
        x = x + dropout(mixed, self.dropout, keys, 0)
        y: Tensor = x + dropout(self.mlp(rms_norm(x, EPSILON)), self.dropout, keys, 1)
        return y


class GatedStack(nn.Module):
    """Blocks one after another, then a norm."""

    recomputes: bool = False
    """Whether blocks that carry gradient are `recomputed`."""

    def __init__(self, num_layers: int, shape: BlockShape) -> None:
        super().__init__()
        self.layers = nn.ModuleList(GatedBlock(shape) for _ in range(num_layers))

    def forward(
        self, x: Tensor, tables: Tensor, draws: Draws, mask: Tensor | None, cache: CachePass | None = None
    ) -> Tensor:
        for layer in self.layers:
            assert isinstance(layer, GatedBlock)
            inputs = x, tables, draws.keys(layer.num_dropouts) if layer.dropout else None, mask, cache
            x = recomputed(layer, *inputs) if self.recomputes and torch.is_grad_enabled() else layer(*inputs)
        return rms_norm(x, EPSILON)
