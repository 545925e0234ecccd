"""A dataset folder that the original builders wrote (sapientinc/HRM, TRM, URM), as a dataset here.

Rows, puzzle identifiers, puzzles and groups stay as they are and in their order, so that with `validation_from: test`
`sampling: original` visits the rows of train as the original's loader does. A recipe:

    kind: original_folder
    source: {path: data/sudoku-extreme-1k-aug-1000}
    validation_groups: 50
"""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field

from hrm.data.dataset import DatasetWriter
from hrm.data.original_folder import IDENTIFIERS, METADATA, Indices, OriginalFolder, OriginalSplit, Puzzles
from hrm.data.sources import SourceSpec
from hrm.errors import Problem, SpecError
from hrm.tasks import TaskSpec


class FolderSource(SourceSpec):
    """A source of which all files are taken."""

    files: str | None = "*"


class OriginalFolderSpec(TaskSpec):
    """The recipe. `test` is the folder's. The originals have no validation: whole groups are held out for it, unless
    the folder has a `validation` beside train and test (one that `data export` wrote).

    A group is a puzzle with its augmentations. Of a group held out of train, the puzzle as it was is kept and its
    augmentations are dropped; of one held out of test, all.
    """

    kind: Literal["original_folder"] = "original_folder"

    source: FolderSource
    validation_groups: int = Field(default=100, ge=1)
    """Groups held out, drawn by `seed`."""
    validation_from: Literal["train", "test"] = "train"
    """`train`: test stays whole, as published numbers need it. `test`: train stays whole and its order of rows the
    original's; for ARC, whose test puzzles are recognised by identifiers that train must have seen."""
    seed: int = Field(default=0, ge=0, lt=2**63)

    def build(self, writer: DatasetWriter) -> None:
        """Write the splits; as facts the groups, and the rows of each of the folder's sets."""
        folder = self._folder()
        writer.vocabulary = folder.vocabulary
        writer.num_puzzle_identifiers = folder.num_puzzle_identifiers
        parts = self._parts(folder)
        for name in ("train", "validation", "test"):
            split, puzzles = parts[name]
            writer.write_split(name, split.chunks(puzzles), *split.boundaries(puzzles))
        if folder.identifiers:
            writer.write_file(IDENTIFIERS, json.dumps(folder.identifiers).encode())
        writer.facts = {
            "groups_by_split": {name: len(puzzles.group_indices) - 1 for name, (_, puzzles) in parts.items()},
            "rows_by_set": {name: split.rows_by_set for name, split in folder.splits.items()},
        }

    def render(self, tokens: list[int], vocabulary: list[str]) -> str:
        """The tokens in rows of a square where they fill one, else in one line."""
        marks = [vocabulary[token] if token >= 0 else "?" for token in tokens]
        side = round(len(marks) ** 0.5)
        if side * side != len(marks):
            return " ".join(marks)
        width = max(map(len, marks))
        return "\n".join(
            " ".join(mark.rjust(width) for mark in marks[row * side : (row + 1) * side]) for row in range(side)
        )

    @classmethod
    def smoke(cls) -> Self:
        """Eight puzzles in a folder made for it, which goes when this process ends."""
        source = FolderSource(path=_smallest_folder().name)
        return cls(source=source.model_copy(update={"sha256": source.digest()}), validation_groups=2)

    def _folder(self) -> OriginalFolder:
        files = self.source.locate()
        roots = {file.parent.parent for file in files if file.parts[-2:] == ("train", METADATA)}
        if len(roots) != 1:
            rule = f"must hold one train/{METADATA}, got {len(roots)}"
            place = f"dataset original_folder: source: {self.source.path or self.source.hub}"
            raise SpecError(Problem(place, rule, "Give the folder that a builder of the originals wrote"))
        return OriginalFolder(roots.pop())

    def _parts(self, folder: OriginalFolder) -> dict[str, tuple[OriginalSplit, Puzzles]]:
        """Our splits as puzzles of the folder's."""
        splits = folder.splits
        if "validation" in splits:
            self._refuse_what_means_nothing(folder)
            return {name: (split, split.puzzles_of(np.arange(split.num_groups))) for name, split in splits.items()}
        held_out = self._held_out(folder)
        parts: dict[str, tuple[OriginalSplit, Puzzles]] = {}
        for name, split in splits.items():
            groups = np.arange(split.num_groups)
            kept = np.setdiff1d(groups, held_out) if name == self.validation_from else groups
            parts[name] = split, split.puzzles_of(kept)
        source = splits[self.validation_from]
        return parts | {"validation": (source, source.puzzles_of(held_out, first_only=self.validation_from == "train"))}

    def _held_out(self, folder: OriginalFolder) -> Indices:
        """The numbers of the validation groups in their split, ascending."""
        total = folder.splits[self.validation_from].num_groups
        if self.validation_groups >= total:
            rule = f"must be < {total}, the groups of {self.validation_from}, got {self.validation_groups}"
            raise SpecError(Problem("dataset original_folder: validation_groups", rule, "Lower it"))
        rng = np.random.RandomState(np.random.MT19937(self.seed))  # its numbers are the same in every numpy
        held_out: Indices = np.sort(rng.permutation(total)[: self.validation_groups])
        return held_out

    def _refuse_what_means_nothing(self, folder: OriginalFolder) -> None:
        given = [name for name in ("validation_groups", "validation_from", "seed") if name in self.canonical()]
        if given:
            rule = f"mean nothing where the folder has a validation of its own ({folder.root / 'validation'})"
            raise SpecError(Problem(f"dataset original_folder: {', '.join(given)}", rule, "Leave them out"))


@cache
def _smallest_folder() -> tempfile.TemporaryDirectory[str]:
    """Lists of four digits to be sorted: six to train on, each forwards and backwards, and two for test."""
    folder = tempfile.TemporaryDirectory(prefix="original_folder-")
    rng = np.random.RandomState(np.random.MT19937(0))
    for split, groups, forms in (("train", 6, 2), ("test", 2, 1)):
        directory = Path(folder.name, split)
        directory.mkdir()
        lists = np.array([rng.permutation(9)[:4] for _ in range(groups)], dtype=np.uint8) + 1
        inputs = np.stack([lists, lists[:, ::-1]][:forms], axis=1).reshape(-1, 4)
        rows = np.arange(len(inputs) + 1, dtype=np.int32)
        arrays = {"inputs": inputs, "labels": np.sort(inputs, axis=1), "puzzle_identifiers": np.zeros_like(rows[1:])}
        arrays |= {"puzzle_indices": rows, "group_indices": rows[::forms]}
        for name, array in arrays.items():
            np.save(directory / f"all__{name}.npy", np.asarray(array))
        metadata = {"ignore_label_id": 0, "vocab_size": 10, "seq_len": 4, "num_puzzle_identifiers": 1}
        (directory / METADATA).write_text(json.dumps({**metadata, "total_groups": groups, "sets": ["all"]}))
    return folder
