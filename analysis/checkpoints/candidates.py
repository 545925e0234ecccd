"""What to use of a training: a checkpoint, an average, an ensemble, more or fewer segments, half precision.

Everything that is chosen is chosen on one half of the rows, and what is reported of it was measured on the other half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from analysis.checkpoints.behaviour import Subject
from analysis.checkpoints.candidate_pool import Candidate, Chooser, pool_of
from analysis.checkpoints.measuring import COMMON, Measured
from analysis.checkpoints.recommendation import Recommendation, recommend
from analysis.checkpoints.row_intervals import Estimate, interval
from analysis.section import Section

LEAST_GROUPS = 10
"""Independent rows of each half below which nothing is recommended."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A candidate by what it showed on the half that is reported."""

    name: str
    family: str
    metrics: dict[str, Estimate]
    against: Estimate
    """The objective minus the reference's, paired row by row; without an interval for the reference itself."""
    choosing: float
    """The objective on the other half."""
    flops: float
    """Forward FLOPs of a row."""
    bytes: int
    """Of its weights."""


@dataclass(frozen=True, slots=True)
class TrainingCandidates:
    """The candidates of one training."""

    training: str
    objective: str
    """The metric that decides."""
    maximise: bool
    chosen_on: int
    """Rows."""
    reported_on: int
    checkpoints: int
    reference: str
    """The candidate that all are compared with: the last checkpoint, or the last one that works."""
    candidates: list[Scored]
    recommendations: list[Recommendation]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Candidates:
    """Of every training that has checkpoints here."""

    split: str
    trainings: list[TrainingCandidates]

    def answer(self) -> str:
        """Which to use, in a sentence for each training."""
        from analysis.checkpoints.candidate_sections import candidates_answer

        return candidates_answer(self)

    def sections(self) -> list[Section]:
        """Its part of a page."""
        from analysis.checkpoints.candidate_sections import candidate_sections

        return candidate_sections(self)


def candidates_of(subjects: Sequence[Subject], measured: Mapping[str, Measured]) -> Candidates:
    """Measure the candidates of every training. `measured`: the checkpoints on the same rows, by label."""
    split, trainings = subjects[0].scales.rows.split, dict.fromkeys(subject.training for subject in subjects)
    return Candidates(split, [_of_training(name, *_of(name, subjects, measured)) for name in trainings])


def _of(
    training: str, subjects: Sequence[Subject], measured: Mapping[str, Measured]
) -> tuple[list[Subject], dict[str, Measured]]:
    """One training's checkpoints, whose labels need not say any more which training it is."""
    short = {
        one.label: one.label.removeprefix(f"{Path(training).name}, ") for one in subjects if one.training == training
    }
    mine = [replace(one, label=short[one.label]) for one in subjects if one.label in short]
    return mine, {new: measured[label] for label, new in short.items()}


def _of_training(name: str, subjects: Sequence[Subject], measured: Mapping[str, Measured]) -> TrainingCandidates:
    scales, trial = subjects[0].scales, subjects[0].scales.trial
    objective = trial.objective.metric
    maximise = trial.objective.direction == "maximize"
    notes = []
    if objective not in COMMON:
        nearest = "exact_accuracy" if maximise else "loss"
        notes.append(f"The objective, {objective}, is not counted by segment: the {nearest.replace('_', ' ')} decides.")
        objective = nearest
    if scales.rows.split == "validation" and len(subjects) > 1:
        notes.append(
            "The training itself kept checkpoints by the whole of validation, so the best of them may be flattered a "
            "little in both halves; --split test has no such memory."
        )
    if len(subjects) > 1:
        notes.append("A greedy average of which nothing but the best checkpoint is left is not listed.")
    reports, groups = scales.rows.reports, scales.rows.groups
    choose = Chooser(objective, maximise, ~reports)
    pool = pool_of(subjects, measured, scales, choose)
    reference = next((one for one in pool if one.works), pool[0])
    too_few = min(len(np.unique(groups[half])) for half in (reports, ~reports)) < LEAST_GROUPS
    if too_few:
        notes.append(f"Cannot tell which to use: each half needs {LEAST_GROUPS} independent rows.")
    broken = [one.name for one in pool if not one.works]
    if broken:
        notes.append(f"Broken, as a loss is not finite: {', '.join(broken)}.")
    return TrainingCandidates(
        training=name,
        objective=objective,
        maximise=maximise,
        chosen_on=int((~reports).sum()),
        reported_on=int(reports.sum()),
        checkpoints=len(subjects),
        reference=reference.name,
        candidates=[_scored(one, reference, choose, groups) for one in pool],
        recommendations=[] if too_few else recommend(pool, choose, groups),
        notes=notes,
    )


def _scored(one: Candidate, reference: Candidate, choose: Chooser, groups: np.ndarray) -> Scored:
    reports = ~choose.rows
    found = choose.compare(one, reference, groups, reports=True)
    return Scored(
        name=one.name,
        family=one.family,
        metrics={name: interval(one.found.metric(name, one.segment).of(reports), groups[reports]) for name in COMMON},
        against=found if one is not reference else replace(found, low=None, high=None),
        choosing=choose.value(one),
        flops=one.flops,
        bytes=one.bytes,
    )
