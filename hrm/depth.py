"""What a model would have answered after each segment, and what every rule of halting would have seen there.

One full computation tells the accuracy and the cost of every threshold of every rule (`hrm.adaptive` runs one).
Shapes: T segments, N rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from hrm.adaptive import CPU
from hrm.evaluate import to_device, to_host
from hrm.halting_scores import Confidence, Gather, Halt, Rule, confidence, confidence_of, read, score
from hrm.models import Model
from hrm.nn.draws import Draws
from hrm.tasks import IGNORE

if TYPE_CHECKING:
    from hrm.trial import TrialSpec

Right = Callable[[Mapping[str, np.ndarray], np.ndarray], np.ndarray]
"""The columns of B rows and the tokens [B, S] that are said -> [B]: 1 where the answer counts as right, else 0."""


@dataclass(frozen=True, slots=True)
class Depth:
    """N rows over T segments."""

    right: np.ndarray
    """[T, N] float64, 0 or 1"""
    losses: np.ndarray
    """[T, N] float64: nats, summed over the scored positions."""
    scored: np.ndarray
    """[N] float64: scored positions."""
    confidence: np.ndarray
    """[T, N] float64"""
    scores: dict[Rule, np.ndarray]
    """By rule [T, N] float32; none of `fixed`."""

    def segments(self, halt: Halt) -> np.ndarray:
        """[N]: the segment, from 1, at which the rule ends each row."""
        done = np.zeros(self.right.shape, dtype=bool)
        if halt.rule != "fixed":
            scores = self.scores[halt.rule]
            done = scores <= halt.threshold if halt.rule == "residual" else scores >= halt.threshold
        done = done[: halt.segments].copy()
        done[-1] = True
        return np.asarray(done.argmax(axis=0) + 1)

    def at(self, values: np.ndarray, segments: np.ndarray) -> np.ndarray:
        """[N] of [T, N]: each row's at its own segment."""
        return np.asarray(values[segments - 1, np.arange(values.shape[1])])


def all_right(columns: Mapping[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    """Every scored position is right."""
    labels = columns["labels"]
    return np.asarray(((tokens == labels) | (labels == IGNORE)).all(axis=1), dtype=np.float64)


@torch.no_grad()
def depth(
    model: Model,
    gather: Gather,
    numbers: np.ndarray,
    trial: TrialSpec,
    rules: Sequence[Rule],
    *,
    segments: int | None = None,
    right: Right = all_right,
    sure_by: Confidence | None = None,
    device: torch.device = CPU,
) -> Depth:
    """Rows by number, all of them to the last segment (default: of the trial's halting rule)."""
    model.eval()
    looked = [rule for rule in rules if rule != "fixed"]
    sure_by = sure_by or confidence_of(trial.model)
    parts = []
    for start in range(0, len(numbers), trial.batch_size):
        some = numbers[start : start + trial.batch_size]
        columns = gather(some)
        rows, every = to_device(columns, device), torch.arange(len(some), device=device)
        draws = Draws(trial.seed, 0, torch.from_numpy(some).to(device, torch.int64), training=False)
        state, seen = model.initial_state(len(some), draws), []
        for _ in range(segments or trial.model.halting_rule().segments):
            output = model.segment(state, rows, draws)
            said = read(output, rows, every, trial.loss)
            found = {
                "losses": to_host(said.losses),
                "right": right(columns, to_host(said.tokens)),
                "confidence": to_host(confidence(sure_by, output, rows, every, said)),
            }
            seen.append(found | {str(rule): to_host(score(rule, state, output, rows)) for rule in looked})
            state = output.state
        scored = (columns["labels"] != IGNORE).sum(axis=1)
        parts.append({name: np.stack([one[name] for one in seen]) for name in seen[0]} | {"scored": scored[None]})
    whole = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
    return Depth(
        right=whole["right"].astype(np.float64),
        losses=whole["losses"].astype(np.float64),
        scored=whole["scored"][0].astype(np.float64),
        confidence=whole["confidence"].astype(np.float64),
        scores={rule: whole[rule] for rule in looked},
    )
