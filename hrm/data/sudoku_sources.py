"""Sudoku from files: CSV as of Sudoku-Extreme (`source,question,answer,rating`), or lists of one puzzle per line.

Blank cells are `.` or `0`. Every row that is taken is checked: its length, its characters, that it has one solution,
and that its answer, where it has one, is this solution.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from hrm.data.keys import Words, draws, row_keys
from hrm.data.reading import read_records
from hrm.data.sources import SourceSpec
from hrm.data.sudoku_grids import Grids, Numbers, Solved, solve
from hrm.data.sudoku_puzzles import Puzzles, joined
from hrm.data.sudoku_splits import Map, kinds_of
from hrm.errors import Problem, SpecError

MOST_PROBLEMS = 10
ROWS_PER_BATCH = 1024
SPARE_ROWS = 1000
"""Rows kept beyond twice those that are wanted, for some may be forms of held-out grids."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which rows of a source are taken: so many at random, of at least this rating."""

    size: int
    seed: int
    min_difficulty: int | None
    count: int


@dataclass(frozen=True, slots=True)
class _Row:
    place: str
    question: str
    answer: str
    """Empty where the source has none."""
    rating: str | None


def source_splits(
    train: SourceSpec, test: SourceSpec, choice: Choice, num_validation: int, num_test: int, work: Map
) -> tuple[dict[str, Puzzles], int]:
    """`choice` of the train source, and so many more; with how many rows were passed over as forms of another split.

    Test is taken whatever it holds; train then takes rows whose grids are no forms of its grids, and validation rows
    whose grids are no forms of either's. Raises SpecError for rows that are wrong or too few.
    """
    size, seed, minimum = choice.size, choice.seed, choice.min_difficulty
    held_out = _checked(_chosen(test, Choice(size, seed, minimum, num_test)), size, work)
    if len(held_out) < num_test:
        raise SpecError(_too_few("test_source", "test", num_test, len(held_out), minimum))
    wanted = {"train": choice.count, "validation": num_validation}
    total = sum(wanted.values())
    rows = _chosen(train, Choice(size, seed, minimum, 2 * total + SPARE_ROWS))
    offered, own = _checked(rows[:total], size, work), dict[str, Numbers]()
    while True:
        own = _apart(kinds_of(offered.answers, size), kinds_of(held_out.answers, size), wanted)
        short = total - sum(map(len, own.values()))
        if not short or len(offered) == len(rows):
            break
        more = rows[len(offered) : len(offered) + short]
        offered = joined([offered, _checked(more, size, work)])
    for split, count in wanted.items():
        if len(own[split]) < count:
            raise SpecError(_too_few("source", split, count, len(own[split]), minimum))
    return {**{split: offered.take(found) for split, found in own.items()}, "test": held_out}, len(offered) - total


def _apart(kinds: Words, taken: Words, wanted: dict[str, int]) -> dict[str, Numbers]:
    """For each split the first rows that are of no kind that is taken, nor of one of the splits before it."""
    own: dict[str, Numbers] = {}
    start = 0
    for split, count in wanted.items():
        own[split] = start + np.flatnonzero(~np.isin(kinds[start:], taken))[:count]
        start = int(own[split][-1]) + 1 if len(own[split]) else start
        taken = np.concatenate([taken, kinds[own[split]]])
    return own


def _too_few(source: str, split: str, count: int, found: int, minimum: int | None) -> Problem:
    what = "" if minimum is None else f" of a rating >= {minimum}"
    rule = f"num_{split} asks for {count} rows{what} whose grids are no forms of another split's, and there are {found}"
    return Problem(f"dataset sudoku: {source}", rule, f"Lower num_{split}" + (" or min_difficulty" if what else ""))


def _checked(rows: list[_Row], size: int, work: Map) -> Puzzles:
    """The rows, solved. Raises SpecError with the first rows that are wrong."""
    problems = [_misprint(row, size) for row in rows]
    good = [row for row, problem in zip(rows, problems, strict=True) if problem is None]
    puzzles = _grids([row.question for row in good], size)
    solved = _solved(puzzles, size, work)
    answers = _grids([row.answer or "0" * size**2 for row in good], size)
    verdicts = iter(
        _unsound(row, count, (answer == solution).all())
        for row, count, answer, solution in zip(good, solved.counts.tolist(), answers, solved.answers, strict=True)
    )
    wrong = [found for problem in problems if (found := problem or next(verdicts)) is not None]
    if wrong:
        more = len(wrong) - MOST_PROBLEMS
        rest = [Problem("dataset sudoku", f"{more} more rows are wrong", "Correct the source")] if more > 0 else []
        raise SpecError(*wrong[:MOST_PROBLEMS], *rest)
    ratings = [row.rating for row in rows if row.rating is not None]
    known = len(ratings) == len(rows)
    return Puzzles(puzzles, solved.answers, solved.guesses, np.array(ratings, np.int64) if known else None)


