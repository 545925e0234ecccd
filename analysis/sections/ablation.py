"""Every arm as a change of the reference arm: its effect, and whether one factor was changed or several."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.ablations import Ablation, Change
from analysis.effect_figures import forest
from analysis.effect_words import change_in_words, effect_cells, verdict
from analysis.numbers import listing, metric_unit, plural
from analysis.section import Chart, Notes, Section, Table
from analysis.sweep import Sweep

if TYPE_CHECKING:
    from analysis.report import Report

_CHANGES_SHOWN = 4


def sections(report: Report, sweep: Sweep, task: str) -> list[Section]:
    """Of one task; nothing where fewer than two arms have replicas."""
    found = [row for row in report.ablations if row.task == task]
    if not found:
        return []
    reference, number = found[0].reference, sweep.record.tasks.index(task)
    unit = metric_unit(report.metric)
    header = ["arm", f"minus {reference}", "95 % interval", "seeds", "p (Holm)", "relative", "verdict", "what differs"]
    order = sorted(found, key=lambda row: _gain(row, report.direction))
    rows = [[row.arm, *effect_cells(row)[:5], _verdict(row, report), _differs(row)] for row in order]
    table = Table(header, rows, frozenset(range(1, 6)), arms=[row.arm for row in order])
    title = f"{report.metric}{f' in {unit}' if unit else ''}, minus {reference}"
    figure = forest([(row.arm, row) for row in order], sweep.record.arms, title)
    chart = [Chart(f"ablation-{number}", figure)] if figure.data else []
    return [Section(f"Each arm as a change of {reference}", [*chart, table, Notes(_notes(found))])]


def _gain(row: Ablation, direction: str) -> float:
    """To sort by: what helped most first, what has no value last."""
    if row.mean is None:
        return float("inf")
    return row.mean if direction == "minimize" else -row.mean


def _differs(row: Ablation) -> str:
    shown = [_change(change) for change in row.changes[:_CHANGES_SHOWN]]
    more = len(row.changes) - len(shown)
    return "; ".join(shown) + (f"; and {more} more" if more > 0 else "") if shown else "nothing"


def _change(change: Change) -> str:
    path, before, value, mark = change_in_words(change)
    return f"{path}: {before} → {value}{f' ({mark})' if mark else ''}"


def _verdict(row: Ablation, report: Report) -> str:
    failed = f"{row.failed} of {plural(row.replicas, 'replica')} failed" if row.failed else ""
    if row.mean is None:
        return failed or "not measured"
    return "; ".join(part for part in (verdict(row, report.direction), failed) if part)


def _notes(found: list[Ablation]) -> list[str]:
    lines = [
        "Paired by seed; p is Holm's over the arms of this task, each interval is 95 % for itself alone. The effect "
        "belongs to the whole change of an arm."
    ]
    several = [row.arm for row in found if not row.one_factor and row.changes]
    if several:
        lines.append(f"Not one factor: {listing(several)}. What part of the change did it, this table cannot tell.")
    if any(change.searched for row in found for change in row.changes):
        lines.append(
            "The arms were searched apart, so that searched values differ, too: an arm here is what its own search "
            "made of it. For the effect of one factor alone, fix the others in the base."
        )
    if any(change.path.startswith("budget.") for row in found for change in row.changes):
        lines.append("The budgets of the arms differ.")
    return lines
