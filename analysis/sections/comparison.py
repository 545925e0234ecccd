"""The best arm against each other one, and what its seeds and its test rows say beyond a mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from analysis.compare import Difference
from analysis.effect_figures import forest
from analysis.effect_words import HEADER, LEGEND, effect_cells, mean_cell, rows_cell
from analysis.effects import is_better
from analysis.numbers import listing, metric_unit, percent
from analysis.over_rows import OverRows
from analysis.section import Chart, Notes, Section, Table
from analysis.sweep import Sweep

if TYPE_CHECKING:
    from analysis.report import Report

_AVERAGES = (
    "Averages over seeds with 95 % intervals: below ten seeds for normal values, from ten on a bootstrap's. The "
    "interquartile mean is that of the middle half."
)
_ROWS = (
    "Over seeds and rows: the interval takes the test rows as a sample, too, so that it holds for further rows of "
    "this kind; with one seed it is over rows alone and says nothing about other seeds."
)


def sections(report: Report, sweep: Sweep, task: str) -> list[Section]:
    """Of one task."""
    number = sweep.record.tasks.index(task)
    return [section for section in (_differences(report, sweep, task, number), _averages(report, task)) if section]


def _differences(report: Report, sweep: Sweep, task: str, number: int) -> Section | None:
    answer = next(answer for answer in report.answers if answer.task == task)
    found = answer.comparisons
    if not found:
        return None
    unit = metric_unit(report.metric)
    title = f"{answer.best_arm} minus each other, {report.metric}{f' in {unit}' if unit else ''}"
    rows_of = {row.other: row.over_rows for row in report.row_differences if row.task == task}
    header = ["best minus", f"difference in {report.metric}", *HEADER]
    rows = [[d.other, *effect_cells(d)] for d in found]
    if rows_of:
        header.append("over seeds and rows")
        rows = [[*row, rows_cell(rows_of.get(row[0]))] for row in rows]
    table = Table(header, rows, frozenset(range(1, len(header))), arms=[d.other for d in found])
    figure = forest([(d.other, d) for d in found], sweep.record.arms, title)
    chart = [Chart(f"differences-{number}", figure)] if figure.data else []
    notes = [*LEGEND, *([_ROWS] if rows_of else []), *_doubts(found, rows_of, report)]
    return Section("The best arm minus each other, paired by seed", [*chart, table, Notes(notes)])


def _doubts(found: Sequence[Difference], rows_of: Mapping[str, OverRows], report: Report) -> list[str]:
    """Where the seeds decide and the test rows are too few to."""
    close = [
        d.other
        for d in found
        if is_better(d, report.direction) and (rows := rows_of.get(d.other)) and rows.low <= 0.0 <= rows.high
    ]
    if not close:
        return []
    return [
        f"Against {listing(close)} the seeds decide on these test rows; on further rows the difference may be none."
    ]


def _averages(report: Report, task: str) -> Section | None:
    here = [summary for summary in report.summaries if summary.task == task]
    if not any(summary.mean.n > 1 or summary.over_rows for summary in here):
        return None
    header = ["arm", "seeds", "mean", "median", "interquartile mean"]
    rows = [
        [s.arm, str(s.mean.n), mean_cell(s.mean), mean_cell(s.median), mean_cell(s.interquartile_mean)] for s in here
    ]
    over_rows = any(summary.over_rows for summary in here)
    if over_rows:
        header += ["over seeds and rows", "of it the rows'"]
        rows = [
            [*row, rows_cell(s.over_rows), percent(s.over_rows.row_share) if s.over_rows else "–"]
            for row, s in zip(rows, here, strict=True)
        ]
    table = Table(header, rows, frozenset(range(1, len(header))), arms=[s.arm for s in here])
    notes = [_AVERAGES, *([_ROWS] if over_rows else [])]
    return Section("Averages over seeds, and test rows", [table, Notes(notes)], folded=True)
