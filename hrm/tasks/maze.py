"""Mazes: from walls, start and goal to the shortest path; generated with a least length, or read (Maze-Hard).

Tokens as in sapientinc/HRM: 0 padding (never used), then `#`, space, `S`, `G` and `o`, the path; every cell is scored.
No maze is in two splits, nor one of its turned and mirrored forms.
"""

from __future__ import annotations

from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from hrm.data.dataset import SPLITS, DatasetWriter
from hrm.data.maze_grids import LARGEST, MARKS, WALL, Draw, are_paths, dihedral, first_path_labels, path_steps
from hrm.data.maze_sources import read_mazes
from hrm.data.maze_splits import Mazes, distinct_mazes, forms_in_earlier_splits, parts
from hrm.data.sources import SourceSpec
from hrm.errors import Problem, SpecError
from hrm.tasks import Answers, Sums, TaskSpec

FORMS = 8
LENGTHS = 5
"""Classes of path length, each `size` steps wide; the last is open."""


class MazeSpec(TaskSpec):
    """The recipe. Without a source: walls at random, start and goal anywhere, kept if they are `min_path` apart."""

    kind: Literal["maze"] = "maze"

    size: int = Field(default=9, ge=3, le=LARGEST)
    """Cells per side."""
    min_path: int = Field(default=10, ge=1)
    """Steps of the shortest path from start to goal, at least."""
    min_wall_fraction: float = Field(default=0.3, ge=0.0, lt=1.0)
    max_wall_fraction: float = Field(default=0.5, ge=0.0, lt=1.0)
    """Each maze's share of walls is drawn evenly between these two (which grids are kept shifts it)."""
    num_train: int | None = Field(default=1000, ge=1)
    """null, with a source: all its mazes that are not held out."""
    num_validation: int = Field(default=100, ge=1)
    """With a source: taken from it at random."""
    num_test: int | None = Field(default=200, ge=1)
    """null, with a test source: all its mazes. Without a test source: taken from the source at random."""
    source: SourceSpec | None = None
    """Records with `question` and `answer`, instead of generated mazes."""
    test_source: SourceSpec | None = None
    augmentation: Literal["none", "on_the_fly", "stored"] = "none"
    """Whether train mazes come in their eight turned and mirrored forms. Labels are turned, not searched anew: which of
    the shortest paths is the label then follows no rule that a model could learn, and `exact_accuracy` suffers."""
    seed: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _mazes_can_be_drawn(self) -> Self:
        if self.min_path >= self.size**2:
            rule = f"min_path must be < {self.size**2} at size {self.size}, got {self.min_path}"
            raise ValueError(f"{rule}; lower min_path")
        if self.min_wall_fraction > self.max_wall_fraction:
            rule = f"min_wall_fraction must be <= max_wall_fraction, got {self.min_wall_fraction}"
            raise ValueError(f"{rule} and {self.max_wall_fraction}; swap them")
        return self

    @model_validator(mode="after")
    def _fields_are_of_this_way(self) -> Self:
        if self.source is None:
            given = [name for name in ("num_train", "num_test") if getattr(self, name) is None]
            if given:
                raise ValueError(f"{given[0]} must be a number where mazes are generated, got null; give one")
            if self.test_source is not None:
                raise ValueError("test_source must be null where source is, got one; give source, too")
        else:
            fields = type(self).model_fields
            for name in ("min_path", "min_wall_fraction", "max_wall_fraction"):
                if (value := getattr(self, name)) != fields[name].default:
                    raise ValueError(f"{name} must be left out with a source, got {value}; leave it out")
            if self.num_test is None and self.test_source is None:
                raise ValueError("num_test must be a number where there is no test_source, got null; give one")
        return self

    def build(self, writer: DatasetWriter) -> None:
        """Write the splits; as facts their wall shares and steps, and how many labels are the first path found."""
        writer.vocabulary = ["<pad>", *MARKS]
        writer.num_puzzle_identifiers = 1
        splits = self._generated(writer) if self.source is None else self._read(self.source)
        overlap = {} if self.source is None else self._overlap(splits)
        for split in SPLITS:
            rows = self._columns(splits[split])
            if split == "train" and self.augmentation == "stored":
                stored, forms = np.divmod(np.arange(len(rows["inputs"]) * FORMS), FORMS)
                rows = self.form({name: column[stored] for name, column in rows.items()}, forms)
                puzzles = np.arange(len(stored) + 1)
                writer.write_split(split, rows, puzzle_indices=puzzles, group_indices=puzzles[::FORMS])
            else:
                writer.write_split(split, rows)
        writer.facts = {split: _facts(mazes) for split, mazes in splits.items()} | overlap

    def render(self, tokens: list[int], vocabulary: list[str]) -> str:
        """The maze, a line per row. What is none of its marks is shown as `?`."""
        marks = "".join(vocabulary[token] if token >= WALL else "?" for token in tokens)
        return "\n".join(marks[start : start + self.size] for start in range(0, len(marks), self.size))

    def forms(self, split: str) -> int:
        """Eight of each train maze, if they are made on the fly."""
        return FORMS if split == "train" and self.augmentation == "on_the_fly" else 1

    def form(self, rows: dict[str, np.ndarray], forms: np.ndarray) -> dict[str, np.ndarray]:
        """The mazes turned and mirrored; the path with them."""
        places = dihedral(self.size)[forms]
        turned = {name: np.take_along_axis(rows[name], places, axis=1) for name in ("inputs", "labels")}
        return {**rows, **turned}

    @property
    def metrics(self) -> tuple[str, ...]:
        """`valid_path`, `valid_shortest_path`, and the latter by the length of the shortest path."""
        return ("valid_path", "valid_shortest_path", *self._length_names())

    def score(self, answers: Answers, vocabulary: list[str]) -> Sums:
        """`valid_path`: share of answers that are the maze with one path in it, from start to goal over open cells,
        without a cell that could be spared. `valid_shortest_path`: and there is no shorter one."""
        steps = path_steps(answers.rows["labels"])
        valid = are_paths(answers.rows["inputs"], answers.tokens)
        shortest = valid & (path_steps(answers.tokens) == steps)
        lengths = np.minimum(steps // self.size, LENGTHS - 1)
        sums = {"valid_path": _share(valid), "valid_shortest_path": _share(shortest)}
        return sums | {name: _share(shortest[lengths == at]) for at, name in enumerate(self._length_names())}

    @classmethod
    def smoke(cls) -> Self:
        """28 mazes of 5x5 cells, the train ones in eight forms."""
        return cls(size=5, min_path=5, num_train=16, num_validation=6, num_test=6, augmentation="on_the_fly")

    def _length_names(self) -> list[str]:
        starts = [at * self.size for at in range(LENGTHS)]
        ends = [f"to_{start + self.size - 1}" for start in starts[:-1]] + ["and_more"]
        return [f"valid_shortest_path_{start}_{end}_steps" for start, end in zip(starts, ends, strict=True)]

    def _generated(self, writer: DatasetWriter) -> dict[str, Mazes]:
        """Held-out mazes first, so that more train mazes leave them as they are."""
        numbers = [self.num_test or 0, self.num_validation, self.num_train or 0]
        draw = Draw(self.size, self.min_path, self.min_wall_fraction, self.max_wall_fraction, self.seed, 0)
        mazes = distinct_mazes(
            draw, sum(numbers), lambda function, items: writer.map(function, items, "draws of mazes")
        )
        if mazes.shape[1] < sum(numbers):
            rule = f"asks for {sum(numbers)} mazes, and no more than {mazes.shape[1]} were found"
            way_out = "Lower min_path or the numbers of mazes"
            raise SpecError(Problem(f"dataset maze: min_path {self.min_path}", rule, way_out))
        test, validation, train = np.split(mazes, np.cumsum(numbers[:-1]), axis=1)
        return {"train": train, "validation": validation, "test": test}

    def _read(self, source: SourceSpec) -> dict[str, Mazes]:
        """Mazes held out at random, the others in the source's order."""
        mazes = read_mazes(source, self.size)
        tests = None if self.test_source is None else read_mazes(self.test_source, self.size)[:, : self.num_test]
        wanted = [self.num_validation, 0 if tests is not None else self.num_test or 0]
        spare = mazes.shape[1] - sum(wanted)
        if spare < (self.num_train or 1):
            raise SpecError(self._source_too_small(mazes.shape[1], sum(wanted)))
        if tests is not None and tests.shape[1] < (self.num_test or 1):
            rule = f"num_test asks for {self.num_test or 1} mazes of a source of {tests.shape[1]}"
            raise SpecError(Problem("dataset maze: test_source", rule, "Lower num_test, or set it to null"))
        order = np.random.RandomState(np.random.MT19937(self.seed)).permutation(mazes.shape[1])
        validation, test, train = np.split(order, np.cumsum(wanted))
        return {
            "train": mazes[:, np.sort(train)[: self.num_train]],
            "validation": mazes[:, np.sort(validation)],
            "test": mazes[:, np.sort(test)] if tests is None else tests,
        }

    def _source_too_small(self, there: int, held_out: int) -> Problem:
        train = self.num_train or 1
        rule = f"asks for {held_out + train} mazes ({held_out} of them held out) of a source of {there}"
        return Problem("dataset maze: num_train", rule, "Lower the numbers of mazes, or set num_train: null")

    def _overlap(self, splits: dict[str, Mazes]) -> dict[str, Any]:
        """The fact how many mazes of a split are forms of mazes of an earlier one. Raises SpecError if not allowed."""
        shared = {split: rows for split, rows in forms_in_earlier_splits(splits, self.size).items() if rows.size}
        if shared and not self.allow_overlap:
            rule = "no maze may be in two splits, turned or mirrored;"
            way_out = "Take the mazes from different sources, or set allow_overlap: true"
            raise SpecError(
                *(
                    Problem(f"dataset maze: {split}", f"{rule} {rows.size} are, the first is row {rows[0]}", way_out)
                    for split, rows in shared.items()
                )
            )
        return {"forms_in_an_earlier_split": {split: rows.size for split, rows in shared.items()}} if shared else {}

    def _columns(self, mazes: Mazes) -> dict[str, np.ndarray]:
        return {
            "inputs": mazes[0],
            "labels": mazes[1],
            "puzzle_identifiers": np.zeros(mazes.shape[1], dtype=np.int32),
            "rating": path_steps(mazes[1]) + 1,  # the cells of the path and its ends, as in Maze-Hard
        }


def _share(right: npt.NDArray[np.bool_]) -> tuple[float, float]:
    return float(right.sum()), float(right.size)


def _facts(mazes: Mazes) -> dict[str, Any]:
    steps = path_steps(mazes[1])
    pairs = zip(*map(parts, mazes), strict=True)
    return {
        "wall_fraction": float((mazes[0] == WALL).mean()),
        "steps": {"min": int(steps.min()), "mean": float(steps.mean()), "max": int(steps.max())},
        "labels_that_are_the_first_path": sum(
            int((first_path_labels(inputs) == labels).all(axis=1).sum()) for inputs, labels in pairs
        ),
    }
