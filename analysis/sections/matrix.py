"""Arms across the tasks of a sweep: values, ranks, and the mean rank with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.effect_words import chance, mean_cell
from analysis.matrix import Place, Standing
from analysis.numbers import plural
from analysis.section import Notes, Section, Table
from analysis.sweep import Sweep

if TYPE_CHECKING:
    from analysis.report import Report


def sections(report: Report, sweep: Sweep) -> list[Section]:
    """Nothing for one task."""
    found = report.matrix
    if not found:
        return []
    tasks = list(found[0].places)
    header = ["arm", *(f"{task} (rank)" for task in tasks), "mean rank", "95 % interval", "chance of the lowest"]
    rows = [[row.arm, *(_place(row.places.get(task)) for task in tasks), *_mean_rank(row)] for row in found]
    leader = 0 if found[0].mean_rank is not None else None
    table = Table(header, rows, frozenset(range(1, len(header))), leader, [row.arm for row in found])
    return [Section("Across tasks", [table, Notes(_notes(report, found, len(tasks)))], level=2)]


def _place(place: Place | None) -> str:
    if place is None:
        return "–"
    rank = "" if place.rank is None else f", rank {place.rank:g}"
    if place.rank_low is not None and place.rank_low != place.rank_high:
        rank += f" ({place.rank_low:g} to {place.rank_high:g})"
    return mean_cell(place.value) + rank


def _mean_rank(row: Standing) -> list[str]:
    if row.mean_rank is None:
        return ["–", "not on every task", "–"]
    interval = "cannot tell" if row.low is None else f"{row.low:.1f} to {row.high:.1f}"
    return [f"{row.mean_rank:.2f}", interval, chance(row.best_chance)]


def _notes(report: Report, found: list[Standing], tasks: int) -> list[str]:
    ranked = sum(row.mean_rank is not None for row in found)
    return [
        f"Test {report.metric}, mean and 95 % interval over seeds. Ranks (1 is best) are among the "
        f"{plural(ranked, 'arm')} that were measured on every task. Intervals of ranks come from draws of every mean "
        "from its t distribution, each draw ranked; where an arm has one seed, or equal values, they cannot be told.",
        f"A mean rank is about these {tasks} tasks alone: they are no sample from which others could be judged.",
    ]
