"""What is checked of the rows of every dataset: they train no nonsense, and no row is in two splits."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hrm.data.keys import row_keys
from hrm.errors import Problem, SpecError

IGNORE = -100
"""The label of a position that is not scored (padding, prompts)."""


class RowChecks:
    """The checks of one dataset; `kind` starts every problem."""

    def __init__(self, kind: str, allow_overlap: bool) -> None:
        self._kind = kind
        self._allow_overlap = allow_overlap
        self._keys: dict[str, list[np.ndarray]] = {}
        self.overlap: dict[str, int] = {}
        """Split -> how many of its rows a split that was written before holds too."""

    def refusal(self, split: str, rule: str) -> SpecError:
        """The error for rows that break a rule."""
        return SpecError(Problem(f"dataset {self._kind}: {split}", rule, "Correct the recipe, its source or its task"))

    def check(self, split: str, arrays: Mapping[str, np.ndarray], limits: Mapping[str, int], first: int) -> None:
        """All checks of some rows of a split, of which `first` came before. limits: column -> its values are below.

        Raises SpecError.
        """
        self._shapes(split, arrays)
        for column, limit in limits.items():
            if column in arrays:
                self._range(split, column, arrays[column], limit)
        silent = np.flatnonzero((arrays["labels"] == IGNORE).all(axis=1))
        if silent.size:
            rule = f"every row must score a position; {silent.size} do not, the first is {first + silent[0]}"
            raise self.refusal(split, rule)
        if "prefix_lengths" in arrays:
            self._prefixes(split, arrays["prefix_lengths"], arrays["labels"], first)
        if "documents" in arrays:
            self._documents(split, arrays, first)
        self._claim(split, arrays, first)

    def _shapes(self, split: str, arrays: Mapping[str, np.ndarray]) -> None:
        shapes = {column: array.shape for column, array in arrays.items()}
        inputs, labels = shapes.get("inputs"), shapes.get("labels")
        if inputs is None or len(inputs) != 2 or inputs != labels:
            raise self.refusal(split, f"`inputs` and `labels` must be two arrays [N, S] of one shape, got {shapes}")
        if 0 in inputs:
            raise self.refusal(split, f"must hold at least one row of at least one position, got shape {inputs}")
        if any(len(shape) not in (1, 2) or 0 in shape or shape[0] != inputs[0] for shape in shapes.values()):
            raise self.refusal(split, f"every column must be [N] or [N, K] with the N of `inputs`, got {shapes}")
        if len(shapes.get("puzzle_identifiers", (0,))) != 1:
            raise self.refusal(split, f"`puzzle_identifiers` must be [N], got {shapes['puzzle_identifiers']}")
        if shapes.get("documents", inputs) != inputs:
            raise self.refusal(split, f"`documents` must be [N, S] like `inputs`, got {shapes['documents']}")

    def _range(self, split: str, column: str, values: np.ndarray, limit: int) -> None:
        """Of labels, of the scored ones."""
        counted = values[values != IGNORE] if column == "labels" else values
        if counted.size and (counted.min() < 0 or counted.max() >= limit):
            raise self.refusal(split, f"{column} must be >= 0 and < {limit}, got {counted.min()}..{counted.max()}")

    def _prefixes(self, split: str, lengths: np.ndarray, labels: np.ndarray, first: int) -> None:
        if lengths.ndim != 1 or lengths.min() < 0 or lengths.max() > labels.shape[1]:
            raise self.refusal(split, f"`prefix_lengths` must be [N], >= 0 and <= {labels.shape[1]}, got {lengths}")
        given = np.arange(1, labels.shape[1] + 1) < lengths[:, None]
        leaks = np.flatnonzero((given & (labels != IGNORE)).any(axis=1))
        if leaks.size:
            rule = "a position before the last of its prompt must not be scored: it reads the tokens after it"
            raise self.refusal(split, f"{rule}; {leaks.size} rows score one, the first is {first + leaks[0]}")

    def _documents(self, split: str, arrays: Mapping[str, np.ndarray], first: int) -> None:
        if "prefix_lengths" in arrays:
            raise self.refusal(split, "rows of several `documents` have no prompt: leave `prefix_lengths` out")
        again = np.flatnonzero((np.diff(arrays["documents"], axis=1) < 0).any(axis=1))
        if again.size:
            rule = f"the numbers of `documents` must rise along a row; in {again.size} rows they do not"
            raise self.refusal(split, f"{rule}, the first is {first + again[0]}")

    def _claim(self, split: str, arrays: Mapping[str, np.ndarray], first: int) -> None:
        keys = row_keys(0, *(arrays[name] for name in ("inputs", "puzzle_identifiers") if name in arrays))
        taken = np.zeros(len(keys), dtype=bool)
        for owner, chunks in self._keys.items():
            if owner == split:
                continue
            if len(chunks) > 1:
                chunks[:] = [np.sort(np.concatenate(chunks))]
            found = _are_in(chunks[0], keys)
            shared = np.flatnonzero(found)
            if shared.size and not self._allow_overlap:
                raise self.refusal(
                    split,
                    f"a row may be in one split only; row {first + shared[0]} is in {owner!r} too "
                    f"(of {len(keys)} rows {shared.size}; `allow_overlap: true` takes them)",
                )
            taken |= found
        if taken.any():
            self.overlap[split] = self.overlap.get(split, 0) + int(taken.sum())
        self._keys.setdefault(split, []).append(np.sort(keys))


def _are_in(ordered: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Which of the keys are in a sorted array that is not empty."""
    places = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    found: np.ndarray = ordered[places] == keys
    return found
