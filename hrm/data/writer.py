"""Writes a dataset folder: the Arrow files of each split, then the manifest. Refuses rows that would train nonsense.

A file holds record batches of integer columns without nulls, so that a reader maps it without a copy; tokens take as
few bytes as the vocabulary allows. Rows may come in chunks, so that a dataset may be larger than memory. Where puzzles
have several rows, or groups several puzzles, a second file of the split holds the boundaries.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from hrm.data.checks import RowChecks
from hrm.data.manifest import SCHEMA, DatasetManifest, file_digest
from hrm.data.parallel import BuildProgress, Item, Result, parallel_map

SPLITS = ("train", "validation", "test")
"""The splits that every dataset has: search reads validation, replicas report on test."""
Columns = Mapping[str, np.ndarray]
BATCH_BYTES = 1 << 23
"""Of a record batch, at least: what a writer holds beside a chunk."""


class DatasetWriter:
    """What a task builds through: set `vocabulary` (and `num_puzzle_identifiers`), write every split, set `facts`."""

    def __init__(self, directory: Path, recipe: dict[str, Any], progress: BuildProgress | None = None) -> None:
        self.vocabulary: list[str] = []
        """Token id -> its text; its length is the dataset's `vocab_size`. To be set before the first split."""
        self.num_puzzle_identifiers = 0
        """Above every puzzle identifier; 0 where rows carry none. To be set before the first split."""
        self.facts: dict[str, Any] = {}
        self._directory = directory
        self._recipe = recipe
        self._progress = progress
        self._checks = RowChecks(str(recipe["kind"]), bool(recipe.get("allow_overlap")))
        self._shapes: dict[str, tuple[int, int]] = {}
        self._files: dict[str, dict[str, Any]] = {}

    def write_split(
        self,
        name: str,
        columns: Columns | Iterable[Columns],
        puzzle_indices: np.ndarray | None = None,
        group_indices: np.ndarray | None = None,
    ) -> None:
        """Write `NAME.arrow`: `inputs` and `labels` [N, S], optional `puzzle_identifiers` [N], and any further column.

        `prefix_lengths` [N]: so many positions of a row are a prompt, which models may read as a whole (PrefixLM).
        `documents` [N, S]: which of several texts in a row a position belongs to; models see its own text alone.

        columns: the rows, or chunks of them. puzzle_indices [P + 1], group_indices [G + 1]: both or neither, see
        `Rows`. A puzzle is a form of an original (an augmentation), its group all forms of it.
        Raises SpecError for no rows, shapes that disagree, values that are not integers or not in the vocabulary, a row
        without a scored label, boundaries that do not part the rows, a row (inputs and puzzle identifier) that another
        split holds too, and a scored position of a prompt other than its last (whose label is the answer's first).
        """
        if not name.isidentifier() or name in self._shapes:
            raise self._checks.refusal(name, "a split must be named by a word and be written once")
        if not self.vocabulary:
            raise self._checks.refusal(name, "the vocabulary must be set before the first split")
        chunks = [columns] if isinstance(columns, Mapping) else columns
        rows, length = self._write_rows(name, chunks)
        self._shapes[name] = (rows, length)
        if puzzle_indices is not None or group_indices is not None:
            puzzles = self._boundaries(name, "puzzle_indices", puzzle_indices, rows)
            groups = self._boundaries(name, "group_indices", group_indices, len(puzzles) - 1)
            self._write_file(boundaries_file(name), [{"puzzle_indices": puzzles[None], "group_indices": groups[None]}])

    def write_file(self, name: str, content: bytes) -> None:
        """Add a file of the task's own, such as its tokenizer; its digest goes into the manifest."""
        path = self._directory / name
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self._files[name] = file_digest(path)

    def map(self, function: Callable[[Item], Result], items: Sequence[Item], what: str) -> Iterator[Result]:
        """`function` of every item, in order, in worker processes where that pays; `what` is what progress counts.

        The function must be importable and depend on its item alone.
        """
        return parallel_map(function, items, what, self._progress)

    def finish(self, *, next_token: bool) -> DatasetManifest:
        """Check that the whole is there and write the manifest. Raises SpecError."""
        missing = [split for split in SPLITS if split not in self._shapes]
        if missing:
            rule = f"every dataset has the splits {', '.join(SPLITS)}; this one was not written"
            raise self._checks.refusal(missing[0], rule)
        lengths = {split: length for split, (_, length) in self._shapes.items()}
        if len(set(lengths.values())) > 1:
            raise self._checks.refusal("all splits", f"rows must have one sequence length, got {lengths}")
        overlap = {"rows_in_an_earlier_split": found} if (found := self._checks.overlap) else {}
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
            facts={**self.facts, **overlap},
            files=self._files,
        )
        manifest.write(self._directory)
        return manifest

    def _write_rows(self, split: str, chunks: Iterable[Columns]) -> tuple[int, int]:
        """Check and write the chunks; gives N and S."""
        limits = {"inputs": len(self.vocabulary), "labels": len(self.vocabulary)}
        limits["puzzle_identifiers"] = self.num_puzzle_identifiers
        shape = (0, 0)

        def checked() -> Iterator[dict[str, np.ndarray]]:
            nonlocal shape
            for chunk in chunks:
                arrays = {column: self._as_int32(split, column, values) for column, values in chunk.items()}
                self._checks.check(split, arrays, limits, shape[0])
                rows, length = arrays["inputs"].shape
                if shape[0] and length != shape[1]:
                    rule = f"rows must have one sequence length, got {shape[1]} and then {length}"
                    raise self._checks.refusal(split, rule)
                shape = (shape[0] + rows, length)
                yield {
                    column: values.astype(_smallest(limits[column])) if column in limits else values
                    for column, values in arrays.items()
                }
                if self._progress is not None:
                    self._progress(f"{split} rows", shape[0], 0)

        self._write_file(f"{split}.arrow", checked())
        if not shape[0]:
            raise self._checks.refusal(split, "must hold at least one row of at least one position, got none")
        return shape

    def _write_file(self, name: str, chunks: Iterable[dict[str, np.ndarray]]) -> None:
        path = self._directory / name
        _write_arrow(path, chunks)
        self._files[name] = file_digest(path)

    def _boundaries(self, split: str, name: str, values: np.ndarray | None, end: int) -> np.ndarray:
        if values is None:
            rule = f"`{name}` is missing: puzzle_indices and group_indices come together"
            raise self._checks.refusal(split, rule)
        array = self._as_int32(split, name, values)
        if array.ndim != 1 or len(array) < 2 or array[0] != 0 or array[-1] != end or (np.diff(array) <= 0).any():
            raise self._checks.refusal(split, f"`{name}` must rise from 0 to {end}, got {array}")
        return array

    def _as_int32(self, split: str, column: str, values: np.ndarray) -> np.ndarray:
        array = np.asarray(values)
        if array.dtype.kind not in "iu":
            raise self._checks.refusal(split, f"{column} must hold integers, got {array.dtype}")
        limits = np.iinfo(np.int32)
        if array.size and (array.min() < limits.min or array.max() > limits.max):
            raise self._checks.refusal(split, f"{column} must fit 32 bits, got {array.min()}..{array.max()}")
        return np.ascontiguousarray(array, dtype=np.int32)


