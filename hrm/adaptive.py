"""Inference in which a row that halts leaves the batch and another takes its place: what is not computed is saved.

A row's answer is the one that the whole computation gives at its own last segment, whoever its neighbours are. Rows
that are unsure when their rule has ended them can be given more depth, then further random starts (`Retry`); the answer
of the highest confidence is kept.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hrm.errors import Problem, SpecError
from hrm.evaluate import to_device, to_host
from hrm.halting_scores import Confidence, Gather, Halt, confidence, confidence_of, read, refuse_rule, score
from hrm.models import Model, ModelSpec, SegmentOutput
from hrm.nn.draws import Draws
from hrm.tasks import TaskShape

if TYPE_CHECKING:
    from hrm.trial import TrialSpec

CPU = torch.device("cpu")
Tensors = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Retry:
    """What rows get whose confidence is below a value after their rule has ended them."""

    below: float
    segments: int = 0
    """So many further ones at most, until one is sure."""
    restarts: int = 0
    """Then so many further random starts at most, each by the rule and with further segments as before."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Forward FLOPs of a row, by the model's formula."""

    segment: float
    """Of a segment, without the head that reads tokens off."""
    answer: float
    """Of that head, at every position that is read."""


def cost_of(model: ModelSpec, shape: TaskShape, contexts: bool) -> Cost:
    """What a row costs that is read as a whole, or a context, which is read at one position.

    Of the formula's terms the head's alone has the vocabulary as a factor.
    """
    segment = model.flops(replace(shape, vocab_size=0)).forward
    head = model.flops(shape).forward - segment
    return Cost(segment, head / shape.sequence_length if contexts else head)


@dataclass(frozen=True, slots=True)
class Adapted:
    """N rows, in the order in which they were asked for."""

    numbers: np.ndarray
    """[N]: their numbers in the split, from which random starts are drawn."""
    tokens: np.ndarray
    """[N, S] int32; [N, 1] of contexts: the next token."""
    losses: np.ndarray
    """[N] float64: nats, summed over the scored positions."""
    segments: np.ndarray
    """[N]: the segment of its start, from 1, at which the answer was read."""
    confidence: np.ndarray
    """[N] float64"""
    spent: np.ndarray
    """[N]: segments that were computed for it."""
    restarts: np.ndarray
    """[N]: further starts that it got."""
    answers: np.ndarray
    """[N]: how often an answer was read: where its rule ends it, and after each segment that it got as unsure."""
    confidence_is: Confidence
    seconds: float
    """Of the whole, with the reading of rows."""

    def flops(self, cost: Cost) -> np.ndarray:
        """[N] float64: forward FLOPs."""
        return np.asarray(self.spent * cost.segment + self.answers * cost.answer, dtype=np.float64)


@torch.no_grad()
def adapt(
    model: Model,
    gather: Gather,
    numbers: np.ndarray,
    trial: TrialSpec,
    halt: Halt,
    *,
    retry: Retry | None = None,
    sure_by: Confidence | None = None,
    device: torch.device = CPU,
    batch_size: int | None = None,
) -> Adapted:
    """Rows by number. sure_by: what confidence is (default: the Q where there is one, else the least probability).

    The model stays in evaluation mode. Raises SpecError for a rule or a retry that means nothing for it.
    """
    _refuse(model, trial, halt, retry)
    model.eval()
    run = _Run(model, gather, numbers, trial, (halt, retry), sure_by or confidence_of(trial.model), device)
    began = time.perf_counter()
    size = max(1, batch_size or trial.batch_size)
    while run.fill(size):
        run.segment()
    return run.result(began)


