"""Dataset folders of sapientinc/HRM's builders (and TRM's, URM's), read in chunks and never whole.

    ROOT/identifiers.json                  names of the puzzle identifiers, 0 is `<blank>`
    ROOT/SPLIT/dataset.json                token 0 pads, labels of `ignore_label_id` are not scored
    ROOT/SPLIT/SET__{inputs,labels}.npy    [N, S], any integers
    ROOT/SPLIT/SET__puzzle_identifiers.npy [P], SET__puzzle_indices.npy [P + 1], SET__group_indices.npy [G + 1]

The sets of a split follow each other. Every fault is a SpecError that names the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from hrm.data.checks import IGNORE
from hrm.errors import Problem, SpecError
from hrm.spec import parse_spec

Indices = npt.NDArray[np.int64]
COLUMNS = ("inputs", "labels", "puzzle_identifiers", "puzzle_indices", "group_indices")
METADATA, IDENTIFIERS, VOCABULARY = "dataset.json", "identifiers.json", "vocabulary.json"
"""The last is ours: the text of the tokens, which the originals do not keep and do not miss."""
BLANK_IDENTIFIER = "<blank>"
CHUNK_VALUES = 1 << 21
"""Of a chunk of rows: 16 MiB per column."""


class OriginalMetadata(BaseModel):
    """`dataset.json`, of which we need this; TRM's and URM's have more."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    ignore_label_id: int | None
    """The label that is not scored; null: all are."""
    vocab_size: int = Field(ge=1)
    seq_len: int = Field(ge=1)
    num_puzzle_identifiers: int = Field(ge=1)
    total_groups: int = Field(ge=1)
    sets: list[str] = Field(min_length=1)


@dataclass(frozen=True, slots=True)
class Puzzles:
    """Some puzzles of a split, in its order."""

    numbers: Indices
    group_indices: Indices
    """[G + 1]: where their groups end, counted in these puzzles."""


