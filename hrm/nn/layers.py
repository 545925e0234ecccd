"""The building blocks of the HRM family: linear, embedding, norm, rotary, attention, SwiGLU, block, stack.

Follows sapientinc/HRM `models/layers.py` as restated in the project's mathematics: post-norm blocks, parameter-free
RMSNorm, no biases, weights in float32 and cast at use. Module names match the original's state dict.

Shapes: B rows, S positions, D hidden, N heads, K head size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrm.nn.draws import Draws

NORM_EPSILON = 1e-5
AttentionKernel = Literal["sdpa", "explicit"]


def truncated_normal(shape: tuple[int, ...], std: float) -> Tensor:
    """Normal values cut at two sigma whose standard deviation after the cut is `std` (so does JAX, torch does not)."""
    if std == 0.0:
        return torch.zeros(shape)
    edge = math.erf(math.sqrt(2.0))  # the mass within two sigma
    density = math.exp(-2.0) / math.sqrt(2.0 * math.pi)
    sigma = std / math.sqrt(1.0 - 4.0 * density / edge)
    uniform = torch.rand(shape) * 2.0 * edge - edge
    return (torch.erfinv(uniform) * math.sqrt(2.0) * sigma).clamp_(-2.0 * sigma, 2.0 * sigma)


def rms_norm(x: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + 1e-5) over the last dimension, computed in float32, without parameters."""
    return F.rms_norm(x, (x.shape[-1],), eps=NORM_EPSILON)


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
        return F.embedding(ids, self.embedding_weight.to(dtype))


class Rotary(nn.Module):
    """Rotary position embedding (Su et al. 2021), rotate-half form, tables in float32."""

    def __init__(self, head_size: int, length: int, theta: float) -> None:
        super().__init__()
        frequencies = theta ** (-torch.arange(0, head_size, 2, dtype=torch.float32) / head_size)
        angles = torch.outer(torch.arange(length, dtype=torch.float32), frequencies).repeat(1, 2)
        self.register_buffer("cos", angles.cos(), persistent=False)
        sign = torch.cat((-torch.ones(head_size // 2), torch.ones(head_size // 2)))
        self.register_buffer("signed_sin", angles.sin() * sign, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., S, K] -> the same, rotated; computed in float32 like the original, given back in x's dtype."""
        length = x.shape[-2]
        cos, sin = self.get_buffer("cos")[:length], self.get_buffer("signed_sin")[:length]
        low, high = x.chunk(2, dim=-1)
        return torch.addcmul(x.float() * cos, torch.cat((high, low), dim=-1).float(), sin).to(x.dtype)


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

    @property
    def inner_size(self) -> int:
        """SwiGLU's inner width: expansion * hidden * 2/3, rounded up to a multiple of 256."""
        return -(-round(self.expansion * self.hidden_size * 2 / 3) // 256) * 256

    def flops(self, length: int) -> float:
        """Forward operations of one block on one row of `length` positions, counting the whole attention square."""
        d = self.hidden_size
        return 2.0 * length * (4 * d * d + 3 * d * self.inner_size) + 4.0 * length * length * d


class Attention(nn.Module):
    """Multi-head attention with one fused projection (rows ordered q, k, v) and no biases."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.num_heads, self.causal = shape.num_heads, shape.causal
        self.kernel: AttentionKernel = "sdpa"
        self.qkv_proj = Linear(shape.hidden_size, 3 * shape.hidden_size)
        self.o_proj = Linear(shape.hidden_size, shape.hidden_size)

    def forward(self, x: Tensor, rotary: Rotary | None) -> Tensor:
        rows, length, size = x.shape
        qkv = self.qkv_proj(x).view(rows, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        v = qkv[2]
        q, k = qkv[:2] if rotary is None else rotary(qkv[:2])
        if self.kernel == "sdpa":
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        else:
            mixed = _explicit_attention(q, k, v, self.causal)
        y: Tensor = self.o_proj(mixed.transpose(1, 2).reshape(rows, length, size))
        return y


def _explicit_attention(q: Tensor, k: Tensor, v: Tensor, causal: bool) -> Tensor:
    """The same by plain matrix products, softmax in float32: on a CPU in bfloat16 its backward pass is 4 times as fast
    as that of PyTorch's fused kernel at the lengths of these tasks."""
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2)).float()
    if causal:
        length = scores.shape[-1]
        scores = scores + torch.full((length, length), -torch.inf, device=q.device).triu(1)
    return torch.matmul(scores.softmax(-1).to(v.dtype), v)


class SwiGLU(nn.Module):
    """down(silu(gate) * up), gate and up from one projection (Shazeer 2020)."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.gate_up_proj = Linear(shape.hidden_size, 2 * shape.inner_size)
        self.down_proj = Linear(shape.inner_size, shape.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        y: Tensor = self.down_proj(F.silu(gate) * up)
        return y


class CausalConvolution(nn.Module):
    """Depthwise convolution over positions t-k+1 .. t: a local pattern detector that does not see the future."""

    def __init__(self, size: int, kernel: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(truncated_normal((kernel, size), kernel**-0.5))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype)
        length, kernel = x.shape[1], weight.shape[0]
        padded = F.pad(x, (0, 0, kernel - 1, 0))
        y = padded[:, :length] * weight[0]
        for offset in range(1, kernel):
            y = y + padded[:, offset : offset + length] * weight[offset]
        return y


class Block(nn.Module):
    """x = rms(x + attention(x)); [x = rms(x + convolution(x));] x = rms(x + mlp(x)), dropout on each branch."""

    def __init__(self, shape: BlockShape) -> None:
        super().__init__()
        self.dropout = shape.dropout
        self.self_attn = Attention(shape)
        self.conv = CausalConvolution(shape.hidden_size, shape.convolution) if shape.convolution else None
        self.mlp = SwiGLU(shape)

    def forward(self, x: Tensor, rotary: Rotary | None, draws: Draws) -> Tensor:
        x = rms_norm(x + draws.dropout(self.self_attn(x, rotary), self.dropout))
        if self.conv is not None:
            x = rms_norm(x + draws.dropout(self.conv(x), self.dropout))
        return rms_norm(x + draws.dropout(self.mlp(x), self.dropout))


class Stack(nn.Module):
    """Blocks one after another."""

    def __init__(self, num_layers: int, shape: BlockShape) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(shape) for _ in range(num_layers))

    def forward(self, x: Tensor, rotary: Rotary | None, draws: Draws) -> Tensor:
        for layer in self.layers:
            x = layer(x, rotary, draws)
        return x
