"""The contract of a task. One file here = one task: its recipe (a spec), its builder, its metrics, its rendering.

A recipe in `datasets/NAME.yaml` is a `TaskSpec`; everything that changes the data is a field of it, so that its hash
names the built folder. A built dataset is a folder of Arrow files with a manifest that is written last (`hrm.data`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

import numpy as np
import pyarrow as pa

from hrm.data.checks import IGNORE
from hrm.data.dataset import DatasetWriter, Rows
from hrm.data.sources import SourceSpec
from hrm.data.tokenizing import TextTokenizer
from hrm.spec import Spec

__all__ = ["IGNORE", "Answer", "Answers", "Sums", "TaskShape", "TaskSpec"]


@dataclass(frozen=True, slots=True)
class TaskShape:
    """What a model must know of a task before it is built."""

    vocab_size: int
    sequence_length: int
    num_puzzle_identifiers: int = 0
    """0 where rows carry no puzzle identifier."""
    next_token: bool = False
    """True where the label of a position is the token that follows it: a model that sees the future is refused."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model says to B rows."""

    rows: Mapping[str, np.ndarray]
    """The rows' columns: `inputs` and `labels` [B, S], and whatever else the task stores."""
    tokens: np.ndarray
    """[B, S]: the most likely token of each position."""
    losses: np.ndarray
    """[B] float64: nats, summed over the scored positions."""
    confidence: np.ndarray | None
    """[B]: the sigmoid of Q halt; None for a model without a Q."""

    def __len__(self) -> int:
        return len(self.tokens)


class Answer(Protocol):
    """A model that is asked, at full depth."""

    def __call__(self, rows: Mapping[str, np.ndarray], /) -> Answers:
        """What it says to rows of any number, given as columns."""
        ...

    def continued(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, prefix: Sequence[int] | None = None, /
    ) -> list[list[int]]:
        """What it says after prompts: the most likely token, again and again, up to the end token, which is left out.

        prefix: so many first tokens of each are read as a whole by models that can (default: all where
        `TaskSpec.prompts_whole`, else none). Only of a task with a tokenizer.
        """
        ...

    @property
    def tokenizer(self) -> TextTokenizer | None:
        """`TaskSpec.text_tokenizer` of the dataset."""
        ...


Sums = dict[str, tuple[float, float]]
"""Metric -> (sum, weight): over many rows the sums and the weights add up, and their quotient is the metric."""


class TaskSpec(Spec, ABC):
    """A dataset recipe and the task it poses."""

    kind: str
    next_token: ClassVar[bool] = False
    reduction: ClassVar[Literal["token", "row"]] = "row"
    """`token`: the training loss is the mean over the scored tokens of the global batch. `row`: the mean over rows of
    each row's mean (the puzzle models' convention)."""

    allow_overlap: bool = False
    """Rows that are in two splits are refused; true: they are counted in the facts instead."""
    fingerprint: str | None = None
    """Of the built rows: a build or a worker that has others is refused. A sweep fills it in, so that what is trained
    on is part of every trial's id; in a recipe's file it pins what was built."""

    @abstractmethod
    def build(self, writer: DatasetWriter) -> None:
        """Generate or read the data and write every split, the vocabulary and the facts through `writer`.

        Deterministic: the same spec gives the same bytes. Raises SpecError for a source that is missing or wrong.
        """

    @abstractmethod
    def render(self, tokens: list[int], vocabulary: list[str]) -> str:
        """A row as a person would read it."""

    @classmethod
    @abstractmethod
    def smoke(cls) -> Self:
        """The tiniest honest recipe of this kind: builds in well under a second."""

    def text_tokenizer(self, directory: Path, vocabulary: list[str]) -> TextTokenizer | None:
        """From text to tokens and back, of the dataset that is built in a folder; None where rows are no text."""
        return None

    def prompt(self, text: str) -> str:
        """What a person says, as the rows put it: up to where a model goes on. Raises SpecError where that is open."""
        return text

    @property
    def prompts_whole(self) -> bool:
        """True where prompts are read as a whole by models that can (PrefixLM)."""
        return False

    def forms(self, split: str) -> int:
        """How many forms (augmentations) a stored row of this split stands for; they are made when they are read."""
        return 1

    def form(self, rows: dict[str, np.ndarray], forms: np.ndarray) -> dict[str, np.ndarray]:
        """Stored rows [B] in the forms [B] of those numbers; form 0 is the row as it is stored.

        A pure function of the recipe, the columns and the numbers. Only called where `forms` says more than 1.
        """
        raise NotImplementedError(f"{self.kind} says that rows have forms and does not make them")

    @property
    def metrics(self) -> tuple[str, ...]:
        """The names that `score` gives: a function of the recipe alone."""
        return ()

    def score(self, answers: Answers, vocabulary: list[str]) -> Sums:
        """The task's own metrics, beside those that every task has (`hrm.evaluate.METRICS`).

        Called on every batch of every evaluation. A metric whose weights add up to 0 is left out.
        """
        return {}

    def predictions(self, answer: Answer, rows: Rows, vocabulary: list[str]) -> pa.Table | None:
        """What a model does on a whole split where sums over rows do not tell, or one pass is not enough.

        Asked for where it matters and not while training goes on: on the test split at a training's end, and by
        `checkpoint evaluate`.
        """
        return None

    @property
    def has_predictions(self) -> bool:
        """False where `predictions` is sure to give None."""
        return type(self).predictions is not TaskSpec.predictions

    def judge(self, predictions: pa.Table) -> dict[str, float]:
        """The metrics of predictions: a function of the table alone, so that stored ones can be judged again."""
        return {}

    def recipe(self) -> Self:
        """The recipe without what only names its result: equal recipes are one built folder."""
        return self.model_copy(update={"fingerprint": None})

    def identified(self) -> Self:
        """The recipe with the digest of every source in it, so that changed files are another recipe.

        Raises SpecError for a source that is not there.
        """
        found: dict[str, Any] = {
            name: value.model_copy(update={"sha256": value.digest()})
            for name in type(self).model_fields
            if isinstance(value := getattr(self, name), SourceSpec) and value.sha256 is None
        }
        return self.model_copy(update=found) if found else self
