"""What went wrong: failed trials with their reasons and logs, and trainings that a guard ended early."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.section import Block, Cell, Link, Section, Table, Text
from analysis.sweep import Sweep

if TYPE_CHECKING:
    from analysis.report import Failure, Report

SHOWN = 100
"""Rows of each table; report.json has them all."""


def sections(report: Report, sweep: Sweep) -> list[Section]:
    """Nothing where nothing went wrong."""
    found = []
    if report.failures:
        blocks = _listed(report.failures, "reason", sweep)
        found.append(Section("Failed trials", blocks, level=2))
    if report.ended_early:
        blocks = _listed(report.ended_early, "ended early", sweep)
        found.append(Section("Trials that a guard ended early", blocks, level=2))
    return found


def _listed(trials: list[Failure], title: str, sweep: Sweep) -> list[Block]:
    arms = {trial.key: trial.arm for trial in sweep.trials}
    shown = trials[:SHOWN]
    rows: list[list[Cell]] = [
        [Link(trial.key, trial=trial.key), trial.reason, _log(sweep, trial.log)] for trial in shown
    ]
    table = Table(["trial", title, "log"], rows, arms=[arms[trial.key] for trial in shown])
    if len(trials) <= SHOWN:
        return [table]
    return [table, Text(f"The first {SHOWN} of {len(trials):,}; report.json has them all.", quiet=True)]


def _log(sweep: Sweep, log: str) -> Cell:
    return Link(log, href=log) if (sweep.directory / log).is_file() else log
