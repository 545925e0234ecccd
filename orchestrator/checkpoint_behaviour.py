"""What `checkpoint report` measures with checkpoints: opens them as models, on the rows of one task."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor

from analysis.checkpoints.behaviour import Behaviour, Subject, behaviour_of
from analysis.checkpoints.candidates import Candidates, candidates_of
from analysis.checkpoints.measuring import Scales
from analysis.checkpoints.row_choice import choose_rows
from analysis.checkpoints.weights import ORIGINAL, Read, Weights, labelled
from analysis.numbers import plural
from hrm.checkpoint import Checkpoint
from hrm.errors import Problem, SpecError
from hrm.original.configuration import said_of
from hrm.original.conversion import import_original
from hrm.original.reading import read_state_dict
from hrm.trial import TrialSpec
from orchestrator.evaluation import Bench, bench_for, trial_of

AFFORDABLE = 2e13
"""Forward FLOPs of all measurements together; each checkpoint takes part in about six, and a dozen more follow."""
LEAST_ROWS, MOST_ROWS = 64, 1000


@dataclass(frozen=True, slots=True)
class Measurements:
    """What was measured; None with a note where nothing could be."""

    behaviour: Behaviour | None = None
    candidates: Candidates | None = None
    notes: tuple[str, ...] = ()


def measure_checkpoints(found: Sequence[Weights], options: argparse.Namespace) -> Measurements:
    """Behaviour and candidates of these checkpoints. Raises SpecError where a task that was named does not fit."""
    if options.no_behaviour:
        return Measurements()
    if options.rows is not None and options.rows < 2:
        rule = f"must be >= 2, got {options.rows}: one half of the rows is to choose by, the other to report on"
        raise SpecError(Problem("--rows", rule, "Give a larger number"))
    try:
        subjects, notes = _subjects(labelled(list(found)), options)
    except SpecError as error:
        if options.task is not None:
            raise
        return Measurements(notes=(f"What they do on data was not measured: {error}",))
    if not options.json:
        count, rows = plural(len(subjects), "checkpoint"), len(subjects[0].scales.rows.numbers)
        print(f"Measuring {count} on {rows:,} rows of {options.split} ...", file=sys.stderr, flush=True)
    behaviour, measured = behaviour_of(subjects, subjects[0].scales.trial.task.kind)
    return Measurements(behaviour, candidates_of(subjects, measured), notes)


def _subjects(found: Sequence[Weights], options: argparse.Namespace) -> tuple[list[Subject], tuple[str, ...]]:
    """The checkpoints as models, built once for each shape; those of another task than the first's are left out."""
    described = {weights.label: _described(weights, options) for weights in found}
    trials = {label: trial_of(checkpoint, label, options.task) for label, checkpoint in described.items()}
    task = trials[found[0].label].task
    mine = [weights for weights in found if trials[weights.label].task == task]
    scales: dict[str, Scales] = {}
    subjects, rows = [], None
    for weights in mine:
        own = described[weights.label].model
        read = partial(dict, own) if own else partial(_all, weights, weights.read)
        trial = _without_seed(trials[weights.label])
        if trial.hash() not in scales:
            checkpoint = replace(described[weights.label], model=read())
            bench = bench_for(checkpoint, weights.path, trial, options.storage)
            rows = rows or choose_rows(bench.dataset, options.split, options.rows or _affordable(bench, len(mine)))
            scales[trial.hash()] = Scales(bench.model, bench.dataset, trial, bench.context, rows)
        raw = None if weights.raw is None else partial(_all, weights, weights.raw)
        here = scales[trial.hash()]
        subjects.append(Subject(weights.label, weights.training, weights.step, here, read, raw))
    others = [weights.label for weights in found if weights not in mine]
    left = f"Not measured, as they are of another task than {found[0].label}: {', '.join(others)}. Give --task."
    return subjects, (left,) if others else ()


def _without_seed(trial: TrialSpec) -> TrialSpec:
    """Trainings that differ in their seed alone are measured by one model; it draws random starts by one seed, too."""
    return trial.model_copy(update={"seed": 0})


def _affordable(bench: Bench, checkpoints: int) -> int:
    """How many rows a few minutes of a CPU measure, roughly, where nobody says how many."""
    segments = bench.trial.model.halting_rule().segments
    row = bench.trial.model.flops(bench.dataset.shape).forward * segments * (6 * checkpoints + 12)
    return int(min(max(AFFORDABLE / row, LEAST_ROWS), MOST_ROWS))


def _described(weights: Weights, options: argparse.Namespace) -> Checkpoint:
    """What says which model it is; with its tensors only where it is of the original code."""
    if weights.format == ORIGINAL:
        path = Path(weights.path)
        return import_original(read_state_dict(path), said_of(path, options.config, options.fields))
    return Checkpoint({}, {}, {}, dict(weights.manifest))


def _all(weights: Weights, read: Read) -> dict[str, Tensor]:
    return {name: read(name) for name in weights.names}
