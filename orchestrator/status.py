"""The commands `status` and `list`: what sweeps' files say, also with 10,000 trials at once.

Imports neither torch nor Ray nor Optuna, so that the answer comes at once.
"""

from __future__ import annotations

import argparse
import heapq
import json
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analysis.front import POINTS_SHOWN
from analysis.glance import Glance, glance
from analysis.numbers import duration, significant
from analysis.records import SweepRecord, TrialRecord
from analysis.spending import limits_line
from analysis.sweep import Sweep, load_sweep
from analysis.tables import front_note
from hrm.records import Report
from orchestrator.store import SweepStore
from orchestrator.sweep_names import named_sweep
from orchestrator.view import waited_for

TRIALS_SHOWN, FAILURES_SHOWN = 100, 20
"""Rows on a terminal; `--all` and `--json` give everything."""
PIPED_WIDTH = 140
"""Where there is no terminal: no key and no number is cut."""
_COLOURS = {"running": "cyan", "completed": "green", "pruned": "yellow", "failed": "red", "waiting": "dim"}


def trials_table() -> Table:
    """The columns of `trial_row`; what is left of the width goes to the parameters, which come last."""
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for title in ("trial", "state", "report", "step", "loss", "best", "time"):
        right = title in ("step", "loss", "best", "time")
        table.add_column(title, no_wrap=True, justify="right" if right else "left")
    table.add_column("parameters", no_wrap=True, overflow="ellipsis", ratio=1)
    return table


def trial_row(record: TrialRecord, report: Report | None) -> list[str]:
    """A trial in the columns of `trials_table`."""
    colour = _COLOURS[record.state]
    seconds = (record.ended or time.time()) - (record.started or time.time())
    of = record.spec.get("num_reports", "?")
    return [
        record.key,
        f"[{colour}]{record.state}[/]" + (f" x{record.attempts}" if record.attempts > 1 else ""),
        f"{report.index}/{of}" if report else f"0/{of}",
        str(report.progress.step) if report else "",
        f"{report.validation['loss']:.4f}" if report and "loss" in report.validation else "",
        f"{record.objective:.4f}" if record.objective is not None else "",
        duration(seconds),
        escape(parameters_in_words(record.parameters)),
    ]


def parameters_in_words(parameters: dict[str, Any]) -> str:
    """`learning_rate 0.0023  batch_size 8`: the last part of each path and a short value."""
    short = {path.rsplit(".", 1)[-1]: value for path, value in parameters.items()}
    return "  ".join(
        f"{name} {value:.2g}" if isinstance(value, float) else f"{name} {value}" for name, value in short.items()
    )


def status(options: argparse.Namespace) -> int:
    """The command `status`."""
    store = named_sweep(options.storage, options.name, options.store)
    if options.watch and not options.json:
        from orchestrator.watching import watch_sweep

        return watch_sweep(store, options.all)
    show_status(store, options.json, options.all)
    return 0


def show_status(store: SweepStore, as_json: bool, every_trial: bool = False) -> None:
    """Where a sweep stands: what it waits for, its trials, why some failed."""
    sweep = load_sweep(store.directory)
    state = _state(sweep.record, store)
    waiting = waited_for(store.directory) if state == "running" else ""
    report = glance(sweep)
    if as_json:
        facts: dict[str, Any] = {"name": sweep.record.name, "state": state, "waiting_for": waiting}
        facts |= {"trials": report.trials, "answer": report.answer}
        facts |= {"elapsed_seconds": sweep.record.elapsed_seconds, "spent": report.spent}
        facts |= {"exhausted": report.exhausted, "fronts": [asdict(front) for front in report.fronts]}
        print(json.dumps({**facts, "each": [_status_of(sweep, trial) for trial in sweep.trials]}))
        return
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    console.print(f"[bold]{sweep.record.name}[/] {state}; {report.answer['sentence']}")
    if waiting:
        console.print(f"[yellow]{escape(waiting)}[/]", soft_wrap=True, highlight=False)
    if spent := limits_line(report.spent):
        console.print(spent.strip(), highlight=False, soft_wrap=True)
    _show_trials(console, sweep, every_trial)
    _show_failures(console, sweep, every_trial)
    _show_searches(console, report)