def boundaries_file(split: str) -> str:
    """The name of the file with a split's `puzzle_indices` and `group_indices`."""
    return f"{split}.boundaries.arrow"


def _smallest(limit: int) -> type[np.signedinteger[Any]]:
    """The smallest type for values below `limit` and IGNORE."""
    return np.int8 if limit <= 2**7 else np.int16 if limit <= 2**15 else np.int32


def _write_arrow(path: Path, chunks: Iterable[dict[str, np.ndarray]]) -> None:
    sink = None
    with path.open("wb") as file:
        for arrays in _batched(chunks):
            columns = {name: _arrow_column(values) for name, values in sorted(arrays.items())}
            batch = pa.RecordBatch.from_pydict(columns)
            sink = sink or pa.ipc.new_file(file, batch.schema)
            sink.write_batch(batch)
        if sink is not None:
            sink.close()
        file.flush()
        os.fsync(file.fileno())


def _batched(chunks: Iterable[dict[str, np.ndarray]]) -> Iterator[dict[str, np.ndarray]]:
    """Chunks of equal columns as fewer, larger ones: a reader goes through the batches that its rows are in."""
    held: list[dict[str, np.ndarray]] = []
    size = 0
    for arrays in chunks:
        held.append(arrays)
        size += sum(values.nbytes for values in arrays.values())
        if size >= BATCH_BYTES:
            yield _concatenated(held)
            held, size = [], 0
    if held:
        yield _concatenated(held)


def _concatenated(chunks: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}


def _arrow_column(values: np.ndarray) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])
