"""Muon (Jordan et al. 2024) for the hidden layers' matrices, AdamW for all else; plain PyTorch. In bfloat16 it is
`torch.optim.Muon`, which torch 2.8 does not have yet.

m = lerp(m, g, 1-momentum); p *= 1 - lr*wd; p -= lr * sqrt(max(1, rows/columns)) * orthogonal(lerp(g, m, momentum)),
where `orthogonal` brings all singular values near 1. Fused weights (q, k and v; gate and up) count as one matrix.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, Literal, Self

import torch
from pydantic import Field
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from hrm.models import Model
from hrm.optim import Beta, Group, OptimizerSpec

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


class MuonSpec(OptimizerSpec):
    """Muon on matrices, AdamW (`beta1`, `beta2`) on the rest; rates and decays are those of SIC (arXiv 2601.19085)."""

    kind: Literal["muon"] = "muon"
    learning_rate: float = Field(0.02, gt=0.0, le=1.0)
    """Of the matrices, at its peak. No step depends on the size of a gradient: rates of AdamW do not carry over."""
    weight_decay: float = Field(0.005, ge=0.0)
    momentum: Beta = 0.95
    adamw_learning_rate: float = Field(1e-4, gt=0.0, le=1.0)
    """Of embeddings and vectors, at its peak."""
    embedding_weight_decay: float | None = Field(1.0, ge=0.0)
    vector_weight_decay: float | None = Field(1.0, ge=0.0)
    epsilon: float = Field(1e-8, gt=0.0)

    def build(self, model: Model) -> Optimizer:
        """The iteration runs in the model's compute dtype: bfloat16 as in the original, float32 where all is."""
        betas = (self.beta1, self.beta2)
        return Muon(self.groups(model), self.momentum, model.compute_dtype, betas, self.epsilon)

    def peak(self, group: Group) -> float:
        return self.learning_rate if group == "matrices" else self.adamw_learning_rate

    @classmethod
    def smoke(cls) -> Self:
        return cls(learning_rate=0.01, adamw_learning_rate=1e-3)


class Muon(Optimizer):
    """The optimizer itself; state of a matrix: `momentum_buffer`; of all else: `step`, `exp_avg`, `exp_avg_sq`."""

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        momentum: float = 0.95,
        dtype: torch.dtype = torch.bfloat16,
        betas: tuple[float, float] = (0.9, 0.95),
        epsilon: float = 1e-8,
    ) -> None:
        """Takes Muon's step in the group whose `name` is `matrices`."""
        # `fused`: Optimizer.load_state_dict reads it, and puts AdamW's `step` on the parameter's device
        defaults = {"momentum": momentum, "dtype": dtype, "betas": betas, "eps": epsilon, "fused": True}
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                move = self._orthogonal_step if group["name"] == "matrices" else self._adamw_step
                move(parameters, [p.grad for p in parameters], group)

    def _orthogonal_step(self, parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        rate, momentum = group["lr"], group["momentum"]
        buffers = [self._state_of(p, "momentum_buffer")["momentum_buffer"] for p in parameters]
        torch._foreach_lerp_(buffers, gradients, 1.0 - momentum)
        ahead = torch._foreach_lerp(gradients, buffers, momentum)  # Nesterov
        torch._foreach_mul_(parameters, 1.0 - rate * group["weight_decay"])
        by_shape: dict[torch.Size, list[int]] = defaultdict(list)
        for i, parameter in enumerate(parameters):
            by_shape[parameter.shape].append(i)
        for (rows, columns), places in by_shape.items():
            updates = orthogonal(torch.stack([ahead[i] for i in places]).to(group["dtype"]))
            for i, update in zip(places, updates, strict=True):
                parameters[i].add_(update, alpha=-rate * max(1.0, rows / columns) ** 0.5)

    def _adamw_step(self, parameters: list[Tensor], gradients: list[Tensor], group: dict[str, Any]) -> None:
        states = [self._state_of(p, "exp_avg", "exp_avg_sq") for p in parameters]
        for parameter, state in zip(parameters, states, strict=True):
            state.setdefault("step", torch.zeros((), device=parameter.device))
        adamw(
            parameters,
            gradients,
            [s["exp_avg"] for s in states],
            [s["exp_avg_sq"] for s in states],
            [],
            [s["step"] for s in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _state_of(self, parameter: Tensor, *moments: str) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state.update({name: torch.zeros_like(parameter) for name in moments})
        return state


def orthogonal(x: Tensor) -> Tensor:
    """[K, rows, columns] -> the same with singular values brought near 1 (0.7 to 1.2): five Newton-Schulz steps.

    A stack costs as much as its matrices one by one where they are large, and half of it where they are small.
    """
    a, b, c = _COEFFICIENTS
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