def _show_searches(console: Console, report: Glance) -> None:
    """Searches that ran out of configurations, and Pareto fronts."""
    for study in report.exhausted:
        console.print(f"{study} ended early, with every configuration of its space run once", highlight=False)
    for front in report.fronts:
        console.print(front_note(front), highlight=False, soft_wrap=True)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("trial", *front.objectives, "parameters"):
            table.add_column(title, no_wrap=True, overflow="ellipsis")
        for point in front.points[:POINTS_SHOWN]:
            values = [significant(value) for value in point.values]
            table.add_row(point.trial, *values, parameters_in_words(point.parameters))
        console.print(table)


def _show_trials(console: Console, sweep: Sweep, every_trial: bool) -> None:
    shown, table = sweep.trials if every_trial else _most_telling(sweep.trials), trials_table()
    for trial in shown:
        table.add_row(*trial_row(trial, sweep.last_report(trial)))
    console.print(table)
    if any(trial.attempts > 1 for trial in shown):
        console.print("[dim]xN: attempt N; each went on from the newest checkpoint before it[/]")
    if len(shown) < len(sweep.trials):
        counts = ", ".join(f"{n} {state}" for state, n in Counter(trial.state for trial in sweep.trials).items())
        console.print(f"The latest {len(shown)} of {len(sweep.trials)} trials ({counts}); --all shows the others.")


def _show_failures(console: Console, sweep: Sweep, every_trial: bool) -> None:
    failed = sweep.select(state="failed")
    shown = failed if every_trial else failed[:FAILURES_SHOWN]
    for trial in shown:
        log = sweep.directory / sweep.log_of(trial)
        console.print(f"[red]{trial.key}[/] {escape(trial.reason)}; log {log}", soft_wrap=True, highlight=False)
    if len(shown) < len(failed):
        console.print(f"[red]and {len(failed) - len(shown)} more have failed[/]; --all names them")


def _most_telling(trials: list[TrialRecord]) -> list[TrialRecord]:
    """All of a small sweep; of a large one those that run and those that ended last, in the order of their keys."""
    if len(trials) <= TRIALS_SHOWN:
        return trials
    latest = heapq.nlargest(TRIALS_SHOWN, trials, key=lambda t: (t.state == "running", t.ended or 0.0))
    return sorted(latest, key=lambda t: t.key)


def _status_of(sweep: Sweep, trial: TrialRecord) -> dict[str, Any]:
    last = sweep.last_report(trial)
    return {
        "key": trial.key,
        "state": trial.state,
        "reason": trial.reason,
        "attempts": trial.attempts,
        "log": sweep.log_of(trial),
        "step": last.progress.step if last else 0,
        "objective": trial.objective,
        "parameters": trial.parameters,
    }


def show_list(storage: Path, as_json: bool) -> None:
    """The sweeps of a storage."""
    rows: list[dict[str, Any]] = []
    for path in sorted((storage / "sweeps").glob("*/sweep.json")):
        sweep = load_sweep(path.parent)
        counts = Counter(trial.state for trial in sweep.trials)
        state = _state(sweep.record, SweepStore(storage, path.parent.name))
        rows.append(
            {"name": path.parent.name, "state": state, "trials": dict(counts), "question": sweep.record.question}
        )
    if as_json:
        print(json.dumps(rows))
        return
    if not rows:
        print(f"No sweeps in {storage}. Start one: python -m orchestrator sweep experiments/text_adapt.yaml")
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("name", "state", "trials", "question"):
        table.add_column(title)
    for row in rows:
        counts_in_words = ", ".join(f"{n} {state}" for state, n in row["trials"].items())
        table.add_row(row["name"], row["state"], counts_in_words, row["question"])
    Console(file=sys.stdout).print(table)


def _state(record: SweepRecord, store: SweepStore) -> str:
    if record.finished:
        return "finished"
    return "running" if store.is_locked() else "stopped"
