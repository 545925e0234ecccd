"""Single puzzles as people write them: read into a model's tokens, drawn cell by cell, judged by their own rules.

What is no puzzle of the task is refused with the rule that it breaks. One file here = one kind of puzzle.
"""

from __future__ import annotations

import gzip
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hrm.data.reading import read_records
from hrm.errors import Problem, SpecError

MOST_PROBLEMS = 10
_TABLES = (".csv", ".parquet", ".jsonl")


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
    def parse(self, text: str, place: str) -> list[Puzzle]:
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

    def read(self, path: Path) -> list[Puzzle]:
        """The puzzles of a file. Raises SpecError with the first problems."""
        if not path.is_file():
            raise refused(f"--file {path}", "there is no such file", "Correct the path")
        if Path(path.name.lower().removesuffix(".gz")).suffix not in _TABLES:
            return self.parse(_text_in(path), str(path))
        records = list(read_records(path))
        if not records:
            raise refused(str(path), "holds no row", "Give a file with puzzles")
        puzzles: list[Puzzle] = []
        problems: list[Problem] = []
        for number, record in enumerate(records, 1):
            try:
                puzzles.append(self.of_record(record, f"{path}: row {number}"))
            except SpecError as error:
                problems += error.problems
        if problems:
            raise SpecError(*problems[:MOST_PROBLEMS])
        return puzzles


def refused(place: str, rule: str, way_out: str) -> SpecError:
    """One problem as an error."""
    return SpecError(Problem(place, rule, way_out))


def text_of(record: dict[str, Any], name: str, place: str) -> str:
    """A column of a record. Raises SpecError where a question is missing."""
    value = record.get(name)
    if name == "question" and not value:
        found = ", ".join(map(str, record)) or "nothing"
        raise refused(
            place, f"must have a column `question`, got {found}", "Name the columns source,question,answer,rating"
        )
    return str(value or "").strip("\r\n")


def _text_in(path: Path) -> str:
    """Raises SpecError for what is no text."""
    try:
        content = path.read_bytes()
        return (gzip.decompress(content) if path.name.lower().endswith(".gz") else content).decode("utf-8-sig")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise refused(str(path), f"cannot be read as text: {error}", "Give a text file, a CSV or JSON") from error


def as_lines(cells: list[list[Cell]]) -> list[str]:
    """Without colours."""
    return ["".join(cell.mark for cell in line).rstrip() for line in cells]
