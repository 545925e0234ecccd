"""An entry for every trial: what it was, what came of it, where it lies, and the command that trains it again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from analysis.arms import test_value
from analysis.numbers import count, duration, flop, significant
from analysis.records import TrialRecord
from analysis.section import Block, Cell, Chart, Code, Link, Section, Table, Text
from analysis.sweep import Sweep, seed_of
from analysis.tables import value_in_words

if TYPE_CHECKING:
    from analysis.report import Report

MOST = 300
"""Entries: those that the report mentions first."""


def sections(report: Report, sweep: Sweep, said: Sequence[Section]) -> list[Section]:
    """A folded entry for each trial, in the order of keys; `said` is all that stands before."""
    if not sweep.trials:
        return []
    shown = _most_wanted(sweep, said)
    text = "On the page each has an entry: parameters, result, checkpoint, log, and the command that trains it again."
    if len(shown) < len(sweep.trials):
        text += f" {len(shown)} of {len(sweep.trials):,} do, those that are mentioned above first."
    entries = [_entry(report, sweep, trial) for trial in sweep.trials if trial.key in shown]
    return [Section("Every trial", [Text(text)], level=2), *entries]


def _most_wanted(sweep: Sweep, said: Sequence[Section]) -> set[str]:
    """Those that tables lead to, replicas, those of figures, the others by their number in the search."""
    tables, figures = _linked(said), _drawn(said)

    def urgency(trial: TrialRecord) -> tuple[Any, ...]:
        return trial.key not in tables, trial.phase != "replica", trial.key not in figures, trial.number

    return {trial.key for trial in sorted(sweep.trials, key=urgency)[:MOST]}


def _linked(said: Sequence[Section]) -> set[str]:
    blocks = (block for section in said for block in section.blocks)
    cells = (cell for block in blocks if isinstance(block, Table) for row in block.rows for cell in row)
    return {cell.trial for cell in cells if isinstance(cell, Link)}


def _drawn(said: Sequence[Section]) -> set[str]:
    charts = [block for section in said for block in section.blocks if isinstance(block, Chart)]
    found: set[str] = set()
    for trace in (trace for chart in charts for trace in chart.figure.data):
        keys = [trace.meta] if isinstance(trace.meta, str) else trace.customdata if trace.customdata is not None else ()
        found.update(key for key in keys if isinstance(key, str))
    return found


def _entry(report: Report, sweep: Sweep, trial: TrialRecord) -> Section:
    value = test_value(trial, report.metric)
    found = significant(trial.objective if value is None else value)
    title = f"{trial.key}: {trial.state}, {'validation' if value is None else 'test'} {report.metric} {found}"
    blocks: list[Block] = [Table(["", ""], _facts(report, sweep, trial))]
    if trial.parameters:
        rows = [[name, value_in_words(value)] for name, value in sorted(trial.parameters.items())]
        blocks.append(Table(["searched parameter", "value"], rows, frozenset({1})))
    blocks.append(Code(sweep.command_of(trial)))
    return Section(title, blocks, folded=True, trial=trial.key)


def _state(trial: TrialRecord) -> str:
    """With its reason, which of pruned trials begins with the state."""
    if trial.reason.startswith(trial.state):
        return trial.reason
    return f"{trial.state}: {trial.reason}" if trial.reason else trial.state


def _facts(report: Report, sweep: Sweep, trial: TrialRecord) -> list[list[Cell]]:
    progress = sweep.progress(trial)
    test: dict[str, float] = (trial.result or {}).get("test") or {}
    measured: list[list[Cell]] = [[f"test {name}", significant(value)] for name, value in test.items()]
    trained = f"{count(progress.step)} steps, {count(progress.examples)} examples, {count(progress.tokens)} tokens, "
    trained += f"{flop(progress.flops)}, {duration(progress.seconds)}"
    facts: list[list[Cell]] = [
        ["arm and task", f"{trial.arm} on {trial.task}"],
        ["what for", _purpose(trial)],
        ["seed", str(seed_of(trial))],
        ["state", _state(trial)],
        [f"best validation {report.metric}", significant(trial.objective)],
        *measured,
        ["trained", trained],
        ["attempts", str(trial.attempts) if trial.attempts > 1 else ""],
        ["searched as", Link(trial.source, trial=trial.source)],
        ["best checkpoint", _place(sweep, sweep.checkpoint_of(trial), "not kept")],
        ["log", _place(sweep, sweep.log_of(trial), "not here")],
        ["MLflow", Link("its run", href=address) if (address := sweep.run_address(trial)) else ""],
    ]
    return [[name, cell] for name, cell in facts if cell and cell != Link("")]


def _purpose(trial: TrialRecord) -> str:
    if trial.phase == "replica":
        return "a replica, measured on test"
    return "the search, on validation"


def _place(sweep: Sweep, path: str, gone: str) -> Cell:
    """A link where the path leads to something on this disk."""
    if not path or "://" in path:
        return path
    return Link(path, href=path) if (sweep.directory / path).exists() else f"{path} ({gone})"
