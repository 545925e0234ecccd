"""What `TaskSpec.predictions` asks a model, shared over the workers: each answers for its share and gets the whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from hrm.context import TrainContext
from hrm.data.dataset import Dataset
from hrm.data.tokenizing import TextTokenizer
from hrm.generate import Sampling, Step, continuations, generate
from hrm.models import Model
from hrm.tasks import Answers

if TYPE_CHECKING:
    from hrm.trial import TrialSpec

_AT_ONCE = 16
"""Texts that are continued together at least: a token of one costs nearly what it costs of as many."""


class AskedModel:
    """See `hrm.tasks.Answer`."""

    def __init__(
        self,
        model: Model,
        dataset: Dataset,
        trial: TrialSpec,
        context: TrainContext,
        answer: Callable[[Mapping[str, np.ndarray]], Answers],
    ) -> None:
        self._model, self._dataset, self._trial, self._context = model, dataset, trial, context
        self._answer = answer

    def __call__(self, rows: Mapping[str, np.ndarray]) -> Answers:
        """What it says to rows."""
        return self._answer(rows)

    @cached_property
    def tokenizer(self) -> TextTokenizer | None:
        """Of the dataset."""
        return self._trial.task.text_tokenizer(self._dataset.directory, self._dataset.manifest.vocabulary)

    def continued(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, prefix: Sequence[int] | None = None
    ) -> list[list[int]]:
        """What it says after prompts, by the cached generator."""
        if self.tokenizer is None:
            raise ValueError(f"{self._trial.task.kind} has no tokenizer, so that no text of it can be continued")
        if not prompts:
            return []
        mine = shares(len(prompts), self._context).tolist()
        steps = generate(
            self._model,
            [prompts[number] for number in mine],
            max_new_tokens=max_new_tokens,
            end=self.tokenizer.end,
            segments=self._trial.model.halting_rule().segments,
            length=self._dataset.shape.sequence_length,
            sampling=Sampling(seed=self._trial.seed),
            prefix=self._trial.task.prompts_whole if prefix is None else [prefix[number] for number in mine],
            loss=self._trial.loss,
            numbers=mine,
            batch_size=max(_AT_ONCE, -(-self._trial.batch_size // self._context.world_size)),
        )
        own = np.full((len(mine), max_new_tokens), -1, dtype=np.int32)
        for row, found in zip(own, continuations(self._with_signs_of_life(steps)), strict=True):
            row[: len(found.tokens)] = found.tokens
        whole = self._context.all_gather(torch.from_numpy(own).to(self._context.device))
        return [row[row >= 0].tolist() for row in whole[: len(prompts)].cpu()]

    def _with_signs_of_life(self, steps: Iterator[Step]) -> Iterator[Step]:
        for step in steps:
            self._context.beat()
            yield step


def shares(count: int, context: TrainContext) -> np.ndarray:
    """The numbers of this worker's rows. Shares are of one size, for the collective: the last is filled up with the
    first rows."""
    share = -(-count // context.world_size)
    return np.arange(context.rank * share, (context.rank + 1) * share) % count
