"""The contract of a task. One file here = one task: its recipe (a spec), its builder, its rendering.

A recipe in `datasets/NAME.yaml` is a `TaskSpec`; everything that changes the data is a field of it, so that its hash
names the built folder. A built dataset is a folder of Arrow files with a manifest that is written last (`hrm.data`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from hrm.data.dataset import DatasetWriter
from hrm.spec import Spec

IGNORE = -100
"""The label of a position that is not scored (padding, prompts)."""


@dataclass(frozen=True, slots=True)
class TaskShape:
    """What a model must know of a task before it is built."""

    vocab_size: int
    sequence_length: int
    num_puzzle_identifiers: int = 0
    """0 where rows carry no puzzle identifier."""
    next_token: bool = False
    """True where the label of a position is the token that follows it: a model that sees the future is refused."""


class TaskSpec(Spec, ABC):
    """A dataset recipe and the task it poses."""

    kind: str
    next_token: ClassVar[bool] = False
    reduction: ClassVar[Literal["token", "row"]] = "row"
    """`token`: the training loss is the mean over the scored tokens of the global batch. `row`: the mean over rows of
    each row's mean (the puzzle models' convention)."""

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
