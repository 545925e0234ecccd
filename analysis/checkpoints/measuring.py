"""Weights measured on chosen rows of a split, segment by segment and row by row.

One model is loaded with one set of weights after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from analysis.checkpoints.row_choice import RowChoice
from analysis.checkpoints.row_intervals import Estimate, Sums, interval
from hrm.context import TrainContext
from hrm.data.dataset import Dataset
from hrm.models import Model
from hrm.nn.losses import log_probabilities
from hrm.tasks import IGNORE, Answers
from hrm.trace import Trace, trace
from hrm.trial import TrialSpec

Array = npt.NDArray[np.float64]
Weights = Mapping[str, Tensor]
COMMON = ("loss", "token_accuracy", "exact_accuracy")
"""Metrics that every segment of every task has."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What one set of weights does on N rows over T segments."""

    losses: Array
    """[T, N]: nats, summed over scored positions."""
    tokens: Array
    """[N]: scored positions."""
    correct: Array
    """[T, N]: of these the right ones."""
    exact: Array
    """[T, N]: 1 where all are right."""
    changed: Array
    """[T, N]: scored positions that say another thing than a segment before; 0 at the first."""
    predictions: np.ndarray
    """[N, S]: after the last segment."""
    scored: np.ndarray
    """[N, S] bool."""
    q: np.ndarray | None = None
    """[T, N, 2]"""
    halts: np.ndarray | None = None
    """[N]: from 1."""
    residuals: dict[str, np.ndarray] = field(default_factory=dict)
    """By state [T, N]."""
    states: dict[str, np.ndarray] = field(default_factory=dict)
    """By state [N, D]."""
    own: dict[str, Sums] = field(default_factory=dict)
    """The task's own metrics after the last segment; where they were asked for."""

    @property
    def segments(self) -> int:
        """T."""
        return len(self.losses)

    def metric(self, name: str, segment: int | np.ndarray = -1) -> Sums:
        """One of `COMMON` after a segment (from 0), or after a segment of each row's own [N]; or one of the task's."""
        if name in self.own:
            return self.own[name]
        values = {"loss": self.losses, "token_accuracy": self.correct, "exact_accuracy": self.exact}[name]
        weights = np.ones(len(self.tokens)) if name == "exact_accuracy" else self.tokens
        return Sums(values[segment, np.arange(len(self.tokens))], weights, is_share=name != "loss")

    def estimates(self, groups: np.ndarray, segment: int = -1) -> dict[str, Estimate]:
        """Every metric with its interval."""
        names = (*COMMON, *(self.own if segment == -1 else ()))  # what no row weighs is left out
        found = {name: self.metric(name, segment) for name in names}
        return {name: interval(sums, groups) for name, sums in found.items() if sums.weights.any()}