class _Run:
    """The rows that are being worked on, and what was found of all."""

    def __init__(
        self,
        model: Model,
        gather: Gather,
        numbers: np.ndarray,
        trial: TrialSpec,
        plan: tuple[Halt, Retry | None],
        sure_by: Confidence,
        device: torch.device,
    ) -> None:
        self.model, self.gather, self.numbers, self.trial, self.device = model, gather, numbers, trial, device
        (self.halt, retry), self.sure_by = plan, sure_by
        self.retry = retry or Retry(below=-1.0)
        self.begun = 0
        self.rows: Tensors = {}
        self.state: Tensors = {}
        self.at: Tensors = {}
        """Of each row in the batch: its place among all, its number, the segments of its present start (`age`), that at
        which the rule ended it (0: not yet), its further starts."""
        count = len(numbers)
        self.found: Tensors = {
            "confidence": torch.full((count,), -torch.inf, device=device),
            "losses": torch.zeros(count, device=device),
            "segments": torch.zeros(count, dtype=torch.int64, device=device),
            "spent": torch.zeros(count, dtype=torch.int64, device=device),
            "restarts": torch.zeros(count, dtype=torch.int64, device=device),
            "answers": torch.zeros(count, dtype=torch.int64, device=device),
        }

    def fill(self, size: int) -> int:
        """Give free places to rows that have not begun, in their order; how many are in the batch now."""
        here = len(self.at["place"]) if self.at else 0
        new = np.arange(self.begun, min(self.begun + size - here, len(self.numbers)))
        if len(new):
            self.begun += len(new)
            rows = to_device(self.gather(self.numbers[new]), self.device)
            number = torch.from_numpy(self.numbers[new]).to(self.device, torch.int64)
            none = torch.zeros_like(number)
            at = {"place": torch.from_numpy(new).to(self.device), "number": number}
            self.rows = _joined(self.rows, rows)
            self.state = _joined(self.state, self.model.initial_state(len(new), self._draws(number)))
            self.at = _joined(self.at, at | {"age": none, "ended_at": none, "restarts": none})
        return here + len(new)

    def segment(self) -> None:
        """One segment of every row in the batch; those that are done leave it."""
        at, before = self.at, self.state
        output = self.model.segment(before, self.rows, self._draws(at["number"]))
        self.state = output.state
        at["age"] = at["age"] + 1
        self.found["spent"][at["place"]] += 1
        ended = self.halt.ended(score(self.halt.rule, before, output, self.rows), at["age"])
        at["ended_at"] = at["ended_at"].where((at["ended_at"] > 0) | ~ended, at["age"])
        judged = at["ended_at"] > 0
        if bool(judged.any()):
            self._keep_better(output, judged.nonzero().squeeze(1))
            self._release(judged)

    def result(self, began: float) -> Adapted:
        """What was found."""
        found = {name: to_host(values) for name, values in self.found.items()}
        return Adapted(
            numbers=self.numbers,
            tokens=found.get("tokens", np.zeros((0, 0), np.int32)),
            losses=found["losses"].astype(np.float64),
            segments=found["segments"],
            confidence=found["confidence"].astype(np.float64),
            spent=found["spent"],
            restarts=found["restarts"],
            answers=found["answers"],
            confidence_is=self.sure_by,
            seconds=time.perf_counter() - began,
        )

    def _keep_better(self, output: SegmentOutput, which: Tensor) -> None:
        """The answers of these rows, where they are surer than what is kept of them."""
        said = read(output, self.rows, which, self.trial.loss)
        if "tokens" not in self.found:
            self.found["tokens"] = said.tokens.new_zeros(len(self.numbers), said.tokens.shape[1])
        sure, place = confidence(self.sure_by, output, self.rows, which, said), self.at["place"][which]
        self.found["answers"][place] += 1
        better = sure > self.found["confidence"][place]
        now = {"tokens": said.tokens, "losses": said.losses, "confidence": sure, "segments": self.at["age"][which]}
        for name, values in now.items():
            self.found[name][place[better]] = values[better]

    def _release(self, judged: Tensor) -> None:
        """Rows that are sure, or have had all that there is, leave; others start anew where that is their turn."""
        at, retry = self.at, self.retry
        unsure = judged & (self.found["confidence"][at["place"]] < retry.below)
        exhausted = unsure & (at["age"] >= at["ended_at"] + retry.segments)
        again = exhausted & (at["restarts"] < retry.restarts)
        stays = ~judged | (unsure & ~exhausted) | again
        if bool(again.any()):
            self._restart(again.nonzero().squeeze(1))
        if not bool(stays.all()):
            kept = stays.nonzero().squeeze(1)
            self.rows, self.state, self.at = (_chosen(part, kept) for part in (self.rows, self.state, self.at))

    def _restart(self, which: Tensor) -> None:
        """A fresh random start for each: the n-th of a row is drawn from its number and n."""
        at = self.at
        at["restarts"] = at["restarts"].index_add(0, which, torch.ones_like(which))
        self.found["restarts"][at["place"][which]] += 1
        at["age"], at["ended_at"] = (at[name].index_fill(0, which, 0) for name in ("age", "ended_at"))
        for turn in sorted(set(at["restarts"][which].tolist())):
            own = which[at["restarts"][which] == turn]
            fresh = self.model.initial_state(len(own), self._draws(at["number"][own], turn))
            self.state = {name: z.index_copy(0, own, fresh[name].to(z.dtype)) for name, z in self.state.items()}

    def _draws(self, numbers: Tensor, turn: int = 0) -> Draws:
        """An evaluation draws its starts and nothing else, so that rows may be of different age."""
        return Draws(self.trial.seed, turn, numbers, training=False)


def _joined(old: Tensors, new: Tensors) -> Tensors:
    return {name: torch.cat((old[name], value)) if name in old else value for name, value in new.items()}


def _chosen(tensors: Tensors, which: Tensor) -> Tensors:
    return {name: value.index_select(0, which) for name, value in tensors.items()}


def _refuse(model: Model, trial: TrialSpec, halt: Halt, retry: Retry | None) -> None:
    refuse_rule(halt.rule, trial.model, model.keeps_state, "the rule of halting")
    if retry is not None and retry.restarts and getattr(trial.model, "start", "fixed") != "random":
        rule = (
            f"restarts are for models with random starts, got {retry.restarts} for a {trial.model.kind} that has none"
        )
        raise SpecError(Problem("retry", rule, "Set them to 0, or train a model with start: random"))
