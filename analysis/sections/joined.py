"""Of a report on several sweeps: which they are, and what to mind when their arms are compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.numbers import amount
from analysis.section import Notes, Section, Table
from analysis.sweep import Part, Sweep

if TYPE_CHECKING:
    from analysis.report import Report


def sections(report: Report, sweep: Sweep) -> list[Section]:
    """Nothing for a report on one sweep."""
    parts = report.sweeps
    if not parts:
        return []
    rows = [_row(part) for part in parts]
    header = ["sweep", "trials", "state", "budget of a trial", "arms", "tasks", "question"]
    return [Section("The sweeps", [Table(header, rows, frozenset({1})), Notes(_notes(sweep, parts))], level=2)]


def _row(part: Part) -> list[str]:
    state = "finished" if part.finished else "not finished"
    named = [", ".join(part.arms), ", ".join(part.tasks)]
    return [part.name, str(part.trials), state, _budget(part), *named, " ".join(part.question.split())]


def _notes(sweep: Sweep, parts: list[Part]) -> list[str]:
    lines = ["An arm or a task has its sweep's name before it where the name alone would mean two things."]
    lines += [f"On {task} no arm is called the best: {reason}." for task, reason in sweep.record.unlike.items()]
    commits = {str(part.code.get("commit", "")) for part in parts}
    if len(commits) > 1:
        lines.append("The sweeps ran different versions of the code, which may explain a difference between them.")
    lines.append(
        "Where two arms share seeds and rows they are paired by seed, also across sweeps: equal seeds offer equal rows "
        "in equal order."
    )
    return lines


def _budget(part: Part) -> str:
    axis, size = part.budget.get("axis"), part.budget.get("amount")
    return amount(float(size), str(axis)) if axis and size is not None else "–"