def _chosen(source: SourceSpec, choice: Choice) -> list[_Row]:
    """The rows with the least of one random number each: as many as wanted, each set of rows equally likely."""
    numbered = enumerate(_rows(source))
    drawn: Iterator[tuple[int, int, _Row]] = (
        (number, index, row)
        for block in iter(lambda: list(islice(numbered, 65536)), [])
        for number, (index, row) in zip(_numbers(choice.seed, block[0][0], len(block)), block, strict=True)
        if choice.min_difficulty is None or _rating(row) >= choice.min_difficulty
    )
    return [row for _, _, row in heapq.nsmallest(choice.count, drawn)]


def _numbers(seed: int, start: int, count: int) -> list[int]:
    found: list[int] = draws(row_keys(seed, np.arange(start, start + count)), 1)[:, 0].tolist()
    return found


def _rows(source: SourceSpec) -> Iterator[_Row]:
    for file in source.locate():
        for number, record in enumerate(read_records(file), 1):
            place = f"{file}: row {number}"
            if "question" in record:
                rating = record.get("rating")
                text = None if rating in (None, "") else str(rating)
                yield _Row(place, str(record["question"]).strip(), str(record.get("answer") or "").strip(), text)
            elif set(record) == {"text"}:
                for at, line in enumerate(str(record["text"]).splitlines(), 1):
                    if (puzzle := line.strip()) and not puzzle.startswith("#"):
                        yield _Row(f"{file}: line {at}", puzzle, "", None)
            else:
                rule = f"there must be a column `question`, got {', '.join(map(str, record))}"
                raise SpecError(Problem(place, rule, "Name the columns source,question,answer,rating"))


def _rating(row: _Row) -> int:
    if row.rating is None or not row.rating.isdecimal():
        rule = f"min_difficulty reads `rating`, a whole number, got {row.rating!r}"
        raise SpecError(Problem(row.place, rule, "Leave min_difficulty out, or add the ratings"))
    return int(row.rating)


def _misprint(row: _Row, size: int) -> Problem | None:
    digits = "123456789"[:size]
    for name, text, allowed in (("question", row.question, f".0{digits}"), ("answer", row.answer, digits)):
        if len(text) != size**2 and (text or name == "question"):
            rule = f"the {name} must have {size**2} cells, got {len(text)}"
            return Problem(row.place, rule, f"Correct the row, or say another size than {size}")
        if set(text) - set(allowed):
            wrong = "".join(sorted(set(text) - set(allowed)))
            return Problem(row.place, f"the {name} may hold {allowed}, got {wrong!r}", "Correct the row")
    if row.rating is not None and not row.rating.isdecimal():
        return Problem(row.place, f"the rating must be a whole number, got {row.rating!r}", "Correct the row")
    return None


def _unsound(row: _Row, count: int, agrees: bool) -> Problem | None:
    if count != 1:
        found = "none" if count == 0 else "several"
        return Problem(row.place, f"a puzzle must have one solution, this one has {found}", "Take the row out")
    if row.answer and not agrees:
        return Problem(row.place, f"the answer must be the puzzle's solution, got {row.answer}", "Correct the row")
    return None


def _grids(texts: list[str], size: int) -> npt.NDArray[np.int8]:
    """[N, n * n] of rows of characters."""
    values = np.frombuffer("".join(texts).replace(".", "0").encode(), np.uint8).astype(np.int8) - np.int8(ord("0"))
    return values.reshape(-1, size * size)


def _solved(puzzles: Grids, size: int, work: Map) -> Solved:
    items = [(puzzles[at : at + ROWS_PER_BATCH], size) for at in range(0, len(puzzles), ROWS_PER_BATCH)]
    parts = list(work(_solve, items, "batches of puzzles")) or [solve(puzzles, size)]
    names = ("counts", "answers", "guesses")
    return Solved(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _solve(item: tuple[Grids, int]) -> Solved:
    return solve(*item)
