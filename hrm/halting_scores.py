"""By what a row is ended in use: its Q, how far its states still move, or a fixed depth; and how sure its answer is.

Every rule has one score a row and segment, and a threshold that it is held against. A row that has a column `read_at`
(a context whose next token is asked for) is scored and read at that position alone, all others as a whole.

Shapes: B rows, S positions, P positions before them, D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from hrm.errors import Problem, SpecError
from hrm.models import ModelSpec, Rows, SegmentOutput, State
from hrm.nn.losses import LossKind, cross_entropy, log_probabilities
from hrm.tasks import IGNORE

Rule = Literal["fixed", "q", "margin", "residual"]
"""`fixed`: so many segments. `q`: sigmoid(q_halt) reaches the threshold; where each position has a Q (halting.rule
`q_loss`), that of the position that is read. `margin`: sigmoid(q_halt - q_continue) does, for models that are trained
to compare the two. `residual`: ||z_t - z_(t-1)|| / ||z_t|| of the state that moves most comes down to it."""
RULES: tuple[Rule, ...] = get_args(Rule)
READ_AT = "read_at"
Gather = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""Rows by number, as columns (`hrm.data.dataset.Rows.gather`)."""
Confidence = Literal["q", "least", "mean"]
"""`q`: sigmoid(q_halt). `least`, `mean`: of the probabilities of the tokens that are said, over the scored positions
(over all where none is)."""


@dataclass(frozen=True, slots=True)
class Halt:
    """What ends a row: its score, or the last segment."""

    rule: Rule
    segments: int
    """The most that a row gets."""
    threshold: float = 0.0

    def __str__(self) -> str:
        if self.rule == "fixed":
            return f"fixed {self.segments}"
        return f"{self.rule} {'<=' if self.rule == 'residual' else '>='} {self.threshold:.4g}"

    def ended(self, scores: Tensor, age: Tensor) -> Tensor:
        """[B] bool: by its score, or because it has had all its segments."""
        return reached(self.rule, scores, self.threshold) | (age >= self.segments)


@dataclass(frozen=True, slots=True)
class Read:
    """An answer."""

    tokens: Tensor
    """[B, S] int32, [B, 1] where rows have `read_at`."""
    losses: Tensor
    """[B] float32: nats, summed over the scored positions."""
    least: Tensor
    mean: Tensor


def reached(rule: Rule, scores: Tensor, threshold: float) -> Tensor:
    """Which scores end a row."""
    if rule == "fixed":
        return torch.zeros_like(scores, dtype=torch.bool)
    return scores <= threshold if rule == "residual" else scores >= threshold


def score(rule: Rule, before: State, output: SegmentOutput, rows: Rows) -> Tensor:
    """[B] float32: what the rule looks at after a segment."""
    if rule == "fixed":
        return torch.zeros(len(output.answer), device=output.answer.device)
    if rule == "residual":
        return residual(before, output.state, rows.get(READ_AT), output.answer.shape[1])
    if rule == "margin":
        assert output.q is not None
        return (output.q[:, 0] - output.q[:, 1]).float().sigmoid()
    return halt_logits(output, rows).sigmoid()


def halt_logits(output: SegmentOutput, rows: Rows) -> Tensor:
    """[B] float32: the Q of the row, or of the position that is read where each has its own (halting.rule `q_loss`)."""
    if output.q_positions is not None:
        return _at(output.q_positions.float(), rows[READ_AT])
    assert output.q is not None
    return output.q[:, 0].float()


def residual(before: State, after: State, read_at: Tensor | None, length: int) -> Tensor:
    """[B] float32: the relative change of the state that moves most."""
    changes = []
    for name, z in after.items():
        now, then = z.float(), before[name].float()
        if read_at is not None:
            now, then = (_at(value, read_at + value.shape[1] - length) for value in (now, then))
        change, size = (value.flatten(1).norm(dim=1) for value in (now - then, now))
        changes.append(change / size.clamp_min(1e-12))
    return torch.stack(changes).amax(0)


def read(output: SegmentOutput, rows: Rows, which: Tensor, loss: LossKind) -> Read:
    """What the rows `which` say now. The head computes these alone."""
    answer, labels = output.answer[which], rows["labels"][which]
    if READ_AT in rows:
        answer = _at(answer, rows[READ_AT][which]).unsqueeze(1)
    logits = output.head(answer)
    best = log_probabilities(logits, loss).max(-1)
    share, scored = best.values.exp(), labels != IGNORE
    counts = scored | ~scored.any(-1, keepdim=True)
    return Read(
        tokens=best.indices.int(),
        losses=cross_entropy(logits, labels, loss).sum(-1).float(),
        least=share.where(counts, 1.0).amin(-1),
        mean=(share * counts).sum(-1) / counts.sum(-1),
    )


def confidence(kind: Confidence, output: SegmentOutput, rows: Rows, which: Tensor, said: Read) -> Tensor:
    """[B]: how sure the answers of the rows `which` are."""
    if kind == "q":
        return halt_logits(output, rows)[which].sigmoid()
    return said.least if kind == "least" else said.mean


def confidence_of(model: ModelSpec) -> Confidence:
    """`q` where the model has one that says whether the answer is right, else `least`."""
    return "q" if model.halting_rule().rule in ("q", "q_with_target") else "least"


def rules_for(model: ModelSpec, has_state: bool) -> tuple[Rule, ...]:
    """The rules that mean something for a model."""
    trained = model.halting_rule().rule
    possible = {"fixed": True, "q": trained != "none", "margin": trained == "q_with_target", "residual": has_state}
    return tuple(rule for rule in RULES if possible[rule])


def _at(values: Tensor, places: Tensor) -> Tensor:
    """[B, ...] of [B, S, ...]: each row's at its own place."""
    return values[torch.arange(len(values), device=values.device), places]


def refuse_rule(rule: Rule, model: ModelSpec, has_state: bool, place: str) -> None:
    """Raises SpecError for a rule that means nothing for the model."""
    known = rules_for(model, has_state)
    if rule in known:
        return
    why = {
        "q": "a Q, and halting.rule is `none`",
        "margin": "a Q that was trained with halting.rule `q_with_target`",
        "residual": "a state that segments hand on",
    }[rule]
    given = f"`{rule}` needs {why}, got a {model.kind} with halting.rule {model.halting_rule().rule!r}"
    raise SpecError(Problem(place, given, f"Give one of {', '.join(known)}"))
