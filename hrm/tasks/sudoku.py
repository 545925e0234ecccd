"""Generated Sudoku of 4x4, 6x6 and 9x9 cells: from the givens to the whole grid, which is the only solution.

The splits share no solution grid: each has grids of its own, and puzzles are blanked from them. Tokens as in
sapientinc/HRM: 0 padding (never used), 1 blank, 2 and up the digits; every cell is scored.
"""

from __future__ import annotations

from typing import Literal, Self

import numpy as np
from pydantic import Field, field_validator, model_validator

from hrm.data.dataset import SPLITS, DatasetWriter
from hrm.data.sudoku_grids import BOXES, Boards, Geometry
from hrm.errors import Problem, SpecError
from hrm.tasks import TaskSpec

GRIDS_4X4 = 288
PAD, BLANK = 0, 1


class SudokuSpec(TaskSpec):
    """The recipe. Puzzles of a split are distinct; at 4x4, where there are 288 grids, several share a grid."""

    kind: Literal["sudoku"] = "sudoku"

    size: int = 9
    """Cells per side: 4, 6 or 9."""
    num_train: int = Field(default=1000, ge=1, le=100_000)
    num_validation: int = Field(default=100, ge=1, le=100_000)
    num_test: int = Field(default=200, ge=1, le=100_000)
    min_givens: int = Field(default=0, ge=0)
    """Cells are blanked while the solution stays unique and more than these are given. 0: until no cell can go, which
    leaves about 4 of 16, 10 of 36 or 24 of 81."""
    augmentations: int = Field(default=0, ge=0, le=10_000)
    """Further forms of each train puzzle: digits relabelled, bands, stacks and the lines in them shuffled, transposed.
    A puzzle and its forms are one group (`sampling: original` takes one of them per epoch)."""
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
        if self.augmentations and self.size != 9:
            raise ValueError(
                f"augmentations must be 0 at size {self.size}, got {self.augmentations}: there are so few grids that "
                "forms of a train grid are held-out grids. Set augmentations: 0, or size: 9"
            )
        return self

    def build(self, writer: DatasetWriter) -> None:
        """Write the splits, and as facts how many cells are given and how many solution grids there are."""
        rng = np.random.RandomState(np.random.MT19937(self.seed))  # its numbers are the same in every numpy
        writer.vocabulary = ["<pad>", ".", *(str(digit + 1) for digit in range(self.size))]
        writer.num_puzzle_identifiers = 1
        givens: dict[str, float] = {}
        grids = self._grids(rng)
        for split in SPLITS:
            inputs, labels = self._rows(split, grids[split], rng)
            givens[split] = float((inputs != BLANK).sum(axis=1).mean())
            if split == "train" and self.augmentations:
                forms = self.augmentations + 1
                pairs = [_forms(puzzle, answer, forms, rng) for puzzle, answer in zip(inputs, labels, strict=True)]
                inputs, labels = (np.concatenate(column) for column in zip(*pairs, strict=True))
                rows = np.arange(len(inputs) + 1)
                writer.write_split(split, _columns(inputs, labels), puzzle_indices=rows, group_indices=rows[::forms])
            else:
                writer.write_split(split, _columns(inputs, labels))
        writer.facts = {
            "mean_givens_by_split": givens,
            "distinct_solutions_by_split": {split: len(grids[split]) for split in SPLITS},
        }

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

    def _counts(self) -> dict[str, int]:
        return {split: getattr(self, f"num_{split}") for split in SPLITS}

    def _shares(self) -> dict[str, int]:
        """Solution grids per split: one for each row, or of the 288 a share in proportion to the rows."""
        rows = self._counts()
        total = sum(rows.values())
        if self.size != 4 or total <= GRIDS_4X4:
            return rows
        spare = len(SPLITS) - 1  # for splits that would round to none
        return {split: max(1, (GRIDS_4X4 - spare) * count // total) for split, count in rows.items()}

    def _grids(self, rng: np.random.RandomState) -> dict[str, list[Boards]]:
        """Distinct solution grids, shared out."""
        geometry, shares = Geometry.of(self.size), self._shares()
        if self.size == 4:
            every = list(geometry.grids())
            grids = [every[index] for index in rng.permutation(len(every)).tolist()]
        else:
            found: dict[tuple[int, ...], None] = {}
            while len(found) < sum(shares.values()):
                found[tuple(next(geometry.grids(rng)))] = None
            grids = [list(grid) for grid in found]
        ends = np.cumsum(list(shares.values())).tolist()
        return {split: grids[end - shares[split] : end] for split, end in zip(shares, ends, strict=True)}

    def _rows(self, split: str, grids: list[Boards], rng: np.random.RandomState) -> tuple[np.ndarray, np.ndarray]:
        """Inputs and labels [N, size * size] of distinct puzzles, the grids in turn."""
        geometry, count = Geometry.of(self.size), self._counts()[split]
        answers = np.array([geometry.tokens(grid) for grid in grids])
        labels = answers[np.arange(count) % len(grids)]
        inputs = np.empty_like(labels)
        taken: set[bytes] = set()
        for index in range(count):
            for _ in range(1000):
                given = geometry.mask(geometry.blanked(grids[index % len(grids)], self.min_givens, rng))
                inputs[index] = np.where(given, labels[index], BLANK)
                if (key := inputs[index].tobytes()) not in taken:
                    break
            else:
                raise SpecError(self._too_few(split, len(taken)))
            taken.add(key)
        return inputs, labels

    def _too_few(self, split: str, found: int) -> Problem:
        return Problem(
            f"dataset sudoku: num_{split}",
            f"asks for {self._counts()[split]} distinct puzzles of {self._shares()[split]} grids with min_givens "
            f"{self.min_givens}, and no more than {found} were found",
            f"Lower num_{split} or min_givens",
        )


def _columns(inputs: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    return {"inputs": inputs, "labels": labels, "puzzle_identifiers": np.zeros(len(inputs), dtype=np.int32)}


def _forms(
    puzzle: np.ndarray, answer: np.ndarray, count: int, rng: np.random.RandomState
) -> tuple[np.ndarray, np.ndarray]:
    """A 9x9 puzzle [81] and its answer in `count` random forms [count, 81], of which the first is as it was."""
    digits = np.tile(np.arange(11), (count, 1))
    digits[1:, BLANK + 1 :] = BLANK + 1 + _permutations(count - 1, 9, rng)
    places = np.tile(np.arange(81), (count, 1))
    places[1:] = _places(count - 1, rng)
    form = np.arange(count)[:, None]
    return digits[form, puzzle[places]].astype(np.int32), digits[form, answer[places]].astype(np.int32)


def _places(count: int, rng: np.random.RandomState) -> np.ndarray:
    """[count, 81]: the cell that each cell of a form is taken from."""
    rows, columns = _lines(count, rng), _lines(count, rng)
    places = rows[:, :, None] * 9 + columns[:, None, :]
    transposed = rng.random_sample(count) < 0.5
    grids: np.ndarray = np.where(transposed[:, None, None], places.transpose(0, 2, 1), places)
    return grids.reshape(count, 81)


def _lines(count: int, rng: np.random.RandomState) -> np.ndarray:
    """[count, 9]: bands of three in random order, and the lines of each in random order."""
    bands = _permutations(count, 3, rng)
    within = _permutations(count * 3, 3, rng).reshape(count, 3, 3)
    lines: np.ndarray = bands[:, :, None] * 3 + within
    return lines.reshape(count, 9)


def _permutations(count: int, size: int, rng: np.random.RandomState) -> np.ndarray:
    """[count, size]: random permutations."""
    keys: np.ndarray = rng.random_sample((count, size))
    return keys.argsort(axis=1)