class Scales:
    """Where sets of weights are weighed: a model, its data, the rows."""

    def __init__(
        self, model: Model, dataset: Dataset, trial: TrialSpec, context: TrainContext, rows: RowChoice
    ) -> None:
        self.model, self.dataset, self.trial, self.context, self.rows = model, dataset, trial, context, rows
        self.segments = trial.model.halting_rule().segments

    @property
    def flops_per_segment(self) -> float:
        """Forward FLOPs of a segment on a row."""
        return self.trial.model.flops(self.dataset.shape).forward

    def measure(
        self, weights: Weights, *, segments: int | None = None, own: bool = False, most: int | None = None
    ) -> Measured:
        """These weights on the rows, on the first `most` of them where it is given. own: by the task's metrics, too."""
        self.model.load_state_dict(weights)
        parts = []
        for columns, numbers in self._batches(most):
            found = trace(
                self.model,
                columns,
                self.trial,
                device=self.context.device,
                numbers=numbers,
                segments=segments or self.segments,
                keep_states=True,
            )
            parts.append(_of_trace(found, self._own(found) if own else {}))
            self.context.beat()
        return _joined(parts)

    def ensemble(self, members: Sequence[Weights]) -> Measured:
        """The mean of the members' probabilities after their last segment; one segment of its own."""
        parts = []
        for columns, numbers in self._batches(None):
            total = None
            for weights in members:
                self.model.load_state_dict(weights)
                found = trace(
                    self.model,
                    columns,
                    self.trial,
                    device=self.context.device,
                    numbers=numbers,
                    keep_logits=True,
                )
                assert found.logits is not None
                shares = log_probabilities(torch.from_numpy(found.logits), self.trial.loss).exp()
                total = shares if total is None else total + shares
            assert total is not None
            parts.append(_of_shares(columns, (total / len(members)).numpy()))
            self.context.beat()
        return _joined(parts)

    def _batches(self, most: int | None) -> list[tuple[dict[str, np.ndarray], np.ndarray]]:
        numbers, size = self.rows.numbers[:most], self.trial.batch_size
        rows = self.dataset.split(self.rows.split)
        return [(rows.gather(some), some) for some in np.split(numbers, range(size, len(numbers), size))]

    def _own(self, found: Trace) -> dict[str, Sums]:
        """The task's metrics row by row, after the last segment."""
        task, vocabulary = self.trial.task, self.dataset.manifest.vocabulary
        if not task.metrics:
            return {}
        scored = []
        for row in range(len(found.numbers)):
            columns = {name: values[row : row + 1] for name, values in found.rows.items()}
            answers = Answers(columns, found.predictions[-1, row : row + 1], found.losses[-1, row : row + 1], None)
            sums = task.score(answers, vocabulary)
            scored.append([sums[name] for name in task.metrics])
        table = np.array(scored, dtype=np.float64)
        return {name: _own(table[:, at, 0], table[:, at, 1]) for at, name in enumerate(task.metrics)}


def _own(sums: Array, weights: Array) -> Sums:
    """A task's metric: a share unless a row shows that it is none."""
    return Sums(sums, weights, is_share=bool(((sums >= 0.0) & (sums <= weights)).all()))


def _of_trace(found: Trace, own: dict[str, Sums]) -> Measured:
    scored = found.scored
    changes = (np.diff(found.predictions, axis=0) != 0) & scored
    return Measured(
        losses=found.losses,
        tokens=scored.sum(-1).astype(np.float64),
        correct=found.correct.sum(-1).astype(np.float64),
        exact=found.exact.astype(np.float64),
        changed=np.concatenate([np.zeros((1, len(scored))), changes.sum(-1)]),
        predictions=found.predictions[-1],
        scored=scored,
        q=found.q,
        halts=found.halts,
        residuals=found.residuals,
        states=found.states,
        own=own,
    )


def _of_shares(columns: Mapping[str, np.ndarray], shares: np.ndarray) -> Measured:
    """Of probabilities [B, S, V]."""
    labels, predictions = columns["labels"], shares.argmax(-1)
    scored = labels != IGNORE
    picked = np.take_along_axis(shares, np.where(scored, labels, 0)[..., None], -1)[..., 0]
    losses = -np.log(np.maximum(picked, 1e-38)) * scored
    tokens, correct = scored.sum(-1), ((predictions == labels) & scored).sum(-1)
    return Measured(
        losses=losses.sum(-1, dtype=np.float64)[None],
        tokens=tokens.astype(np.float64),
        correct=correct.astype(np.float64)[None],
        exact=(correct == tokens).astype(np.float64)[None],
        changed=np.zeros((1, len(labels))),
        predictions=predictions,
        scored=scored,
    )


def _joined(parts: Sequence[Measured]) -> Measured:
    first = parts[0]

    def whole(name: str, axis: int) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts], axis=axis)

    return Measured(
        **{name: whole(name, 1) for name in ("losses", "correct", "exact", "changed")},
        **{name: whole(name, 0) for name in ("tokens", "predictions", "scored")},
        q=None if first.q is None else whole("q", 1),
        halts=None if first.halts is None else whole("halts", 0),
        residuals={name: np.concatenate([part.residuals[name] for part in parts], 1) for name in first.residuals},
        states={name: np.concatenate([part.states[name] for part in parts]) for name in first.states},
        own={
            name: _own(
                np.concatenate([part.own[name].sums for part in parts]),
                np.concatenate([part.own[name].weights for part in parts]),
            )
            for name in first.own
        },
    )
