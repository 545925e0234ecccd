"""What an arm's replicas say on test beyond a mean: median, interquartile mean, and how far the test rows matter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.answer import Answer
from analysis.arms import ArmResult, chosen_replicas, measured, test_value
from analysis.intervals import Mean, interquartile_mean_interval, mean_interval, median_interval
from analysis.over_rows import OverRows, RowResults, row_results
from analysis.records import TrialRecord
from analysis.sweep import Sweep


@dataclass(frozen=True, slots=True)
class ArmSummary:
    """The objective's metric of one arm's replicas on test: averages over seeds with 95 % intervals."""

    task: str
    arm: str
    mean: Mean
    median: Mean
    interquartile_mean: Mean
    """Of the middle half."""
    over_rows: OverRows | None
    """The mean over seeds and test rows; None where these were not kept, or the metric is no quotient of their sums."""


@dataclass(frozen=True, slots=True)
class RowDifference:
    """`best` minus `other` on the common seeds, over seeds and test rows."""

    task: str
    best: str
    other: str
    over_rows: OverRows


def summarise(
    sweep: Sweep, arms: Sequence[ArmResult], answers: Sequence[Answer]
) -> tuple[list[ArmSummary], list[RowDifference]]:
    """Of every arm with replicas, by task; and the best of each task against the others."""
    summaries, differences = [], []
    for answer in answers:
        values = measured(arms, answer.task)
        rows = {arm: results for arm in values if (results := row_results_of(sweep, answer.task, arm)) is not None}
        summaries += [_summary(answer.task, arm, list(seeds.values()), rows.get(arm)) for arm, seeds in values.items()]
        leader = answer.best_arm or ""
        for arm, results in rows.items():
            if arm == leader or leader not in rows or not rows[leader].same_rows(results):
                continue
            found = (rows[leader] - results).interval()
            differences += [RowDifference(answer.task, leader, arm, found)] if found else []
    return summaries, differences


def _summary(task: str, arm: str, values: list[float], rows: RowResults | None) -> ArmSummary:
    return ArmSummary(
        task=task,
        arm=arm,
        mean=mean_interval(values),
        median=median_interval(values),
        interquartile_mean=interquartile_mean_interval(values),
        over_rows=rows.interval() if rows else None,
    )


def tested_replicas(sweep: Sweep, task: str, arm: str) -> list[TrialRecord]:
    """The replicas that the arm's mean is of."""
    replicas = chosen_replicas(sweep, task, arm)
    return [t for t in replicas if t.state == "completed" and test_value(t, sweep.record.metric) is not None]


def row_results_of(sweep: Sweep, task: str, arm: str) -> RowResults | None:
    """What these replicas said to the test rows; None as of `row_results`."""
    return row_results(sweep, tested_replicas(sweep, task, arm), sweep.record.metric)
