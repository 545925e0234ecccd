"""What a person sees in the terminal: a live table while a sweep runs, its answer at the end, `status` and `list`.

Without a terminal there is no live table, and with `--json` nothing but the JSON goes to standard output.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from analysis.numbers import duration
from analysis.records import SweepRecord, TrialRecord
from analysis.report import Report as SweepReport
from analysis.report import build_report
from analysis.sweep import Sweep, load_sweep
from hrm.records import Report
from hrm.resolve import fast_bfloat16
from orchestrator.cluster.connect import Cluster
from orchestrator.ledger import Ledger
from orchestrator.store import SweepStore
from orchestrator.sweep import SweepOutcome, View

ENDED_SHOWN = 6
"""Of the trials that have ended, the table shows the latest."""
_COLOURS = {"running": "cyan", "completed": "green", "pruned": "yellow", "failed": "red", "waiting": "dim"}


class TerminalView(View):
    """Says where to look, then keeps a table of the trials on a terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None

    def waiting(self, message: str) -> None:
        self.console.print(f"[dim]{message} ...[/]")

    def measured(self, comparison: str) -> None:
        self.console.print(comparison, highlight=False, soft_wrap=True)

    def started(self, ledger: Ledger, cluster: Cluster, concurrency: int, ui_commands: list[str]) -> None:
        print_ = self.console.print
        spec = ledger.experiment.spec
        print_(f"[bold]{spec.question or ledger.experiment.name}[/]")
        print_(f"{ledger.planned_trials} trials, {concurrency} at a time, in {ledger.store.directory}", soft_wrap=True)
        token = "" if os.environ.get("RAY_AUTH_MODE") == "disabled" else "   (asks for a token: ray get-auth-token)"
        print_(f"Ray dashboard  {cluster.dashboard or 'off'}{token}", soft_wrap=True)
        for command in ui_commands:
            print_(f"MLflow UI      {command}", soft_wrap=True, highlight=False)
        if not cluster.gpus and not fast_bfloat16(torch.device("cpu")):
            print_("[yellow]note:[/] no fast bfloat16 here (AMX or AVX512-BF16), so float32; expect longer times")
        if self.console.is_terminal:
            table = _LiveTable(ledger)
            self._live = Live(table, console=self.console, refresh_per_second=2, transient=True)
            self._live.start()

    def ended(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def answer(self, outcome: SweepOutcome) -> None:
        """The end of the command: the answer, the arms, where the report is."""
        report = outcome.report
        self.console.print()
        self.console.print(f"[bold]{report.answer['sentence']}[/]")
        self.console.print(_arms_table(report))
        print_ = self.console.print
        for note in outcome.notes:
            print_(f"[yellow]note:[/] {note}", soft_wrap=True)
        if outcome.gave_up:
            print_(f"[red]given up:[/] {outcome.gave_up}", soft_wrap=True)
        if not outcome.complete:
            print_("Not finished: everything is saved, and the same command goes on.")
        counts = ", ".join(
            f"{n} {state}" for state, n in report.trials.items() if n and state not in ("total", "planned")
        )
        print_(f"{counts}; {duration(report.elapsed_seconds)} of work")
        for arm in report.arms:
            if arm.best_checkpoint:
                print_(f"[dim]best of {arm.name}: {arm.best_checkpoint}[/]", soft_wrap=True)
        print_(f"Report  {outcome.directory / 'report.html'}", soft_wrap=True)


def view_for(as_json: bool) -> TerminalView:
    """The view on standard output, or on standard error where standard output is for JSON."""
    return TerminalView(Console(stderr=as_json))


class _LiveTable:
    """Drawn anew from the ledger at every refresh."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._began = ledger, time.time()

    def __rich__(self) -> Group:
        records = list(self._ledger.records.values())
        reports = dict(self._ledger.reports)
        return Group(_trials_table(records, reports), self._summary(records))

    def _summary(self, records: list[TrialRecord]) -> Text:
        ended = [r for r in records if r.state in ("completed", "pruned", "failed")]
        planned = self._ledger.planned_trials
        left = planned - len(ended)
        worked = [
            r.ended - max(r.started, self._began) for r in ended if r.ended and r.started and r.ended > self._began
        ]
        busy = max(sum(r.state == "running" for r in records), 1)
        estimate = f", about {duration(left * sum(worked) / len(worked) / busy)} left" if worked else ""
        elapsed = duration(time.time() - self._began)
        line = Text(f"{len(ended)} of {planned} trials ended, {left} to go; {elapsed} so far{estimate}\n", style="bold")
        return line.append(f"best so far  {best_by_arm(records, self._ledger.experiment.spec.objective.direction)}")


def best_by_arm(records: list[TrialRecord], direction: str) -> str:
    """`arm value` for each arm that has a value on validation."""
    best = min if direction == "minimize" else max
    arms = dict.fromkeys(r.arm for r in records)
    values = {arm: [r.objective for r in records if r.arm == arm and r.objective is not None] for arm in arms}
    return "   ".join(f"{arm} {best(found):.4f}" for arm, found in values.items() if found)


def _empty_trials_table() -> Table:
    """The columns of `_row`; what is left of the width goes to the parameters, which come last."""
    table = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for title in ("trial", "state", "report", "step", "loss", "best", "time"):
        right = title in ("step", "loss", "best", "time")
        table.add_column(title, no_wrap=True, justify="right" if right else "left")
    table.add_column("parameters", no_wrap=True, overflow="ellipsis", ratio=1)
    return table


def _trials_table(records: list[TrialRecord], reports: dict[str, Report]) -> Table:
    table = _empty_trials_table()
    running = [r for r in records if r.state == "running"]
    ended = sorted((r for r in records if r.ended is not None), key=lambda r: r.ended or 0.0)
    for record in [*ended[-ENDED_SHOWN:], *running]:
        table.add_row(*_row(record, reports.get(record.key)))
    return table


def _row(record: TrialRecord, report: Report | None) -> list[str]:
    colour = _COLOURS[record.state]
    seconds = (record.ended or time.time()) - (record.started or time.time())
    of = record.spec.get("num_reports", "?")
    return [
        record.key,
        f"[{colour}]{record.state}[/]",
        f"{report.index}/{of}" if report else f"0/{of}",
        str(report.progress.step) if report else "",
        f"{report.validation['loss']:.4f}" if report and "loss" in report.validation else "",
        f"{record.objective:.4f}" if record.objective is not None else "",
        duration(seconds),
        parameters_in_words(record.parameters),
    ]


def parameters_in_words(parameters: dict[str, Any]) -> str:
    """`learning_rate 0.0023  batch_size 8`: the last part of each path and a short value."""
    short = {path.rsplit(".", 1)[-1]: value for path, value in parameters.items()}
    return "  ".join(
        f"{name} {value:.2g}" if isinstance(value, float) else f"{name} {value}" for name, value in short.items()
    )


def _arms_table(report: SweepReport) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))  # fits 80 columns
    splits = {arm.metric.split for arm in report.arms if arm.metric}
    metric = f"{splits.pop()} {report.metric}" if len(splits) == 1 else report.metric
    for title in ("arm", metric, "95 % interval", "n", "parameters", "steps", "TFLOP", "time"):
        table.add_column(title, no_wrap=True, justify="left" if title == "arm" else "right")
    several = len({arm.task for arm in report.arms}) > 1
    for arm in report.arms:
        m = arm.metric
        table.add_row(
            f"{arm.task}/{arm.name}" if several else arm.name,
            f"{m.mean:.4f}" if m else "",
            f"{m.low:.4f} to {m.high:.4f}" if m and m.low is not None and m.high is not None else "",
            str(m.n) if m else "0",
            f"{arm.parameters:,}" if arm.parameters else "",
            f"{arm.steps:.0f}" if arm.steps else "",
            f"{arm.flops / 1e12:.2f}" if arm.flops else "",
            duration(arm.seconds) if arm.seconds else "",
        )
    return table


def show_status(store: SweepStore, as_json: bool) -> None:
    """Where a sweep stands."""
    sweep = load_sweep(store.directory)
    state = _state(sweep.record, store)
    report = build_report(sweep, None)
    if as_json:
        trials = [_status_of(sweep, trial) for trial in sweep.trials]
        facts = {"name": sweep.record.name, "state": state, "trials": report.trials, "answer": report.answer}
        print(json.dumps({**facts, "elapsed_seconds": sweep.record.elapsed_seconds, "each": trials}))
        return
    console = Console()
    console.print(f"[bold]{sweep.record.name}[/] {state}; {report.answer['sentence']}")
    table = _empty_trials_table()
    for trial in sweep.trials:
        reports = sweep.reports(trial)
        table.add_row(*_row(trial, reports[-1] if reports else None))
    console.print(table)
    for trial in sweep.trials:
        if trial.state == "failed":
            console.print(f"[red]{trial.key}[/] {trial.reason}; log {sweep.log_of(trial)}", soft_wrap=True)


def _status_of(sweep: Sweep, trial: TrialRecord) -> dict[str, Any]:
    reports = sweep.reports(trial)
    return {
        "key": trial.key,
        "state": trial.state,
        "reason": trial.reason,
        "step": reports[-1].progress.step if reports else 0,
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
