"""What a model does with rows, segment by segment: what it says, how sure it is, how far its states still move.

The same computation as an evaluation (`hrm.evaluate`), of which it keeps every segment and not the last alone. The
depth may exceed the trained one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hrm.context import TrainContext
from hrm.data.dataset import Dataset
from hrm.evaluate import to_device, to_host
from hrm.models import Model, SegmentOutput, State
from hrm.nn.draws import Draws
from hrm.nn.halting import HaltingSpec
from hrm.nn.losses import LossKind, cross_entropy, log_probabilities
from hrm.tasks import IGNORE

if TYPE_CHECKING:
    from hrm.trial import TrialSpec

_STRIDE = 7919
"""A prime: rows one after the other are looked at in places that have nothing to do with each other."""
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Trace:
    """B rows of S positions over T segments."""

    rows: Mapping[str, np.ndarray]
    """The columns: `inputs` and `labels` [B, S], and whatever else the task stores."""
    numbers: np.ndarray
    """[B]: the rows' numbers in their split."""
    predictions: np.ndarray
    """[T, B, S] int32: the most likely token."""
    probabilities: np.ndarray
    """[T, B, S] float32: of that token, by softmax or stablemax as the trial trains."""
    losses: np.ndarray
    """[T, B] float64: nats, summed over the scored positions."""
    q: np.ndarray | None = None
    """[T, B, 2] float32: halt and continue logits; None for a model without a Q."""
    residuals: dict[str, np.ndarray] = field(default_factory=dict)
    """By state [T, B] float32: ||z_t - z_(t-1)|| / ||z_t||; empty for a model without state."""
    halts: np.ndarray | None = None
    """[B]: the segment, from 1, at which the rule of training would have ended the row, at its last one for certain; 0
    where it would have gone on beyond these T."""
    states: dict[str, np.ndarray] = field(default_factory=dict)
    """By state [B, D] float32: after the last segment, at one scored position of each row, another one in another row;
    where it was asked for."""
    logits: np.ndarray | None = None
    """[B, S, V] float32: of the last segment; where it was asked for."""

    @property
    def scored(self) -> np.ndarray:
        """[B, S] bool: the positions that count."""
        return np.asarray(self.rows["labels"] != IGNORE)

    @property
    def correct(self) -> np.ndarray:
        """[T, B, S] bool: scored positions that are right."""
        return np.asarray((self.predictions == self.rows["labels"]) & self.scored)

    @property
    def exact(self) -> np.ndarray:
        """[T, B] bool: rows with every scored position right."""
        return np.asarray(self.correct.sum(-1) == self.scored.sum(-1))


@torch.no_grad()
def trace(
    model: Model,
    columns: Mapping[str, np.ndarray],
    trial: TrialSpec,
    *,
    device: torch.device = CPU,
    numbers: np.ndarray | None = None,
    segments: int | None = None,
    keep_logits: bool = False,
    keep_states: bool = False,
) -> Trace:
    """One batch. numbers: of the rows in their split, from which random starts are drawn (default: from 0).

    segments: how many (default: those of the trial's halting rule). The model stays in evaluation mode.
    """
    model.eval()
    numbers = np.arange(len(columns["inputs"])) if numbers is None else numbers
    batch = to_device(columns, device)
    draws = Draws(trial.seed, 0, torch.from_numpy(numbers).to(device), training=False)
    state, parts = model.initial_state(len(numbers), draws), []
    for _ in range(segments or trial.model.halting_rule().segments):
        output = model.segment(state, batch, draws)
        parts.append(_said(output, state, batch["labels"], trial.loss))
        state = output.state
    q = np.stack([part["q"] for part in parts]) if output.q is not None else None
    return Trace(
        rows=columns,
        numbers=numbers,
        predictions=np.stack([part["predictions"] for part in parts]),
        probabilities=np.stack([part["probabilities"] for part in parts]),
        losses=np.stack([part["losses"] for part in parts]).astype(np.float64),
        q=q,
        residuals={name: np.stack([part[f"moved {name}"] for part in parts]) for name in state},
        halts=None if q is None else _halts(q, trial.model.halting_rule()),
        states={name: _sampled(z, columns["labels"], numbers) for name, z in state.items()} if keep_states else {},
        logits=to_host(output.logits.float()) if keep_logits else None,
    )


def traces(
    model: Model,
    dataset: Dataset,
    split: str,
    trial: TrialSpec,
    context: TrainContext,
    *,
    numbers: np.ndarray | None = None,
    segments: int | None = None,
) -> Iterator[Trace]:
    """A split, or its rows `numbers`, a batch at a time and in order. The model is on the context's device."""
    rows = dataset.split(split)
    numbers = np.arange(len(rows)) if numbers is None else numbers
    for start in range(0, len(numbers), trial.batch_size):
        some = numbers[start : start + trial.batch_size]
        yield trace(model, rows.gather(some), trial, device=context.device, numbers=some, segments=segments)
        context.beat()


def _said(output: SegmentOutput, before: State, labels: Tensor, loss: LossKind) -> dict[str, np.ndarray]:
    """One segment's share of a trace."""
    logits = output.logits
    best = log_probabilities(logits, loss).max(-1)
    said = {
        "predictions": best.indices.int(),
        "probabilities": best.values.exp(),
        "losses": cross_entropy(logits, labels, loss).sum(-1),
        **({} if output.q is None else {"q": output.q.float()}),
        **{f"moved {name}": _moved(before[name], z) for name, z in output.state.items()},
    }
    return {name: to_host(value) for name, value in said.items()}


def _moved(before: Tensor, after: Tensor) -> Tensor:
    """[B] float32: the change of a state, relative to what it is now."""
    now = after.float()
    change, size = (z.flatten(1).norm(dim=1) for z in (now - before.float(), now))
    moved: Tensor = change / size.clamp_min(1e-12)
    return moved


def _sampled(state: Tensor, labels: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """[B, D] of a state [B, P+S, D]: at one scored position of each row, which follows from the row's number."""
    scored = labels != IGNORE
    chosen = numbers * _STRIDE % np.maximum(scored.sum(1), 1)
    place = ((scored.cumsum(1) - 1 == chosen[:, None]) & scored).argmax(1) + state.shape[1] - labels.shape[1]
    return to_host(state[torch.arange(len(state)), torch.from_numpy(place)].float())


def _halts(q: np.ndarray, trained: HaltingSpec) -> np.ndarray:
    """[B] from q [T, B, 2]: the first segment that ends a row by the rule of training, without exploration; or 0."""
    done = (q[..., 0] > (q[..., 1] if trained.rule == "q_with_target" else 0.0))[: trained.segments]
    if len(done) == trained.segments:
        done[-1] = True
    return np.where(done.any(0), done.argmax(0) + 1, 0)
