"""The recursive models once more, straight from their formulas, in float64: loops over heads, positions and cycles.

Shares nothing with `hrm.nn`. Takes the weights of a model and gives what a segment of it must give.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import repeat
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hrm.models.recursion import RecursiveModel

State = dict[str, Tensor]
STARTS = {"z_H": "H_init", "z_L": "L_init", "h": "init_hidden"}


class Naive:
    """A recursive model without dropout."""

    def __init__(self, model: RecursiveModel) -> None:
        self.spec: Any = model.spec
        trained = dict(model.named_parameters())
        self.weights = {
            name: value.detach().double().clone().requires_grad_(name in trained)
            for name, value in model.state_dict().items()
        }

    def start(self, num_rows: int, length: int) -> State:
        return {
            state: self.weights[name].expand(num_rows, length, -1)
            for state, name in STARTS.items()
            if name in self.weights
        }

    def segment(self, state: State, rows: dict[str, Tensor], noise: Iterator[Tensor] | None = None) -> Any:
        """The new state, logits [B, S, V] and q [B, 2]. noise: of each call in turn, of unit size; None for none."""
        x, c, total, made = self.inputs(rows), self.spec, self.num_calls(), 0
        z, noises = dict(state), noise or repeat(0.0)

        def update(name: str, level: str, value: Tensor) -> None:
            nonlocal made
            made += 1
            with torch.set_grad_enabled(made > total - self.num_with_gradient()):
                new = self.stack(level, value)
                z[name] = c.damping * z[name] + (1 - c.damping) * new + c.noise * next(noises)

        if c.kind in ("hrm", "trm"):
            high = "H_level" if c.kind == "hrm" else "L_level"
            for _ in range(c.H_cycles):
                for _ in range(c.L_cycles):
                    update("z_L", "L_level", z["z_L"] + z["z_H"] + x)
                update("z_H", high, z["z_H"] + z["z_L"])
        else:
            for _ in range(total):
                update("h", "level", z["h"] + x)
        answer = z["z_H"] if "z_H" in z else z["h"]
        logits = answer[:, x.shape[1] - rows["inputs"].shape[1] :] @ self.weights["lm_head.weight"].T
        q = answer[:, 0] @ self.weights["q_head.weight"].T + self.weights["q_head.bias"]
        return z, logits, q

    def num_calls(self) -> int:
        c = self.spec
        if c.kind == "universal_transformer":
            return int(c.cycles)
        return int(c.H_cycles * (c.L_cycles + (c.kind != "urm")))

    def num_with_gradient(self) -> int:
        c = self.spec
        own = {"hrm": lambda: 2, "trm": lambda: c.L_cycles + 1, "urm": lambda: c.L_cycles}
        return int(c.gradient_steps or own.get(c.kind, self.num_calls)())

    def inputs(self, rows: dict[str, Tensor]) -> Tensor:
        w, size = self.weights, self.spec.hidden_size
        x = w["embed_tokens.embedding_weight"][rows["inputs"]]
        if "puzzle_emb.weights" in w:
            vectors = w["puzzle_emb.weights"][rows["puzzle_identifiers"]]
            tokens = self.spec.puzzle_tokens or -(-vectors.shape[1] // size)
            padded = torch.zeros(len(vectors), tokens * size, dtype=torch.float64)
            padded[:, : vectors.shape[1]] = vectors
            x = torch.cat((padded.view(-1, tokens, size), x), dim=1)
        if "embed_pos.embedding_weight" in w:
            x = 0.5**0.5 * (x + w["embed_pos.embedding_weight"])
        return x * size**0.5

    def stack(self, level: str, x: Tensor) -> Tensor:
        number = 0
        while any(name.startswith(f"{level}.layers.{number}.") for name in self.weights):
            prefix = f"{level}.layers.{number}"
            if f"{prefix}.mlp_t.down_proj.weight" in self.weights:
                x = rms(x.mT + self.mlp(f"{prefix}.mlp_t", x.mT)).mT
            else:
                x = rms(x + self.attention(f"{prefix}.self_attn", x))
            if f"{prefix}.conv.weight" in self.weights:
                x = rms(x + convolved(x, self.weights[f"{prefix}.conv.weight"]))
            x = rms(x + self.mlp(f"{prefix}.mlp", x))
            number += 1
        return x

    def attention(self, prefix: str, x: Tensor) -> Tensor:
        size, head = x.shape[-1], x.shape[-1] // self.spec.num_heads
        q, k, v = (x @ self.weights[f"{prefix}.qkv_proj.weight"].T).split(size, dim=-1)
        hidden = torch.ones(x.shape[1], x.shape[1]).triu(1).bool() & self.spec.causal
        mixed = []
        for first in range(0, size, head):
            part = slice(first, first + head)
            qs, ks = self.turned(q[..., part]), self.turned(k[..., part])
            scores = (qs @ ks.mT / head**0.5).masked_fill(hidden, -torch.inf)
            mixed.append(scores.softmax(-1) @ v[..., part])
        return torch.cat(mixed, dim=-1) @ self.weights[f"{prefix}.o_proj.weight"].T

    def turned(self, x: Tensor) -> Tensor:
        """The pairs (i, i + K/2) of position t turned by the angle t / theta^(2i/K)."""
        if self.spec.positions != "rotary":
            return x
        half = x.shape[-1] // 2
        rates = self.spec.rotary_theta ** -(torch.arange(half, dtype=torch.float64) / half)
        angles = torch.outer(torch.arange(x.shape[1], dtype=torch.float64), rates)
        turned = torch.complex(x[..., :half], x[..., half:]) * torch.polar(torch.ones_like(angles), angles)
        return torch.cat((turned.real, turned.imag), dim=-1)

    def mlp(self, prefix: str, x: Tensor) -> Tensor:
        gate, up = (x @ self.weights[f"{prefix}.gate_up_proj.weight"].T).chunk(2, dim=-1)
        hidden = F.silu(gate) * up
        if f"{prefix}.dwconv.weight" in self.weights:
            weight = self.weights[f"{prefix}.dwconv.weight"][:, 0].T
            hidden = F.silu(convolved(hidden, weight) + self.weights[f"{prefix}.dwconv.bias"])
        return hidden @ self.weights[f"{prefix}.down_proj.weight"].T


def rms(x: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def convolved(x: Tensor, weight: Tensor) -> Tensor:
    """Channel by channel over positions t-k+1 .. t. x [B, S, D], weight [k, D], its last row for position t."""
    places = []
    for t in range(x.shape[1]):
        seen = range(max(0, t - len(weight) + 1), t + 1)
        places.append(sum((x[:, at] * weight[at - t - 1] for at in seen), torch.zeros_like(x[:, 0])))
    return torch.stack(places, dim=1)
