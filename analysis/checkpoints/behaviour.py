"""What checkpoints do on data: metrics with intervals over rows, by segment, their halting, their agreement.

Everything is measured on the same rows, so that checkpoints can be compared row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from analysis.checkpoints.agreement import Pair, agreement, barrier, pairs_to_compare, same_shapes
from analysis.checkpoints.calibration import Calibration, calibration
from analysis.checkpoints.measuring import COMMON, Measured, Scales, Weights
from analysis.checkpoints.row_choice import RowChoice
from analysis.checkpoints.row_intervals import Estimate, Sums, difference, interval
from analysis.section import Section
from hrm.trial import TrialSpec

PAIRS, BARRIERS, BARRIER_ROWS = 15, 4, 200
"""The most pairs that are compared, and whose ways are measured, and on how many rows."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A checkpoint and where it can be measured."""

    label: str
    training: str
    """What one training's checkpoints have in common."""
    step: int | None
    scales: Scales
    weights: Callable[[], Weights]
    """Those that evaluations use."""
    raw: Callable[[], Weights] | None = None
    """As trained, where evaluations use an average."""


@dataclass(frozen=True, slots=True)
class SegmentBehaviour:
    """After one segment, which counts from 1."""

    segment: int
    metrics: dict[str, Estimate]
    changed: float
    """The share of scored positions that say another thing than a segment before."""
    residuals: dict[str, float]
    """By state the median over rows of ||z_t - z_(t-1)|| / ||z_t||."""


@dataclass(frozen=True, slots=True)
class Halting:
    """What it would be if every row ended where its Q says so."""

    segments: Estimate
    """The mean."""
    of: int
    metrics: dict[str, Estimate]
    lost: dict[str, Estimate]
    """Against full depth, row by row."""


@dataclass(frozen=True, slots=True)
class CheckpointBehaviour:
    """One checkpoint."""

    label: str
    step: int | None
    metrics: dict[str, Estimate]
    by_segment: list[SegmentBehaviour]
    calibration: Calibration | None
    """None for a model without a Q."""
    halting: Halting | None


@dataclass(frozen=True, slots=True)
class Behaviour:
    """All checkpoints on the same rows."""

    task: str
    split: str
    rows: int
    groups: int
    available: int
    """Rows of the whole split."""
    trainings: int
    """How many trainings the checkpoints are of."""
    checkpoints: list[CheckpointBehaviour]
    pairs: list[Pair]
    notes: list[str] = field(default_factory=list)

    def answer(self) -> str:
        """One sentence on the last checkpoint."""
        from analysis.checkpoints.behaviour_sections import behaviour_answer

        return behaviour_answer(self)

    def sections(self) -> list[Section]:
        """Its part of a page."""
        from analysis.checkpoints.behaviour_sections import behaviour_sections

        return behaviour_sections(self)


def behaviour_of(subjects: Sequence[Subject], task: str) -> tuple[Behaviour, dict[str, Measured]]:
    """Measure every checkpoint, and what every pair has in common; the measurements, too, by label."""
    rows = subjects[0].scales.rows
    measured = {one.label: one.scales.measure(one.weights(), own=True) for one in subjects}
    behaviour = Behaviour(
        task=task,
        split=rows.split,
        rows=len(rows.numbers),
        groups=len(np.unique(rows.groups)),
        available=rows.available,
        trainings=len({one.training for one in subjects}),
        checkpoints=[_behaviour(one, measured[one.label], rows) for one in subjects],
        pairs=_pairs(subjects, measured, rows),
        notes=_notes(subjects),
    )
    return behaviour, measured


def _behaviour(subject: Subject, found: Measured, rows: RowChoice) -> CheckpointBehaviour:
    by_q, trial = None, subject.scales.trial
    if found.q is not None and _has_halting(trial):
        confidence = 1.0 / (1.0 + np.exp(-found.q[-1, :, 0].astype(np.float64)))
        by_q = calibration(confidence, found.exact[-1], rows.groups)
    return CheckpointBehaviour(
        label=subject.label,
        step=subject.step,
        metrics=found.estimates(rows.groups),
        by_segment=[_segment(found, rows, at) for at in range(found.segments)],
        calibration=by_q,
        halting=_halting(found, rows) if by_q is not None and found.segments > 1 else None,
    )


def _has_halting(trial: TrialSpec) -> bool:
    return trial.model.halting_rule().rule != "none"


def _segment(found: Measured, rows: RowChoice, at: int) -> SegmentBehaviour:
    residuals = {name: float(np.median(values[at])) for name, values in found.residuals.items()}
    changed = float(found.changed[at].sum() / max(found.tokens.sum(), 1.0))
    return SegmentBehaviour(at + 1, found.estimates(rows.groups, at), changed, residuals)


def _halting(found: Measured, rows: RowChoice) -> Halting:
    assert found.halts is not None
    ended, last = found.halts - 1, found.segments - 1
    early = {name: found.metric(name, ended) for name in COMMON}
    return Halting(
        segments=interval(Sums(found.halts.astype(np.float64), np.ones(len(ended))), rows.groups),
        of=found.segments,
        metrics={name: interval(sums, rows.groups) for name, sums in early.items()},
        lost={name: difference(sums, found.metric(name, last), rows.groups) for name, sums in early.items()},
    )


def _pairs(subjects: Sequence[Subject], measured: Mapping[str, Measured], rows: RowChoice) -> list[Pair]:
    """Agreement of pairs, and the way between the weights of the first few that have the same shapes."""
    by_label, found, ways = {one.label: one for one in subjects}, [], 0
    chosen = pairs_to_compare(list(by_label), PAIRS)
    for first, second in chosen:
        way = None
        if ways < BARRIERS and by_label[first].scales is by_label[second].scales:
            ends = by_label[first].weights(), by_label[second].weights()
            if same_shapes(*ends):
                ways += 1
                measure = partial(by_label[first].scales.measure, most=BARRIER_ROWS)
                known = [measured[name].losses[-1, :BARRIER_ROWS] for name in (first, second)]
                way = barrier(measure, ends, (known[0], known[1]), rows.groups[:BARRIER_ROWS])
        found.append(agreement((first, second), measured[first], measured[second], rows.groups, way))
    return found


def _notes(subjects: Sequence[Subject]) -> list[str]:
    rows = subjects[0].scales.rows
    notes = [
        "Intervals are over rows: they say what other rows of this kind would give, not what another seed's training "
        "would."
    ]
    if len(rows.numbers) < rows.available:
        notes.append(
            f"{len(rows.numbers):,} of {rows.available:,} rows were drawn (seed 0); --rows takes more, or fewer."
        )
    if 2 * len(subjects) - 3 > PAIRS:
        notes.append(f"Only {PAIRS} pairs of checkpoints are compared: neighbours, and the last with others.")
    return notes
