"""Puzzles of a task as rows of its data, and what ends them when nothing else is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from hrm.halting_scores import Halt, Rule
from hrm.puzzles import Puzzle, PuzzleKind
from hrm.puzzles.arc import ArcPuzzles
from hrm.puzzles.maze import MazePuzzles
from hrm.puzzles.sudoku import SudokuPuzzles
from hrm.tasks import IGNORE, TaskShape, TaskSpec
from hrm.tasks.arc import ArcSpec
from hrm.tasks.maze import MazeSpec
from hrm.tasks.sudoku import SudokuSpec
from hrm.trial import TrialSpec

THRESHOLDS: dict[Rule, float] = {"q": 0.5, "margin": 0.5, "residual": 0.01, "fixed": 0.0}


def puzzles_of(task: TaskSpec, identifiers: Mapping[str, int]) -> PuzzleKind | None:
    """What reads the task's puzzles; None for a task that has none. identifiers: of ARC, by task the first one."""
    match task:
        case SudokuSpec(size=size):
            return SudokuPuzzles(size)
        case MazeSpec(size=size):
            return MazePuzzles(size)
        case ArcSpec(canvas=canvas):
            return ArcPuzzles(canvas, identifiers)
    return None


def shape_without_data(task: TaskSpec) -> TaskShape | None:
    """The shape of the rows of a task whose recipe alone tells it."""
    match task:
        case SudokuSpec(size=size):
            return TaskShape(size + 2, size**2, 1)
        case MazeSpec(size=size):
            return TaskShape(6, size**2, 1)
    return None


def usual_halt(trial: TrialSpec) -> Halt:
    """By the Q where the model has one, else the depth of its training."""
    trained = trial.model.halting_rule()
    rule: Rule = "fixed" if trained.rule == "none" else "q"
    return Halt(rule, trained.segments, THRESHOLDS[rule])


def rows_of(puzzles: Sequence[Puzzle]) -> dict[str, np.ndarray]:
    """As rows of the task, without labels: what is known of an answer must not reach the model."""
    inputs = np.stack([puzzle.inputs for puzzle in puzzles]).astype(np.int32)
    return {
        "inputs": inputs,
        "labels": np.full_like(inputs, IGNORE),
        "puzzle_identifiers": np.array([puzzle.identifier for puzzle in puzzles], dtype=np.int32),
    }