class OriginalSplit:
    """One split, memory-mapped; its puzzles and groups are numbered through all sets."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.metadata = parse_spec(OriginalMetadata, read_json(directory / METADATA), str(directory / METADATA))
        sets = [self._open_set(name) for name in self.metadata.sets]
        self.rows_by_set = {name: len(part["inputs"]) for name, part in zip(self.metadata.sets, sets, strict=True)}
        self._columns = {name: [part[name] for part in sets] for name in ("inputs", "labels")}
        self._starts = np.cumsum([0, *self.rows_by_set.values()])
        self.puzzle_identifiers: Indices = np.concatenate([part["puzzle_identifiers"] for part in sets])
        self.puzzle_indices = _end_to_end([part["puzzle_indices"] for part in sets])
        self.group_indices = _end_to_end([part["group_indices"] for part in sets])
        if self.num_groups != self.metadata.total_groups:
            rule = f"total_groups must be {self.num_groups}, as the group_indices say, got {self.metadata.total_groups}"
            raise damaged(directory / METADATA, rule)

    @property
    def num_groups(self) -> int:
        """Originals: tasks or puzzles before augmentation."""
        return len(self.group_indices) - 1

    def puzzles_of(self, groups: Indices, *, first_only: bool = False) -> Puzzles:
        """The puzzles of these groups (ascending); with `first_only` the first of each, which is the original form."""
        starts, ends = self.group_indices[groups], self.group_indices[groups + 1]
        sizes = np.ones_like(starts) if first_only else ends - starts
        return Puzzles(_ranges(starts, sizes), np.concatenate(([0], np.cumsum(sizes))))

    def boundaries(self, puzzles: Puzzles) -> tuple[Indices, Indices]:
        """`puzzle_indices` and `group_indices` of these puzzles' rows alone."""
        sizes = np.diff(self.puzzle_indices)[puzzles.numbers]
        return np.concatenate(([0], np.cumsum(sizes))), puzzles.group_indices

    def chunks(self, puzzles: Puzzles) -> Iterator[dict[str, np.ndarray]]:
        """The rows of these puzzles: `inputs`, `labels` (what is not scored is IGNORE), `puzzle_identifiers`."""
        starts, sizes = self.puzzle_indices[puzzles.numbers], np.diff(self.puzzle_indices)[puzzles.numbers]
        rows_per_chunk = max(1, CHUNK_VALUES // self.metadata.seq_len)
        cuts = np.searchsorted(np.cumsum(sizes), np.arange(0, sizes.sum(), rows_per_chunk), side="left")
        edges = [*np.unique(cuts).tolist(), len(sizes)]
        for first, last in pairwise(edges):
            here = slice(first, last)
            identifiers = np.repeat(self.puzzle_identifiers[puzzles.numbers[here]], sizes[here])
            yield self._rows(_ranges(starts[here], sizes[here])) | {"puzzle_identifiers": identifiers}

    def _rows(self, rows: Indices) -> dict[str, np.ndarray]:
        """Rows in ascending order."""
        columns: dict[str, np.ndarray] = {}
        cuts = np.searchsorted(rows, self._starts)
        for name, parts in self._columns.items():
            pieces = [part[rows[a:b] - at] for part, at, a, b in zip(parts, self._starts, cuts, cuts[1:], strict=False)]
            columns[name] = np.concatenate([piece.astype(np.int64) for piece in pieces])
        if (ignored := self.metadata.ignore_label_id) is not None:
            columns["labels"][columns["labels"] == ignored] = IGNORE
        return columns

    def _open_set(self, name: str) -> dict[str, np.ndarray]:
        paths = {column: self.directory / f"{name}__{column}.npy" for column in COLUMNS}
        part = {column: _open_array(path) for column, path in paths.items()}
        rows, length = len(part["inputs"]), self.metadata.seq_len
        shapes: dict[str, tuple[int, ...]] = {"inputs": (rows, length), "labels": (rows, length)}
        shapes["puzzle_identifiers"] = (max(len(part["puzzle_indices"]) - 1, 0),)
        for column, shape in shapes.items():
            if part[column].shape != shape or not shape[0]:
                raise damaged(paths[column], f"must have the shape {list(shape)}, got {list(part[column].shape)}")
        for column, end in (("puzzle_indices", rows), ("group_indices", shapes["puzzle_identifiers"][0])):
            part[column] = np.array(part[column], dtype=np.int64)
            _check_boundaries(paths[column], part[column], end)
        return part


class OriginalFolder:
    """A whole folder; its splits agree in what a row is."""

    def __init__(self, root: Path) -> None:
        self.root = root
        names = [name for name in ("train", "validation", "test") if (root / name).is_dir()]
        for name in {"train", "test"} - set(names):
            raise damaged(root / name, "is missing: a dataset folder of the originals has train and test")
        self.splits = {name: OriginalSplit(root / name) for name in names}
        train = self.splits["train"].metadata
        for name, split in self.splits.items():
            for field in ("seq_len", "vocab_size", "num_puzzle_identifiers"):
                wanted, found = getattr(train, field), getattr(split.metadata, field)
                if found != wanted:
                    raise damaged(root / name / METADATA, f"{field} must be {wanted} as in train, got {found}")
        self.vocab_size, self.num_puzzle_identifiers = train.vocab_size, train.num_puzzle_identifiers

    @cached_property
    def identifiers(self) -> list[str]:
        """The names of the puzzle identifiers; empty where the folder has none."""
        return self._names(IDENTIFIERS, self.num_puzzle_identifiers)

    @cached_property
    def vocabulary(self) -> list[str]:
        """The text of the tokens; their numbers where the folder does not say."""
        words = self._names(VOCABULARY, self.vocab_size)
        return words or ["<pad>", *(str(token) for token in range(1, self.vocab_size))]

    def _names(self, file: str, count: int) -> list[str]:
        path = self.root / file
        if not path.exists():
            return []
        names = read_json(path)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(names) != count:
            size = len(names) if isinstance(names, list) else type(names).__name__
            raise damaged(path, f"must be a list of {count} names, got {size}")
        return names


def damaged(path: Path, rule: str) -> SpecError:
    """The error for a file that is not as the originals write it."""
    return SpecError(Problem(str(path), rule, "Build or fetch the folder again, or correct the file"))


def read_json(path: Path) -> Any:
    """The content of a JSON file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise damaged(path, f"cannot be read as JSON: {error}") from error


def _open_array(path: Path) -> np.ndarray:
    try:
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise damaged(path, f"cannot be read as an array: {error}") from error
    if array.dtype.kind not in "iu":
        raise damaged(path, f"must hold integers, got {array.dtype}")
    return array


def _check_boundaries(path: Path, array: Indices, end: int) -> None:
    if array.ndim != 1 or len(array) < 2 or array[0] != 0 or array[-1] != end or (np.diff(array) <= 0).any():
        raise damaged(path, f"must rise from 0 to {end}, got {np.array2string(array, threshold=8)}")


def _end_to_end(boundaries: list[Indices]) -> Indices:
    """The boundaries of several sets as those of one."""
    offsets = np.cumsum([0, *(part[-1] for part in boundaries)])
    return np.concatenate([[0], *(part[1:] + offset for part, offset in zip(boundaries, offsets, strict=False))])


def _ranges(starts: Indices, sizes: Indices) -> Indices:
    """All of start, start + 1, ..., start + size - 1, one range after the other."""
    before = np.cumsum(sizes) - sizes
    return np.repeat(starts - before, sizes) + np.arange(sizes.sum())
