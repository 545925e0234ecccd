"""Writes a dataset folder: the Arrow files of each split, then the manifest. Refuses rows that would train nonsense.

A file holds one record batch of int32 columns without nulls, so that a reader maps it without a copy. Where puzzles
have several rows, or groups several puzzles, a second file of the split holds the boundaries.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hrm.data.manifest import SCHEMA, DatasetManifest, file_digest
from hrm.errors import Problem, SpecError

SPLITS = ("train", "validation", "test")
"""The splits that every dataset has: search reads validation, replicas report on test."""


class DatasetWriter:
    """What a task builds through: set `vocabulary` (and `facts`, `num_puzzle_identifiers`), write every split."""

    def __init__(self, directory: Path, recipe: dict[str, Any]) -> None:
        self.vocabulary: list[str] = []
        """Token id -> its text; its length is the dataset's `vocab_size`."""
        self.facts: dict[str, Any] = {}
        self.num_puzzle_identifiers = 0
        """Above every puzzle identifier; 0 where rows carry none."""
        self._directory = directory
        self._recipe = recipe
        self._shapes: dict[str, tuple[int, int]] = {}
        self._ranges: dict[str, dict[str, tuple[int, int]]] = {}
        self._files: dict[str, dict[str, Any]] = {}
        self._owner: dict[bytes, str] = {}  # digest of a row -> the split that holds it

    def write_split(
        self,
        name: str,
        columns: Mapping[str, np.ndarray],
        puzzle_indices: np.ndarray | None = None,
        group_indices: np.ndarray | None = None,
    ) -> None:
        """Write `NAME.arrow`: `inputs` and `labels` [N, S], optional `puzzle_identifiers` [N], and any further column.

        `prefix_lengths` [N]: so many positions of a row are a prompt, which models may read as a whole (PrefixLM).

        puzzle_indices [P + 1], group_indices [G + 1]: both or neither, see `Rows`. A puzzle is a form of an original
        (an augmentation), its group all forms of it.
        Raises SpecError for no rows, shapes that disagree, values that are not int32, a row without a scored label,
        boundaries that do not part the rows, a row (inputs and puzzle identifier) that another split holds too, and a
        scored position of a prompt other than its last (whose label is the first token of the answer).
        """
        if not name.isidentifier() or name in self._shapes:
            raise self._refusal(name, "a split must be named by a word and be written once")
        arrays = {column: self._as_int32(name, column, values) for column, values in columns.items()}
        self._check_rows(name, arrays)
        self._check_prefixes(name, arrays)
        self._claim_rows(name, arrays)
        self._shapes[name] = (arrays["inputs"].shape[0], arrays["inputs"].shape[1])
        self._ranges[name] = {column: _range(column, values) for column, values in arrays.items()}
        self._write_file(f"{name}.arrow", arrays)
        if puzzle_indices is not None or group_indices is not None:
            puzzles = self._boundaries(name, "puzzle_indices", puzzle_indices, len(arrays["inputs"]))
            groups = self._boundaries(name, "group_indices", group_indices, len(puzzles) - 1)
            self._write_file(boundaries_file(name), {"puzzle_indices": puzzles[None], "group_indices": groups[None]})

    def finish(self, *, next_token: bool) -> DatasetManifest:
        """Check the whole against the vocabulary and write the manifest. Raises SpecError."""
        missing = [split for split in SPLITS if split not in self._shapes]
        if missing:
            raise self._refusal(
                missing[0], f"every dataset has the splits {', '.join(SPLITS)}; this one was not written"
            )
        lengths = {split: length for split, (_, length) in self._shapes.items()}
        if len(set(lengths.values())) > 1:
            raise self._refusal("all splits", f"rows must have one sequence length, got {lengths}")
        limits = {"inputs": len(self.vocabulary), "labels": len(self.vocabulary)}
        limits["puzzle_identifiers"] = self.num_puzzle_identifiers
        for split, ranges in self._ranges.items():
            for column, limit in limits.items():
                if column in ranges:
                    self._check_range(split, column, ranges[column], limit)
        manifest = DatasetManifest(
            schema=SCHEMA,
            name=str(self._recipe["kind"]),
            recipe=self._recipe,
            rows={split: rows for split, (rows, _) in self._shapes.items()},
            vocab_size=len(self.vocabulary),
            sequence_length=lengths["train"],
            num_puzzle_identifiers=self.num_puzzle_identifiers,
            next_token=next_token,
            vocabulary=list(self.vocabulary),
            facts=self.facts,
            files=self._files,
        )
        manifest.write(self._directory)
        return manifest

    def _write_file(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        path = self._directory / name
        _write_arrow(path, arrays)
        self._files[name] = file_digest(path)

    def _boundaries(self, split: str, name: str, values: np.ndarray | None, end: int) -> np.ndarray:
        if values is None:
            raise self._refusal(split, f"`{name}` is missing: puzzle_indices and group_indices come together")
        array = self._as_int32(split, name, values)
        if array.ndim != 1 or len(array) < 2 or array[0] != 0 or array[-1] != end or (np.diff(array) <= 0).any():
            raise self._refusal(split, f"`{name}` must rise from 0 to {end}, got {array}")
        return array

    def _as_int32(self, split: str, column: str, values: np.ndarray) -> np.ndarray:
        array = np.asarray(values)
        if array.dtype.kind not in "iu":
            raise self._refusal(split, f"{column} must hold integers, got {array.dtype}")
        limits = np.iinfo(np.int32)
        if array.size and (array.min() < limits.min or array.max() > limits.max):
            raise self._refusal(split, f"{column} must fit 32 bits, got {array.min()}..{array.max()}")
        return np.ascontiguousarray(array, dtype=np.int32)

    def _check_rows(self, split: str, arrays: dict[str, np.ndarray]) -> None:
        from hrm.tasks import IGNORE  # hrm.tasks imports this module

        shapes = {column: array.shape for column, array in arrays.items()}
        inputs, labels = shapes.get("inputs"), shapes.get("labels")
        if inputs is None or len(inputs) != 2 or inputs != labels:
            raise self._refusal(split, f"`inputs` and `labels` must be two arrays [N, S] of one shape, got {shapes}")
        if 0 in inputs:
            raise self._refusal(split, f"must hold at least one row of at least one position, got shape {inputs}")
        if any(len(shape) not in (1, 2) or 0 in shape or shape[0] != inputs[0] for shape in shapes.values()):
            raise self._refusal(split, f"every column must be [N] or [N, K] with the N of `inputs`, got {shapes}")
        if len(shapes.get("puzzle_identifiers", (0,))) != 1:
            raise self._refusal(split, f"`puzzle_identifiers` must be [N], got {shapes['puzzle_identifiers']}")
        silent = np.flatnonzero((arrays["labels"] == IGNORE).all(axis=1))
        if silent.size:
            raise self._refusal(
                split, f"every row must score a position; {silent.size} do not, the first is {silent[0]}"
            )

    def _check_prefixes(self, split: str, arrays: dict[str, np.ndarray]) -> None:
        from hrm.tasks import IGNORE

        lengths, labels = arrays.get("prefix_lengths"), arrays["labels"]
        if lengths is None:
            return
        if lengths.ndim != 1 or lengths.min() < 0 or lengths.max() > labels.shape[1]:
            raise self._refusal(split, f"`prefix_lengths` must be [N], >= 0 and <= {labels.shape[1]}, got {lengths}")
        given = np.arange(1, labels.shape[1] + 1) < lengths[:, None]
        leaks = np.flatnonzero((given & (labels != IGNORE)).any(axis=1))
        if leaks.size:
            rule = "a position before the last of its prompt must not be scored: it reads the tokens after it"
            raise self._refusal(split, f"{rule}; {leaks.size} rows score one, the first is {leaks[0]}")

    def _claim_rows(self, split: str, arrays: dict[str, np.ndarray]) -> None:
        identifiers = arrays.get("puzzle_identifiers")
        for index, row in enumerate(arrays["inputs"]):
            key = row.tobytes() if identifiers is None else row.tobytes() + identifiers[index].tobytes()
            owner = self._owner.setdefault(hashlib.blake2b(key, digest_size=16).digest(), split)
            if owner != split:
                raise self._refusal(split, f"a row may be in one split only; row {index} is in {owner!r} too")

    def _check_range(self, split: str, column: str, found: tuple[int, int], limit: int) -> None:
        if found[0] < 0 or found[1] >= limit:
            raise self._refusal(split, f"{column} must be >= 0 and < {limit}, got {found[0]}..{found[1]}")

    def _refusal(self, split: str, rule: str) -> SpecError:
        return SpecError(
            Problem(f"dataset {self._recipe['kind']}: {split}", rule, "Correct the recipe, its source or its task")
        )


def boundaries_file(split: str) -> str:
    """The name of the file with a split's `puzzle_indices` and `group_indices`."""
    return f"{split}.boundaries.arrow"


def _range(column: str, values: np.ndarray) -> tuple[int, int]:
    """The least and the greatest value; of labels, of the scored ones."""
    from hrm.tasks import IGNORE

    counted = values[values != IGNORE] if column == "labels" else values
    return int(counted.min()), int(counted.max())


def _write_arrow(path: Path, arrays: dict[str, np.ndarray]) -> None:
    columns = {name: _arrow_column(values) for name, values in sorted(arrays.items())}
    batch = pa.RecordBatch.from_pydict(columns)
    with path.open("wb") as file:
        with pa.ipc.new_file(file, batch.schema) as sink:
            sink.write_batch(batch)
        file.flush()
        os.fsync(file.fileno())


def _arrow_column(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
