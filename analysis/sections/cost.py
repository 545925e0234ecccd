"""How the arms were matched, and what the sweep took."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.numbers import amount, duration, flop
from analysis.section import Block, Notes, Section, Table, Text
from analysis.spending import spent_rows
from analysis.sweep import Sweep
from analysis.tables import costs_notes, costs_table

if TYPE_CHECKING:
    from analysis.report import Report


def sections(report: Report, sweep: Sweep) -> list[Section]:
    """Of the whole sweep."""
    matched: list[Block] = [Text(_matching(report))]
    if report.costs:
        matched.append(costs_table(report.costs, report.compared_to))
        matched.append(Notes(costs_notes(report.costs, report.compared_to)))
    return [Section("How the arms were compared", matched, level=2), Section("What it cost", [_cost(report)], level=2)]


def _matching(report: Report) -> str:
    """How the arms were matched, and which split did what."""
    axis, size = report.matched_by.get("axis"), report.matched_by.get("amount")
    budget = amount(float(size), str(axis)) if axis and size is not None else "a budget that was not recorded"
    if report.sweeps and not axis:
        axis, budget = "the budget of their sweep", "it"
    return (
        f"The arms were matched by {axis or 'an unknown axis'}: every trial that is neither pruned nor failed"
        f"{' nor ended early by a guard' if report.ended_early else ''} trains for {budget}; "
        "the other costs follow and are in the table. Training used the train split. The search, the "
        "pruning and the choice of checkpoints used the validation split. Each replica reported its best checkpoint "
        "on the test split once, and only these values decide. Intervals are 95 %: Student's t over seeds, from 10 "
        "seeds on a bootstrap. Differences are paired by seed; their p are corrected "
        "by Holm, over all pairs of arms where one of them was chosen for being the best. The "
        "probability of being best is by Monte Carlo over the t distributions of the means. Parameters are trainable "
        "values without puzzle tables; steps, FLOPs and seconds are means per replica."
    )


def _cost(report: Report) -> Table:
    t = report.trials
    states = ", ".join(f"{t[state]} {state}" for state in ("completed", "pruned", "failed", "running", "waiting"))
    rows = [
        ["wall clock", duration(report.elapsed_seconds)],
        ["training, summed over trials", duration(report.cost["seconds"])],
        ["training FLOPs, summed over trials", flop(report.cost["flops"])],
        ["trials", f"{t['total']} of {t['planned']} planned: {states}"],
        *spent_rows(report.spent),
    ]
    return Table(["", ""], rows)
