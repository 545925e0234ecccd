"""Cross-entropies by position, in float32, with ignored labels at zero."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hrm.tasks import IGNORE

LossKind = Literal["softmax", "stablemax"]


def cross_entropy(logits: Tensor, labels: Tensor, kind: LossKind) -> Tensor:
    """Nats by position: logits [B, S, V], labels [B, S] with -100 where nothing is scored -> [B, S] float32."""
    if kind == "softmax":
        flat = F.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORE, reduction="none")
        return flat.view(labels.shape)
    scored = labels != IGNORE
    logs = stablemax_log(logits)
    picked = logs.gather(-1, labels.where(scored, 0).unsqueeze(-1)).squeeze(-1)
    return -picked * scored


def log_probabilities(logits: Tensor, kind: LossKind) -> Tensor:
    """[..., V] float32: the log of what the model gives each token."""
    return logits.float().log_softmax(-1) if kind == "softmax" else stablemax_log(logits)


def stablemax_log(logits: Tensor) -> Tensor:
    """log of stablemax: s(x) = x+1 for x >= 0, 1/(1-x) below, normalised (Prieto et al. 2025).

    The original computes s in float64; here log s(x) = sign(x) log1p(|x|) in float32, which agrees to 1e-6.
    """
    x = logits.float()
    log_s = torch.copysign(x.abs().log1p(), x)
    return log_s - log_s.logsumexp(-1, keepdim=True)
