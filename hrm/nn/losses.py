"""Cross-entropies by position, in float32, with ignored labels at zero, and what a training adds to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from hrm.tasks import IGNORE

LossKind = Literal["softmax", "stablemax"]


@dataclass(frozen=True, slots=True)
class LossTerms:
    """What a training minimises (`hrm.trial.TrialSpec` says what each means); by default the cross-entropy alone."""

    kind: LossKind = "softmax"
    label_smoothing: float = 0.0
    z_loss: float = 0.0
    q_weight: float = 0.5

    @property
    def is_plain(self) -> bool:
        """True where what is trained at a position is its cross-entropy."""
        return not self.label_smoothing and not self.z_loss


def cross_entropy(logits: Tensor, labels: Tensor, kind: LossKind) -> Tensor:
    """Nats by position: logits [..., V], labels [...] with -100 where nothing is scored -> [...] float32."""
    if kind == "softmax":
        flat = F.cross_entropy(logits.float().flatten(0, -2), labels.flatten(), ignore_index=IGNORE, reduction="none")
        return flat.view(labels.shape)
    scored = labels != IGNORE
    logs = stablemax_log(logits)
    picked = logs.gather(-1, labels.where(scored, 0).unsqueeze(-1)).squeeze(-1)
    return -picked * scored


def trained_loss(logits: Tensor, labels: Tensor, terms: LossTerms) -> tuple[Tensor, Tensor, Tensor]:
    """By position, all [...] float32: what is trained (with gradient), the cross-entropy, log Z squared (0 if unused).

    Z is what the probabilities are divided by: sum exp(x) for softmax, sum s(x) for stablemax.
    """
    if terms.is_plain:
        nats = cross_entropy(logits, labels, terms.kind)
        return nats, nats.detach(), torch.zeros_like(nats)
    scored = labels != IGNORE
    scores = logits.float() if terms.kind == "softmax" else _log_s(logits)
    log_z = scores.logsumexp(-1)
    nats = log_z - scores.gather(-1, labels.where(scored, 0).unsqueeze(-1)).squeeze(-1)
    # The cross-entropy to a target that spreads this share evenly over the vocabulary
    smoothed = nats.lerp(log_z - scores.mean(-1), terms.label_smoothing)
    squared = log_z.square()
    trained = (smoothed + terms.z_loss * squared) * scored
    return trained, (nats * scored).detach(), (squared * scored).detach()


def log_probabilities(logits: Tensor, kind: LossKind) -> Tensor:
    """[..., V] float32: the log of what the model gives each token."""
    return logits.float().log_softmax(-1) if kind == "softmax" else stablemax_log(logits)


def stablemax_log(logits: Tensor) -> Tensor:
    """log of stablemax: s(x) = x+1 for x >= 0, 1/(1-x) below, normalised (Prieto et al. 2025).

    The original computes s in float64; here log s(x) = sign(x) log1p(|x|) in float32, which agrees to 1e-6.
    """
    log_s = _log_s(logits)
    return log_s - log_s.logsumexp(-1, keepdim=True)


def _log_s(logits: Tensor) -> Tensor:
    x = logits.float()
    return torch.copysign(x.abs().log1p(), x)
