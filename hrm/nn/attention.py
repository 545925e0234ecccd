"""Multi-head attention with rotary positions, by the kernel that is fast here.

Shapes: B rows, S positions, N heads, K head size. Kernels compute the same to rounding: `sdpa` is PyTorch's own,
`flash` the flash-attn package (3 or 2), `explicit` plain matrix products.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

AttentionKernel = Literal["sdpa", "explicit", "flash"]


class Rotary(nn.Module):
    """Rotary position embedding (Su et al. 2021), rotate-half form, tables in float32."""

    def __init__(self, head_size: int, length: int, theta: float) -> None:
        super().__init__()
        with torch.device("cpu"):  # also where a model is built on meta: there `arange` loads torch's compiler, seconds
            frequencies = theta ** (-torch.arange(0, head_size, 2, dtype=torch.float32) / head_size)
            angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies)
        self.register_buffer("tables", torch.stack((angles.cos(), angles.sin())), persistent=False)

    def forward(self, positions: Tensor) -> Tensor:
        """Cosines and sines [2, S, K / 2] at positions [S], [2, B, 1, S, K / 2] at positions [B, S]."""
        tables = self.get_buffer("tables")[:, positions]
        return tables if positions.dim() == 1 else tables.unsqueeze(2)


def rotate(x: Tensor, tables: Tensor) -> Tensor:
    """x [..., S, K] rotated; computed in float32 like the original, given back in x's dtype."""
    rotated: Tensor = _Rotate.apply(x, tables)  # type: ignore[no-untyped-call]
    return rotated


class _Rotate(torch.autograd.Function):
    """The rotation and, as its gradient, the rotation back: few passes over memory, which are what it costs."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, tables: Tensor) -> Tensor:
        ctx.save_for_backward(tables)
        return _turn(x, tables[0], tables[1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (tables,) = ctx.saved_tensors
        return _turn(gradient, tables[0], -tables[1]), None


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = x.float().chunk(2, dim=-1)
    rotated = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    first, second = rotated.chunk(2, dim=-1)
    first.copy_((low * cos).addcmul_(high, sin, value=-1.0))
    second.copy_((high * cos).addcmul_(low, sin))
    return rotated


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool, mask: Tensor | None, kernel: AttentionKernel) -> Tensor:
    """q [B, N, S, K], k and v [B, N, T, K] -> [B, S, N * K]. mask [B, 1, S, T]: True where a position may look,
    instead of `causal`."""
    if kernel == "flash" and mask is None:
        mixed = flash_attention()(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), causal=causal)
        flat: Tensor = (mixed[0] if isinstance(mixed, tuple) else mixed).flatten(2)
        return flat
    if kernel == "explicit":
        mixed = _explicit_attention(q, k, v, causal, mask)
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal and mask is None)
    return mixed.transpose(1, 2).flatten(2)


def _explicit_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool, mask: Tensor | None) -> Tensor:
    """Plain matrix products, softmax in float32: at the lengths of puzzles, on a CPU in bfloat16, its backward pass is
    twice as fast as that of PyTorch's fused kernel. It stores all scores, so it does not suit long rows."""
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2)).float()
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    elif causal:
        length = scores.shape[-1]
        scores = scores + torch.full((length, length), -torch.inf, device=q.device).triu(1)
    return torch.matmul(scores.softmax(-1).to(v.dtype), v)


@cache
def flash_attention() -> Any:
    """flash-attn's function, version 3 or else 2; None where neither is installed and loads."""
    for package in ("flash_attn_interface", "flash_attn"):
        try:
            return __import__(package).flash_attn_func
        except (ImportError, AttributeError, OSError):  # OSError: built for another torch or CUDA
            continue
    return None
