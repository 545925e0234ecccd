"""The Abstraction and Reasoning Corpus: ARC-AGI-1, ARC-AGI-2, ConceptARC; a puzzle identifier for each form of a task.

The demonstrations of every task, and the test pairs of training tasks, are trained on; the test pairs of evaluation
tasks are held out, those of a fixed share of the tasks for validation, all others for test. Tokens and layout are those
of sapientinc/HRM. A held-out answer is a vote over the forms of its input.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from hrm.data.arc_forms import (
    BLACK,
    END,
    PAD,
    VOCABULARY,
    Integers,
    corners,
    inverse_colours,
    inverse_turns,
    laid_out,
    moved_to_corner,
    num_forms,
    read_out,
    turned_sizes,
    turns_and_colours,
)
from hrm.data.arc_overlap import trained_and_held_out
from hrm.data.arc_predictions import SCHEMA, scores
from hrm.data.arc_rows import Columns, cells_of, colours_and_turns, in_chunks, members_of_splits, rows_of
from hrm.data.arc_samples import sample_tasks
from hrm.data.arc_sources import ArcSource
from hrm.data.arc_tasks import LARGEST, ArcTask
from hrm.data.dataset import DatasetWriter, Rows
from hrm.data.keys import draws, row_keys
from hrm.errors import Problem, SpecError
from hrm.tasks import IGNORE, Answer, Answers, Sums, TaskSpec

NAMED = 20
"""How many tasks an error names."""
ROWS_AT_ONCE = 6144
"""Rows that the model is asked at once: whole batches of most sizes."""


class ArcSpec(TaskSpec):
    """The recipe.

    A form of a task is one of eight turns and a recolouring that keeps 0 (black). Form 0 is the task as it is. In every
    further form the train pairs are moved about the canvas, all but one.
    """

    kind: Literal["arc"] = "arc"

    sources: tuple[ArcSource, ...] = ()
    """Empty: six tiny tasks of our own, for trying out."""
    leave_out: tuple[str, ...] = ()
    """Names of training tasks that are not taken."""
    canvas: int = Field(default=LARGEST, ge=2, le=LARGEST)
    """Cells per side: a row has canvas * canvas positions."""
    augmentations: int = Field(default=1000, ge=0, le=100_000)
    """Further forms of each task. A task of few colours has fewer that differ: they come round again, each under the
    identifier of its first time."""
    stored: bool = False
    """Whether all forms of train rows are written, not made as they are read; the rows are the same."""
    votes: int | None = Field(default=None, ge=1)
    """Forms of a held-out input that vote; null: all that the task is trained in."""
    validation_share: float = Field(default=0.2, gt=0.0, lt=1.0)
    """The share of the held-out tasks that is for validation: those whose names have the lowest hashes."""
    seed: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _votes_are_of_trained_forms(self) -> Self:
        if self.votes is not None and self.votes > self.augmentations + 1:
            rule = f"votes must be <= augmentations + 1 = {self.augmentations + 1}, got {self.votes}"
            raise ValueError(f"{rule}: further forms have no identifier; lower votes, or raise augmentations")
        return self

    def identified(self) -> Self:
        """The recipe with the digest of every source in it."""
        sources = tuple(
            source.identified(f"dataset arc: sources[{number}]") for number, source in enumerate(self.sources)
        )
        return self if sources == self.sources else self.model_copy(update={"sources": sources})

    def build(self, writer: DatasetWriter) -> None:
        """Write the splits; as facts the tasks, their first identifiers, and which are both trained and held out."""
        tasks = self._tasks()
        overlap = trained_and_held_out(tasks)
        if overlap and not self.allow_overlap:
            raise SpecError(_trained_on(overlap))
        colours, turns = zip(*map(colours_and_turns, tasks), strict=True)
        shared = {"colours": np.array(colours), "turns": np.array(turns)}
        counts = np.minimum(num_forms(shared["colours"], shared["turns"]), self.augmentations + 1)
        shared["puzzle_identifiers"] = np.cumsum([1, *counts])[:-1]
        writer.vocabulary = list(VOCABULARY)
        writer.num_puzzle_identifiers = 1 + int(counts.sum())
        for split, members in members_of_splits(tasks, self.validation_share).items():
            parts = [
                self._rows(tasks[at], split, {name: column[at] for name, column in shared.items()}) for at in members
            ]
            self._write(writer, split, parts)
        writer.facts = {
            "tasks": [task.name for task in tasks],
            "first_identifiers": shared["puzzle_identifiers"].tolist(),
            "held_out_tasks": sum(task.held_out for task in tasks),
            "trained_and_held_out_tasks": len({name for name, _ in overlap}),
            "trained_and_held_out": [list(names) for names in overlap],
        }

    def render(self, tokens: list[int], vocabulary: list[str]) -> str:
        """The grid, a line per row: colours as digits, ends as `+`, padding as `.`; what is all padding is cut away."""
        marks = {PAD: ".", IGNORE: ".", END: "+"}
        text = "".join(marks.get(token) or vocabulary[token] for token in tokens)
        lines = [text[start : start + self.canvas] for start in range(0, len(text), self.canvas)]
        height = max((row for row, line in enumerate(lines, 1) if line.strip(".")), default=1)
        width = max(*(len(line.rstrip(".")) for line in lines), 1)
        return "\n".join(line[:width] for line in lines[:height])

    @classmethod
    def smoke(cls) -> Self:
        """Six tasks of at most 4 x 4 cells, in eight forms each."""
        return cls(canvas=6, augmentations=7)

    def forms(self, split: str) -> int:
        """1 + `augmentations` of a train row, unless they are stored. Held-out rows are as they are: their forms
        are made by `predictions`."""
        return self.augmentations + 1 if split == "train" and not self.stored else 1

    def form(self, rows: Columns, forms: np.ndarray) -> Columns:
        """Turned, recoloured and moved, with the identifier of the form, and its number in `forms`."""
        numbers = forms % num_forms(rows["colours"], rows["turns"])
        turns, colours = self._turns_and_colours(rows, numbers)
        offsets = self._offsets(rows, forms, turns)
        inputs = laid_out(rows["inputs"], rows["sizes"][:, :2], turns, colours, offsets, PAD)
        labels = laid_out(rows["labels"], rows["sizes"][:, 2:], turns, colours, offsets, IGNORE)
        identifiers = (rows["puzzle_identifiers"] + numbers).astype(np.int32)
        own = {"puzzle_identifiers": identifiers, "forms": numbers.astype(np.int32)}
        return {**rows, "inputs": inputs, "labels": labels, **own}

    @property
    def metrics(self) -> tuple[str, ...]:
        """`exact_grid`."""
        return ("exact_grid",)

    def score(self, answers: Answers, vocabulary: list[str]) -> Sums:
        """`exact_grid`: the share of rows whose grid, read out as for a vote, is the true one; ends do not count."""
        places = corners(answers.rows["inputs"])
        found, true = (moved_to_corner(grids, places) for grids in (answers.tokens, answers.rows["labels"]))
        same_size = (read_out(found) == read_out(true)).all(axis=1)
        same_colours = ((found == true) | (true < BLACK)).all(axis=1)
        return {"exact_grid": (float((same_size & same_colours).sum()), float(len(answers)))}

    def predictions(self, answer: Answer, rows: Rows, vocabulary: list[str]) -> pa.Table:
        """What the model predicts for all voting forms of a split's tasks (`hrm.data.arc_predictions.SCHEMA`): with
        their puzzle identifiers, then with 0."""
        originals = rows.gather(_first_puzzles(rows))
        votes = np.minimum(num_forms(originals["colours"], originals["turns"]), self.votes or self.augmentations + 1)
        which = np.repeat(np.arange(len(votes)), votes)
        forms = np.arange(len(which)) - np.repeat(np.cumsum(votes) - votes, votes)
        tables = []
        for blank in (False, True):
            for start in range(0, len(which), ROWS_AT_ONCE):
                here = slice(start, start + ROWS_AT_ONCE)
                stored = {name: column[which[here]] for name, column in originals.items()}
                asked = self.form(stored, forms[here])
                if blank:
                    asked["puzzle_identifiers"] = np.zeros_like(asked["puzzle_identifiers"])
                tables.append(self._table(stored, answer(asked), blank))
        return pa.concat_tables(tables)

    def judge(self, predictions: pa.Table) -> dict[str, float]:
        """`pass_1`, `pass_2`, ... by vote, also without puzzle identifiers: see `hrm.data.arc_predictions.scores`."""
        return scores(predictions)

    def _table(self, stored: Columns, answers: Answers, blank: bool) -> pa.Table:
        """The predicted grids, turned and recoloured back; `stored`: the rows in form 0."""
        forms, found = answers.rows["forms"], moved_to_corner(answers.tokens, corners(answers.rows["inputs"]))
        turns, colours = self._turns_and_colours(stored, forms)
        sizes, back = read_out(found), inverse_turns(turns)
        corner = np.zeros_like(sizes)
        grids = laid_out(found, np.maximum(sizes, 1), back, inverse_colours(colours), corner, PAD)
        predicted = cells_of(grids, turned_sizes(sizes, back))
        true = cells_of(stored["labels"], stored["sizes"][:, 2:])
        columns = {
            "task": stored["puzzle_identifiers"],
            "test": stored["pairs"][:, 0],
            "form": forms,
            "blank": np.full(len(forms), blank),
            "confidence": np.zeros(len(forms)) if answers.confidence is None else answers.confidence,
            "height": [height for height, _ in predicted],
            "cells": [cells for _, cells in predicted],
            "correct": [one == other for one, other in zip(predicted, true, strict=True)],
        }
        return pa.table({name: pa.array(columns[name], SCHEMA.field(name).type) for name in SCHEMA.names})

    def _turns_and_colours(self, rows: Columns, numbers: Integers) -> tuple[Integers, Integers]:
        """Of forms [B] of stored rows: drawn for the task, so that its train and held-out pairs share them."""
        keys = row_keys(self.seed, rows["puzzle_identifiers"])
        return turns_and_colours(keys, rows["colours"], rows["turns"], numbers)

    def _offsets(self, rows: Columns, forms: Integers, turns: Integers) -> Integers:
        """[B, 2]: where the grids of a pair lie: in the corner, if it is this pair's turn, or anywhere with room."""
        place, moving = rows["pairs"].T
        keys = row_keys(self.seed, rows["puzzle_identifiers"], forms, place)
        larger = np.maximum(rows["sizes"][:, :2], rows["sizes"][:, 2:])
        room = (self.canvas + 1 - turned_sizes(larger, turns)).astype(np.uint64)
        moved = (forms > 0) & (moving > 0) & (forms % np.maximum(moving, 1) != place)
        return np.where(moved[:, None], (draws(keys, 2) % room).astype(np.int64), 0)

    def _tasks(self) -> list[ArcTask]:
        """Of all sources, in their order. Raises SpecError with the problems of all."""
        problems: list[Problem] = []
        tasks: list[ArcTask] = [] if self.sources else sample_tasks()
        for number, source in enumerate(self.sources):
            try:
                tasks += source.tasks(f"dataset arc: sources[{number}]")
            except SpecError as error:
                problems += error.problems
        if problems := problems or self._unfit(tasks):
            raise SpecError(*problems)
        return [task for task in tasks if task.held_out or task.name not in self.leave_out]

    def _unfit(self, tasks: list[ArcTask]) -> list[Problem]:
        """What is wrong with the tasks for this recipe."""
        problems = []
        large = [task.name for task in tasks if task.largest > self.canvas]
        if large:
            rule = f"must be as large as every grid, got {self.canvas}, and {_listing(large)} have larger ones"
            problems.append(Problem("dataset arc: canvas", rule, f"Set canvas: {LARGEST}"))
        unknown = sorted(set(self.leave_out) - {task.name for task in tasks if not task.held_out})
        if unknown:
            rule = f"there is no training task {', '.join(unknown)}"
            problems.append(Problem("dataset arc: leave_out", rule, "Correct the name, or leave it out of the list"))
        held_out = {task.name for task in tasks if task.held_out}
        if len(held_out) < 2:
            rule = f"must give at least two tasks to hold out (validation, test), got {len(held_out)}"
            problems.append(Problem("dataset arc: sources", rule, "Set held_out of a source, or add one"))
        return problems

    def _rows(self, task: ArcTask, split: str, shared: Columns) -> Columns:
        rows = rows_of(task, split, self.canvas)
        return rows | {name: np.repeat(value[None], len(rows["inputs"]), axis=0) for name, value in shared.items()}

    def _write(self, writer: DatasetWriter, split: str, parts: list[Columns]) -> None:
        """The rows of each task are a puzzle, its forms a group."""
        forms = self.augmentations + 1 if split == "train" and self.stored else 1
        sizes = np.repeat([len(part["inputs"]) for part in parts], forms)
        chunks = in_chunks(parts) if forms == 1 else self._all_forms(parts)
        groups = np.arange(len(parts) + 1) * forms
        writer.write_split(split, chunks, puzzle_indices=np.cumsum([0, *sizes]), group_indices=groups)

    def _all_forms(self, parts: list[Columns]) -> Iterator[Columns]:
        """Task by task and form by form what `form` makes of the rows."""
        for part in parts:
            count = len(part["inputs"])
            forms, places = np.divmod(np.arange(count * (self.augmentations + 1)), count)
            yield self.form({name: column[places] for name, column in part.items()}, forms)


def _first_puzzles(rows: Rows) -> np.ndarray:
    """The rows of each group's first puzzle: of each task those in form 0."""
    first = rows.group_indices[:-1]
    starts, ends = rows.puzzle_indices[first], rows.puzzle_indices[first + 1]
    return np.concatenate([np.arange(start, end) for start, end in zip(starts, ends, strict=True)])


def _trained_on(overlap: list[tuple[str, str]]) -> Problem:
    """With all tasks, for `leave_out` wants the names of the trained ones."""
    others: dict[str, list[str]] = {}
    for name, other in overlap:
        others.setdefault(name, []).append(other)
    listed = ", ".join(f"{name} as {' and '.join(trained)}" for name, trained in others.items())
    rule = f"the answers to {len(others)} held-out task{'s' * (len(others) > 1)} are trained on too: {listed}"
    way_out = "Drop a source, name the training tasks (after `as`) in leave_out, or set allow_overlap: true"
    return Problem("dataset arc: sources", rule, way_out)


def _listing(names: list[str]) -> str:
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)} task{'s' * (len(names) > 1)} ({', '.join(names[:NAMED])}{rest})"
