"""Writes a built dataset as a folder that the original code (sapientinc/HRM, TRM, URM) trains and evaluates on.

Augmentations that are made on the fly become rows; rows go to disk as they are made, so that memory stays flat. The
folder appears by one rename. What the layout cannot say is refused: see `refusals`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from hrm.data.checks import IGNORE
from hrm.data.dataset import SPLITS, Dataset, Rows
from hrm.data.original_folder import (
    BLANK_IDENTIFIER,
    CHUNK_VALUES,
    COLUMNS,
    IDENTIFIERS,
    METADATA,
    VOCABULARY,
    read_json,
)
from hrm.data.parallel import BuildProgress
from hrm.errors import Problem, SpecError

PAD = 0
"""Pads inputs, and in labels is what is not scored."""
SET = "all"
_KEPT = ("inputs", "labels", "puzzle_identifiers")


def export_original_folder(dataset: Dataset, output: Path, progress: BuildProgress | None = None) -> dict[str, Any]:
    """Write it to `output`, which must not be there. Gives the rows per split and the columns that were left out.

    Raises SpecError for a dataset that the layout cannot say, before or while it is written; then nothing is left.
    """
    if problems := refusals(dataset):
        raise SpecError(*problems)
    unfinished = output.with_name(f".{output.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        unfinished.mkdir(parents=True)
        rows = {split: _SplitExport(dataset, split).write(unfinished / split, progress) for split in SPLITS}
        _write_json(unfinished / IDENTIFIERS, _identifiers(dataset))
        _write_json(unfinished / VOCABULARY, dataset.manifest.vocabulary)
        unfinished.rename(output)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return {"rows": rows, "left_out": sorted(set(_columns(dataset)) - set(_KEPT))}


def refusals(dataset: Dataset) -> list[Problem]:
    """Why the layout cannot say this dataset; nothing where it can."""
    place, columns = str(dataset.directory), _columns(dataset)
    problems = []
    if dataset.manifest.next_token:
        rule = "its labels are the next tokens, and the original models see the whole row"
        problems.append(Problem(place, rule, "Export a dataset whose labels are not in its inputs"))
    for column in ("prefix_lengths", "documents"):
        if column in columns:
            rule = f"its rows have `{column}`, for which the original folder has no place"
            problems.append(Problem(place, rule, "Export a dataset without prompts and without packed documents"))
    return problems


class _SplitExport:
    """One split on its way out."""

    def __init__(self, dataset: Dataset, split: str) -> None:
        self.dataset, self.split = dataset, split
        self.rows: Rows = dataset.split(split)
        self.puzzles, self.groups = self.rows.puzzle_indices, self.rows.group_indices
        self.identifiers = np.zeros(len(self.puzzles) - 1, dtype=np.int32)

    def write(self, directory: Path, progress: BuildProgress | None) -> int:
        """Write the split's folder; gives its number of rows."""
        if len(self.rows) > np.iinfo(np.int32).max:
            raise self._refusal(f"has {len(self.rows)} rows, and puzzle_indices are 32 bits wide", "Make fewer forms")
        directory.mkdir()
        length = self.dataset.manifest.sequence_length
        paths = {column: directory / f"{SET}__{column}.npy" for column in COLUMNS}
        shape, dtype = (len(self.rows), length), _smallest(self.dataset.manifest.vocab_size)
        inputs, labels = (
            np.lib.format.open_memmap(paths[column], mode="w+", dtype=dtype, shape=shape)
            for column in ("inputs", "labels")
        )
        size = max(1, CHUNK_VALUES // length)
        for first in range(0, len(self.rows), size):
            numbers = np.arange(first, min(first + size, len(self.rows)))
            chunk = self.rows.gather(numbers)
            inputs[numbers[0] : numbers[-1] + 1] = chunk["inputs"]
            labels[numbers[0] : numbers[-1] + 1] = self._labels(chunk["labels"], first)
            self._keep_identifiers(numbers, chunk.get("puzzle_identifiers"))
            if progress is not None:
                progress(f"{self.split} rows", int(numbers[-1]) + 1, len(self.rows))
        np.save(paths["puzzle_identifiers"], self.identifiers)
        np.save(paths["puzzle_indices"], self.puzzles.astype(np.int32))
        np.save(paths["group_indices"], self.groups.astype(np.int32))
        _write_json(directory / METADATA, self._metadata())
        return len(self.rows)

    def _labels(self, labels: np.ndarray, first: int) -> np.ndarray:
        scored = np.flatnonzero((labels == PAD).any(axis=1))
        if scored.size:
            rule = f"row {first + scored[0]} scores token 0, which is what the original does not score"
            raise self._refusal(rule, "Give token 0 to padding alone")
        return np.where(labels == IGNORE, PAD, labels)

    def _keep_identifiers(self, numbers: np.ndarray, identifiers: np.ndarray | None) -> None:
        """The original has one identifier per puzzle, we have one per row."""
        if identifiers is None:
            return
        puzzles = np.searchsorted(self.puzzles, numbers, side="right") - 1
        starts = self.puzzles[puzzles] == numbers
        self.identifiers[puzzles[starts]] = identifiers[starts]
        others = np.flatnonzero(self.identifiers[puzzles] != identifiers)
        if others.size:
            rule = f"row {numbers[others[0]]} has another puzzle identifier than the first row of its puzzle"
            raise self._refusal(rule, "Let the rows of a puzzle share an identifier")

    def _metadata(self) -> dict[str, Any]:
        manifest, num_puzzles = self.dataset.manifest, len(self.puzzles) - 1
        return {
            "pad_id": PAD,
            "ignore_label_id": PAD,
            "blank_identifier_id": 0,
            "vocab_size": manifest.vocab_size,
            "seq_len": manifest.sequence_length,
            "num_puzzle_identifiers": max(1, manifest.num_puzzle_identifiers),
            "total_groups": len(self.groups) - 1,
            "total_puzzles": num_puzzles,
            "mean_puzzle_examples": len(self.rows) / num_puzzles,
            "sets": [SET],
        }

    def _refusal(self, rule: str, way_out: str) -> SpecError:
        return SpecError(Problem(f"{self.dataset.directory}: {self.split}", rule, way_out))


def _columns(dataset: Dataset) -> list[str]:
    """The columns of the rows."""
    return list(dataset.split(SPLITS[0]).gather(np.arange(1)))


def _identifiers(dataset: Dataset) -> list[str]:
    if IDENTIFIERS in dataset.manifest.files:
        names: list[str] = read_json(dataset.directory / IDENTIFIERS)
        return names
    return [BLANK_IDENTIFIER, *(str(number) for number in range(1, dataset.manifest.num_puzzle_identifiers))]


def _smallest(vocab_size: int) -> type[np.integer[Any]]:
    return np.uint8 if vocab_size <= 2**8 else np.uint16 if vocab_size <= 2**16 else np.int32


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content) + "\n", encoding="utf-8")
