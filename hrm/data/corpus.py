"""The documents of a text recipe by split: from sources of their own, or held out of the train source.

Held out by document: those whose text has the smallest keys (a hash of the seed and the text), so that equal
documents are in one split and the order of the source is of no matter. A single text is cut: train, validation, test,
each cut after a line. Nothing is held whole but a single text: the source is read again for each split.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from hrm.data.sample_text import INSTRUCTIONS, SampleName, sample_texts
from hrm.data.sources import SourceSpec
from hrm.data.text_formats import Document, FormatSpec, LossOn, Piece, PlainFormat, Record
from hrm.errors import Problem, SpecError

HELD_OUT = ("test", "validation")


@dataclass(slots=True)
class Corpus:
    """What a recipe says about its text. A split without a source of its own is held out of train's."""

    sources: dict[str, SourceSpec | None]
    """By split; null for train: a sample."""
    format: FormatSpec
    loss_on: LossOn
    fractions: dict[str, float]
    seed: int
    sample: SampleName = "prose"
    """What comes in the place of a source."""
    empty: dict[str, int] = field(default_factory=dict)
    """Documents without a text, by the split in whose source they were met; they are dropped."""
    _limits: dict[str, int] = field(default_factory=dict)

    def documents(self, split: str) -> Iterator[Document]:
        """The documents of a split, in the order of its source. Raises SpecError for a source too small to part."""
        held_out = self._held_out()
        if split not in ("train", *held_out):
            yield from (document for group in self._groups(split) for document in group)
        elif not held_out:
            yield from (document for group in self._groups("train") for document in group)
        elif single := self._single():
            yield self._cut(single, split)
        else:
            limits = self._limits or self._limits_of(held_out)
            for group in self._groups("train"):
                key = self._key(group)
                if split == next((name for name in held_out if key < limits[name]), "train"):
                    yield from group

    def _held_out(self) -> list[str]:
        return [split for split in HELD_OUT if self.sources[split] is None]

    def _groups(self, split: str) -> Iterator[list[Document]]:
        """The documents of each record that has any; joined records are one."""
        self.empty[split] = 0
        if isinstance(self.format, PlainFormat) and self.format.join is not None:
            pieces = (piece.text for group in self._records(split) for document in group for piece in document)
            if (text := self.format.join.join(pieces)).strip():
                yield [(Piece(text, True),)]
            return
        for group in self._records(split):
            documents = [d for d in group if any(piece.scored and piece.text.strip() for piece in d)]
            self.empty[split] += len(group) - len(documents)
            if documents:
                yield documents

    def _records(self, split: str) -> Iterator[list[Document]]:
        source = self.sources[split]
        name = "sample text" if source is None else source.path or source.hub
        records: Iterable[Record] = self._sample() if source is None else source.records()
        for number, record in enumerate(records):
            yield list(self.format.documents(record, f"{name}: record {number}", self.loss_on))

    def _sample(self) -> Sequence[Record]:
        if self.format.kind == "instruction":
            return INSTRUCTIONS
        return [{"text": text} for text in sample_texts(self.sample)]

    def _single(self) -> str | None:
        """The text of a plain source with only one."""
        first = list(islice(self._groups("train"), 2))
        if len(first) != 1 or not isinstance(self.format, PlainFormat):
            return None
        return first[0][0][0].text

    def _cut(self, text: str, split: str) -> Document:
        held_out = sorted(self._held_out(), key=["train", "validation", "test"].index)
        ends, left = [len(text)], 1.0
        for name in reversed(held_out):
            left -= self.fractions[name]
            near = int(len(text) * left)
            ends.insert(0, text.find("\n", near, ends[0] - 1) + 1 or near)
        place = ["train", *held_out].index(split)
        part = text[ends[place - 1] if place else 0 : ends[place]]
        if not part.strip():
            rule = f"a text of {len(text)} characters leaves nothing for {split}"
            raise SpecError(Problem("source", rule, f"Raise {split}_fraction, or give {split}_source"))
        return (Piece(part, True),)

    def _key(self, group: list[Document]) -> int:
        digest = hashlib.blake2b(self.seed.to_bytes(8, "little"), digest_size=8)
        for document in group:
            for piece in document:
                digest.update(piece.text.encode())
        return int.from_bytes(digest.digest(), "big")

    def _limits_of(self, held_out: list[str]) -> dict[str, int]:
        """For each split held out the key below which documents are its own (if no split before it has them)."""
        keys = np.unique(np.fromiter(map(self._key, self._groups("train")), dtype=np.uint64))
        if len(keys) <= len(held_out):
            rule = f"holds {len(keys)} different documents: too few to hold out {' and '.join(held_out)}"
            way_out = " and ".join(f"{split}_source" for split in held_out)
            raise SpecError(Problem("source", rule, f"Give {way_out}, or a larger source"))
        taken = 0
        for place, split in enumerate(held_out):
            others = len(held_out) - place  # the splits that still need a document
            taken += min(max(1, round(self.fractions[split] * len(keys))), len(keys) - taken - others)
            self._limits[split] = int(keys[taken])
        return self._limits
