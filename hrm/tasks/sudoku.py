"""Sudoku of 4x4, 6x6 and 9x9 cells, generated or from files: from the givens to the whole grid, the only solution.

No form of a solution grid is in two splits; at 4x4, where all 288 grids are forms of two, no grid is: 192 are for
train, 48 for validation, 48 for test. Tokens as in sapientinc/HRM: 0 padding (never used), 1 blank, 2 and up the
digits; every cell is scored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from hrm.data.dataset import SPLITS, DatasetWriter
from hrm.data.keys import row_keys
from hrm.data.sources import SourceSpec
from hrm.data.sudoku_forms import drawn_forms
from hrm.data.sudoku_grids import BOXES, is_complete
from hrm.data.sudoku_puzzles import Puzzles
from hrm.data.sudoku_sources import Choice, source_splits
from hrm.data.sudoku_splits import generated_splits, kinds_of
from hrm.tasks import Answers, Sums, TaskSpec

PAD, BLANK = 0, 1
DIFFICULTIES = (("0", 0, 0), ("1_to_9", 1, 9), ("10_to_99", 10, 99), ("100_plus", 100, 2**31))
"""Name, least and most guesses of the puzzles that `exact_accuracy_guesses_NAME` is about."""
_ROWS_IN_CACHE = 1024


class SudokuSpec(TaskSpec):
    """The recipe. Each row has a column `guesses`: the digits that our solver tries where nothing is forced."""

    kind: Literal["sudoku"] = "sudoku"

    size: int = 9
    """Cells per side: 4, 6 or 9."""
    num_train: int = Field(default=1000, ge=1, le=1_000_000)
    num_validation: int = Field(default=100, ge=1, le=1_000_000)
    num_test: int = Field(default=200, ge=1, le=1_000_000)
    source: SourceSpec | None = None
    """Rows of files instead of generated ones, for train and validation: CSV with the columns of Sudoku-Extreme, or a
    text file with one puzzle per line. They are drawn at random; with a `rating` it is stored as a column."""
    test_source: SourceSpec | None = None
    """The same for test. Rows of `source` whose grid is a form of one of its grids are passed over."""
    min_difficulty: int | None = Field(default=None, ge=0)
    """Only rows of the sources with at least this `rating`."""
    min_givens: int = Field(default=0, ge=0)
    """Generated puzzles: cells are blanked while the solution stays unique and more than these are given. 0: until no
    cell can go, which leaves about 4 of 16, 10 of 36 or 24 of 81."""
    augmentations: int = Field(default=0, ge=0, le=100_000)
    """Further forms of each train puzzle: digits relabelled, bands, stacks and the lines in them shuffled, transposed
    where boxes are square. A puzzle and its forms are one group (`sampling: original` takes one of them per epoch)."""
    stored: bool = False
    """Write the forms into the dataset instead of making them when they are read: the same rows."""
    seed: int = Field(default=0, ge=0, lt=2**63)

    @field_validator("size")
    @classmethod
    def _size_has_boxes(cls, size: int) -> int:
        if size not in BOXES:
            raise ValueError(f"must be one of {', '.join(map(str, BOXES))}, got {size}; give one of these")
        return size

    @model_validator(mode="after")
    def _fields_fit_the_size(self) -> Self:
        if self.min_givens >= self.size**2:
            raise ValueError(
                f"min_givens must be < {self.size**2} at size {self.size}, got {self.min_givens}; lower it"
            )
        if self.augmentations and self.size == 4:
            raise ValueError(
                f"augmentations must be 0 at size 4, got {self.augmentations}: its 288 grids are forms of two, so "
                "forms of a train grid are held-out grids. Set augmentations: 0, or another size"
            )
        if self.stored and not self.augmentations:
            raise ValueError("stored is about augmentations, got augmentations 0; set augmentations, or leave it out")
        return self

    @model_validator(mode="after")
    def _fields_fit_the_source(self) -> Self:
        if (self.source is None) != (self.test_source is None):
            raise ValueError("source and test_source come together, got one of them; give both")
        if self.source is None and self.min_difficulty is not None:
            raise ValueError(
                f"min_difficulty is about the rows of a source, got {self.min_difficulty} without one; leave it out"
            )
        if self.source is not None and self.min_givens:
            raise ValueError(
                f"min_givens is about generated puzzles, got {self.min_givens} with a source; leave it out"
            )
        return self

    def build(self, writer: DatasetWriter) -> None:
        """Write the splits, and as facts how many cells are given, how hard it is and how many grids there are."""
        writer.vocabulary = ["<pad>", ".", *(str(digit + 1) for digit in range(self.size))]
        writer.num_puzzle_identifiers = 1
        passed_over: dict[str, int] = {}
        if self.source is not None and self.test_source is not None:
            choice = Choice(self.size, self.seed, self.min_difficulty, self.num_train)
            splits, count = source_splits(
                self.source, self.test_source, choice, self.num_validation, self.num_test, writer.map
            )
            passed_over = {"rows_passed_over_as_forms_of_another_split": count}
        else:
            rows = {split: int(getattr(self, f"num_{split}")) for split in SPLITS}
            splits = generated_splits(self.size, self.seed, self.min_givens, rows, writer.map)
        for split in SPLITS:
            columns = self._columns(splits[split])
            if split == "train" and self.stored:
                every = np.arange(self.num_train * (self.augmentations + 1) + 1)
                writer.write_split(
                    split,
                    self._stored_forms(columns),
                    puzzle_indices=every,
                    group_indices=every[:: self.augmentations + 1],
                )
            else:
                writer.write_split(split, columns)
        writer.facts = {**self._facts(splits), **passed_over}

    def forms(self, split: str) -> int:
        """1 + `augmentations` of a train row, unless they are stored."""
        return self.augmentations + 1 if split == "train" and not self.stored else 1

    def form(self, rows: dict[str, np.ndarray], forms: np.ndarray) -> dict[str, np.ndarray]:
        """Rows as they are (form 0) or in a random form of (seed, row, number). `guesses` stay those of the row."""
        inputs, labels = np.empty_like(rows["inputs"]), np.empty_like(rows["labels"])
        for start in range(0, len(forms), _ROWS_IN_CACHE):
            here = slice(start, start + _ROWS_IN_CACHE)
            inputs[here], labels[here] = self._moved(rows["inputs"][here], rows["labels"][here], forms[here])
        return {**rows, "inputs": inputs, "labels": labels}

    @property
    def metrics(self) -> tuple[str, ...]:
        """What `score` adds."""
        by_difficulty = (f"exact_accuracy_guesses_{name}" for name, _, _ in DIFFICULTIES)
        return ("valid_grid", "valid_units", "blank_accuracy", *by_difficulty)

    def score(self, answers: Answers, vocabulary: list[str]) -> Sums:
        """`valid_grid`: share of answers that keep the givens and hold every digit once in each row, column and box,
        which only the solution does; `valid_units`: share of the rows, columns and boxes that do; `blank_accuracy`:
        share of the cells that were not given that are right; and exact accuracy by the guesses that a puzzle takes.
        """
        inputs, labels, guesses = (answers.rows[name] for name in ("inputs", "labels", "guesses"))
        right, blank = answers.tokens == labels, inputs == BLANK
        complete = is_complete(answers.tokens - BLANK, self.size)
        valid = complete.all(axis=1) & (blank | (answers.tokens == inputs)).all(axis=1)
        exact = right.all(axis=1)
        sums = {
            "valid_grid": (float(valid.sum()), float(len(valid))),
            "valid_units": (float(complete.sum()), float(complete.size)),
            "blank_accuracy": (float((right & blank).sum()), float(blank.sum())),
        }
        for name, least, most in DIFFICULTIES:
            here = (guesses >= least) & (guesses <= most)
            sums[f"exact_accuracy_guesses_{name}"] = (float((exact & here).sum()), float(here.sum()))
        return sums

    def render(self, tokens: list[int], vocabulary: list[str]) -> str:
        """The grid: a line per row, the boxes apart. What is no digit and no blank is shown as `?`."""
        height, width = BOXES[self.size]
        marks = [vocabulary[token] if token > PAD else "?" for token in tokens]
        lines = []
        for row in range(self.size):
            cells = marks[row * self.size : (row + 1) * self.size]
            boxes = [" ".join(cells[at : at + width]) for at in range(0, self.size, width)]
            lines += ["  ".join(boxes)] if row % height or not row else ["", "  ".join(boxes)]
        return "\n".join(lines)

    @classmethod
    def smoke(cls) -> Self:
        """48 puzzles of 4x4."""
        return cls(size=4, num_train=32, num_validation=8, num_test=8)

    def _columns(self, puzzles: Puzzles) -> dict[str, np.ndarray]:
        columns: dict[str, np.ndarray] = {
            "inputs": puzzles.puzzles + BLANK,
            "labels": puzzles.answers + BLANK,
            "puzzle_identifiers": np.zeros(len(puzzles), np.int32),
            "guesses": puzzles.guesses,
        }
        return columns if puzzles.ratings is None else {**columns, "rating": puzzles.ratings}

    def _moved(self, inputs: np.ndarray, labels: np.ndarray, forms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        places, names = drawn_forms(row_keys(self.seed, inputs, forms), self.size)
        places[forms == 0] = np.arange(self.size**2)
        names[forms == 0] = np.arange(self.size)
        # What is given is the label, so cells are moved once: a second set of tokens says which are blank.
        lanes, count = np.arange(len(forms))[:, None], BLANK + 1 + self.size
        cells = labels + count * (inputs == BLANK) + lanes * (2 * count)
        places += lanes * self.size**2
        at = cells.take(places)
        answers = np.empty((len(forms), 2 * count), labels.dtype)
        answers[:, BLANK + 1 : count] = answers[:, count + BLANK + 1 :] = BLANK + 1 + names
        puzzles = answers.copy()
        puzzles[:, count:] = BLANK
        return puzzles.take(at), answers.take(at)

    def _stored_forms(self, columns: dict[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
        """Every form of the first puzzle, then of the second: in the order in which they would be made when read."""
        forms = self.augmentations + 1
        at_once = max(1, _ROWS_IN_CACHE // forms)
        for start in range(0, self.num_train, at_once):
            own = {name: values[start : start + at_once] for name, values in columns.items()}
            count = len(own["inputs"])
            rows = {name: np.repeat(values, forms, axis=0) for name, values in own.items()}
            yield self.form(rows, np.tile(np.arange(forms), count))

    def _facts(self, splits: dict[str, Puzzles]) -> dict[str, object]:
        def of_each(fact: Callable[[Puzzles], float]) -> dict[str, float]:
            return {split: fact(splits[split]) for split in SPLITS}

        return {
            "mean_givens_by_split": of_each(lambda own: float((own.puzzles > 0).sum(axis=1).mean())),
            "mean_guesses_by_split": of_each(lambda own: float(own.guesses.mean())),
            "without_guesses_by_split": of_each(lambda own: float((own.guesses == 0).mean())),
            "distinct_solutions_by_split": of_each(lambda own: len(np.unique(own.answers, axis=0))),
            "distinct_up_to_symmetry_by_split": of_each(lambda own: len(np.unique(kinds_of(own.answers, self.size)))),
        }
