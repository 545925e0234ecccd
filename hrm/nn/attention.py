"""Multi-head attention with rotary positions, by the kernel that is fast here.

Shapes: B rows, S positions, N heads, K head size. Kernels compute the same to rounding: `sdpa` is PyTorch's own, `flash`
the flash-attn package (3 or 2), `explicit` plain matrix products where gradients flow.
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
        frequencies = theta ** (-torch.arange(0, head_size, 2, dtype=torch.float32) / head_size)
        angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies).repeat(1, 2)
        sign = torch.cat((-torch.ones(head_size // 2), torch.ones(head_size // 2)))
        self.register_buffer("tables", torch.stack((angles.cos(), angles.sin() * sign)), persistent=False)

    def forward(self, length: int) -> Tensor:
        """[2, length, K]: cosines, and sines with the sign that rotate-half needs."""
        return self.get_buffer("tables")[:, :length]


def rotate(x: Tensor, tables: Tensor) -> Tensor:
    """x [..., S, K] rotated; computed in float32 like the original, given back in x's dtype."""
    low, high = x.chunk(2, dim=-1)
    return torch.addcmul(x.float() * tables[0], torch.cat((high, low), dim=-1).float(), tables[1]).to(x.dtype)


def attend(q: Tensor, k: Tensor, v: Tensor, causal: bool, mask: Tensor | None, kernel: AttentionKernel) -> Tensor:
    """[B, N, S, K] each -> [B, S, N * K]. mask [B, 1, S, S] bool, True where a position may look; instead of `causal`."""
    if kernel == "flash" and mask is None:
        mixed = flash_attention()(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), causal=causal)
        mixed = mixed[0] if isinstance(mixed, tuple) else mixed
        return mixed.flatten(2)
    if kernel == "explicit" and torch.is_grad_enabled():
        mixed = _explicit_attention(q, k, v, causal, mask)
    else:
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal and mask is None)
    return mixed.transpose(1, 2).flatten(2)


def _explicit_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool, mask: Tensor | None) -> Tensor:
    """Plain matrix products, softmax in float32: on a CPU in bfloat16 its backward pass is several times as fast as that
    of PyTorch's fused kernel at the lengths of puzzles; it stores all scores, so it does not suit long rows."""
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
