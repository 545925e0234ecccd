"""`solve`: puzzles of a person, answered by a checkpoint, with what ended them and how sure the answer is.

The model alone answers, no solver does; whether an answer is valid says the task's own rule, not the model.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hrm.adaptive import Adapted, Retry, adapt
from hrm.checkpoint import Checkpoint, open_checkpoint
from hrm.data.dataset import build_dataset
from hrm.errors import Problem, SpecError
from hrm.halting_scores import Halt, Rule
from hrm.puzzles import Build, Made, Puzzle, PuzzleKind, as_lines, made, refused
from hrm.solve import THRESHOLDS, puzzles_of, rows_of, shape_without_data, usual_halt
from hrm.tasks import TaskShape
from hrm.tasks.arc import ArcSpec
from hrm.trial import TrialSpec
from orchestrator.commands import too_small
from orchestrator.evaluation import model_for, trial_of

GRID = "the grid"
INPUT = "the standard input"
FURTHER_STARTS = 4


def solve(options: argparse.Namespace) -> int:
    """The command; gives its exit code: 0 for wrong answers, too."""
    _refuse(options)
    checkpoint, place = open_checkpoint(options.path), str(options.path)
    trial = trial_of(checkpoint, place, options.task)
    halt, retry = _plan(trial, options)
    kind, shape = _kind(checkpoint, place, trial, options.storage)
    given = _puzzles(kind, options)
    model, context, _ = model_for(checkpoint, place, trial, shape, options.storage)
    columns = rows_of(given.puzzles)
    found = adapt(
        model,
        lambda numbers: {name: values[numbers] for name, values in columns.items()},
        np.arange(len(columns["inputs"])),
        trial,
        halt,
        retry=retry,
        device=context.device,
    )
    solved = [_facts(kind, puzzle, found, number) for number, puzzle in enumerate(given.puzzles)]
    if options.json:
        about = {"checkpoint": place, "task": trial.task.kind, "halt": str(halt), "more_follow": given.more}
        print(json.dumps({**about, "puzzles": solved}))
        return 0
    from orchestrator.solved_view import show

    show(kind, given.puzzles, found, solved, halt, retry)
    if given.more:
        print("More follow, which were not looked at; --limit solves more of them")
    return 0


def _kind(checkpoint: Checkpoint, place: str, trial: TrialSpec, storage: Path) -> tuple[PuzzleKind, TaskShape]:
    """What reads the task's puzzles, and the shape of its rows: no data is built for a Sudoku or a maze."""
    shape, identifiers = shape_without_data(trial.task), {}
    if isinstance(trial.task, ArcSpec):
        dataset = build_dataset(trial.task, storage.resolve() / "data")
        facts, shape = dataset.manifest.facts, dataset.shape
        identifiers = dict(zip(facts["tasks"], facts["first_identifiers"], strict=True))
    kind = puzzles_of(trial.task, identifiers)
    if kind is not None and shape is not None:
        return kind, shape
    rule = f"is of the task `{trial.task.kind}`, and puzzles are sudoku, maze and arc"
    way_out = "Give a checkpoint of a puzzle (an imported one with --task); `generate` goes on with texts"
    raise SpecError(Problem(place, rule, way_out))


def _puzzles(kind: PuzzleKind, options: argparse.Namespace) -> Made:
    try:
        return made(_given(kind, options), options.limit)
    except SpecError as error:
        if options.grid is not None and os.path.isfile(options.grid):
            rule = f"is the path of a file, {options.grid}, and no grid"
            raise refused(GRID, rule, "Give it with --file") from error
        raise


def _given(kind: PuzzleKind, options: argparse.Namespace) -> Iterator[Build]:
    if options.file is not None:
        return kind.read(options.file)
    if options.grid is not None and options.grid != "-":
        return kind.each(options.grid, GRID)
    try:
        return kind.each(sys.stdin.read(), INPUT)
    except (OSError, UnicodeDecodeError) as error:
        raise refused(INPUT, f"cannot be read as text: {error}", "Give a text, or --file") from error


def _plan(trial: TrialSpec, options: argparse.Namespace) -> tuple[Halt, Retry | None]:
    usual = usual_halt(trial)
    rule: Rule = options.halt or usual.rule
    segments = options.segments or usual.segments
    if options.threshold is not None:
        _refuse_threshold(rule, options.threshold)
    halt = Halt(rule, segments, THRESHOLDS[rule] if options.threshold is None else options.threshold)
    if not options.retry_below:
        return halt, None
    random = getattr(trial.model, "start", "fixed") == "random"
    return halt, Retry(options.retry_below, segments, FURTHER_STARTS if random else 0)


def _refuse_threshold(rule: Rule, threshold: float) -> None:
    """Raises SpecError for one that the rule does not have."""
    if rule == "fixed":
        given = f"is of q, margin and residual, got {threshold:g} with fixed"
        raise refused("--threshold", given, "Leave it out, or give another rule by --halt")
    if rule == "residual" and not 0.0 < threshold < math.inf:
        raise refused("--threshold", f"must be > 0 and finite for residual, got {threshold:g}", "Give such as 0.01")
    if rule != "residual" and not 0.0 <= threshold <= 1.0:
        raise refused("--threshold", f"must be >= 0 and <= 1 for {rule}, got {threshold:g}", "Give such as 0.5")


def _facts(kind: PuzzleKind, puzzle: Puzzle, found: Adapted, number: int) -> dict[str, Any]:
    """What is said of one puzzle, as plain data."""
    tokens = found.tokens[number].astype(np.int64)
    verdict = kind.judge(puzzle, tokens)
    return {
        "place": puzzle.place,
        "puzzle": as_lines(kind.question(puzzle)),
        "answer": as_lines(kind.drawn(puzzle, tokens)),
        "valid": verdict.valid,
        "verdict": verdict.text,
        "segments": int(found.segments[number]),
        "segments_computed": int(found.spent[number]),
        "restarts": int(found.restarts[number]),
        "confidence": float(found.confidence[number]),
        "confidence_is": found.confidence_is,
        "puzzle_identifier": puzzle.identifier,
        "notes": list(puzzle.notes),
    }


def _refuse(options: argparse.Namespace) -> None:
    problems = too_small(options, segments=1, limit=1)
    if (options.grid is not None) and (options.file is not None):
        problems.append(Problem("solve", "takes a grid or --file, got both", "Leave one out"))
    by_input = options.file is None and options.grid in (None, "-")
    if by_input and (sys.stdin is None or (options.grid is None and sys.stdin.isatty())):
        problems.append(
            Problem("solve", "needs a puzzle, got none", "Give a grid, --file, or one by the standard input")
        )
    if options.retry_below is not None and not 0.0 <= options.retry_below <= 1.0:
        problems.append(Problem("--retry-below", f"must be >= 0 and <= 1, got {options.retry_below}", "Correct it"))
    if problems:
        raise SpecError(*problems)
