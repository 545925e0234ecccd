"""Single puzzles as people write them: read into a model's tokens, drawn cell by cell, judged by their own rules.

What is no puzzle of the task is refused with the rule that it breaks. One file here = one kind of puzzle.
"""

from __future__ import annotations

import gzip
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from hrm.data.reading import read_records
from hrm.errors import Problem, SpecError

MOST_PROBLEMS = 10
_TABLES = (".csv", ".parquet", ".jsonl")
_HEADER = "a first line that names the columns, such as source,question,answer,rating"


@dataclass(frozen=True, slots=True)
class Puzzle:
    """One that is to be solved."""

    place: str
    """Where it was read: `the grid`, `puzzles.csv: row 3`, `0a1b.json: test 1`."""
    inputs: np.ndarray
    """[S] tokens."""
    answer: np.ndarray | None = None
    """[S] tokens, where the solution is known: the only one, or the one that was given."""
    identifier: int = 0
    """Of the puzzle table; 0 is the blank one."""
    notes: tuple[str, ...] = ()


Build = Callable[[], Puzzle]
"""Makes a puzzle of what was read: proves and solves it. Raises SpecError for what is none."""


@dataclass(frozen=True, slots=True)
class Made:
    """Puzzles of a text or a file, in their order."""

    puzzles: list[Puzzle]
    more: bool
    """Whether others follow, of which nothing was made."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an answer keeps the rules."""

    valid: bool | None
    """None where nothing tells."""
    text: str


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell as it is drawn."""

    mark: str
    role: str = ""
    """`given`, `filled`, `wrong`, `wall`, `end`, `path`, or `colour N`; empty for what only separates."""


class PuzzleKind(ABC):
    """Reads, draws and judges the puzzles of one task."""

    @abstractmethod
    def each(self, text: str, place: str) -> Iterator[Build]:
        """The puzzles of a text: of the command line, of the standard input, of a file. Raises SpecError."""

    @abstractmethod
    def of_record(self, record: dict[str, Any], place: str) -> Puzzle:
        """A row of a table with `question` and, if it is known, `answer`. Raises SpecError."""

    @abstractmethod
    def judge(self, puzzle: Puzzle, tokens: np.ndarray) -> Verdict:
        """An answer [S]."""

    @abstractmethod
    def question(self, puzzle: Puzzle) -> list[list[Cell]]:
        """The puzzle, line by line."""

    @abstractmethod
    def drawn(self, puzzle: Puzzle, tokens: np.ndarray) -> list[list[Cell]]:
        """An answer [S], line by line."""

    def parse(self, text: str, place: str) -> list[Puzzle]:
        """All puzzles of a text. Raises SpecError with the first problems."""
        return made(self.each(text, place)).puzzles

    def read(self, path: Path) -> Iterator[Build]:
        """The puzzles of a file; a table's rows are read one by one. Raises SpecError."""
        if path.is_dir():
            raise refused(f"--file {path}", "is a folder", "Give a file in it")
        if not path.is_file():
            raise refused(f"--file {path}", "there is no such file", "Correct the path")
        suffix = Path(path.name.lower().removesuffix(".gz")).suffix
        if suffix not in _TABLES:
            yield from self.each(_text_in(path), str(path))
            return
        number = 0
        for number, record in enumerate(read_records(path), 1):
            yield partial(self.of_record, record, f"{path}: row {number}")
        if not number:
            below = f" below {_HEADER}" if suffix == ".csv" else ""
            raise refused(str(path), "holds no row" + (" below its header" if below else ""), f"Give puzzles{below}")


def made(builds: Iterator[Build], most: int | None = None) -> Made:
    """The first ones; what follows is not judged. Raises SpecError with the first problems of these."""
    puzzles: list[Puzzle] = []
    problems: list[Problem] = []
    for build in islice(builds, most):
        try:
            puzzles.append(build())
        except SpecError as error:
            problems += error.problems
        if len(problems) >= MOST_PROBLEMS:
            break
    if problems:
        raise SpecError(*problems[:MOST_PROBLEMS])
    return Made(puzzles, _follows(builds))


def _follows(builds: Iterator[Build]) -> bool:
    """Whether something does, be it broken."""
    try:
        return next(builds, None) is not None
    except SpecError:
        return True


def refused(place: str, rule: str, way_out: str) -> SpecError:
    """One problem as an error."""
    return SpecError(Problem(place, rule, way_out))


def text_of(record: dict[str, Any], name: str, place: str) -> str:
    """A column of a record. Raises SpecError where a question is missing."""
    value = record.get(name)
    if name == "question" and not value:
        found = ", ".join(map(str, record)) or "nothing"
        rule = "`question` is empty" if name in record else f"must have a column `question`, got {found}"
        raise refused(place, rule, "Fill it in" if name in record else f"Give {_HEADER}")
    return str(value or "").strip("\r\n")


def _text_in(path: Path) -> str:
    """Raises SpecError for what is no text."""
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.name.lower().endswith(".gz") else content).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise refused(str(path), f"cannot be read as text: {error}", "Give a text file, a CSV or JSON") from error


def as_lines(cells: list[list[Cell]]) -> list[str]:
    """Without colours."""
    return ["".join(cell.mark for cell in line).rstrip() for line in cells]
