"""What a person sees in the terminal: a live table while a sweep runs, and its answer at the end.

Without a terminal there is no live table, and with `--json` nothing but the JSON goes to standard output.
"""

from __future__ import annotations

import heapq
import os
import time

import torch
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from analysis.numbers import duration, flop
from analysis.records import TrialRecord
from analysis.report import Report as SweepReport
from hrm.records import Report
from hrm.resolve import fast_bfloat16
from orchestrator.cluster.connect import Cluster
from orchestrator.ledger import Ledger
from orchestrator.status import trial_row, trials_table
from orchestrator.sweep import SweepOutcome
from orchestrator.view import View

ENDED_SHOWN, RUNNING_SHOWN = 6, 20
"""Rows of the live table, the latest of each."""


class TerminalView(View):
    """Says where to look, then keeps a table of the trials on a terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live: Live | None = None

    def waiting(self, message: str) -> None:
        if message:
            self.console.print(f"[dim]{message} ...[/]")

    def measured(self, comparison: str) -> None:
        self.console.print(comparison, highlight=False, soft_wrap=True)

    def noticed(self, outlook: str) -> None:
        if outlook:
            self.console.print(f"[yellow]note:[/] {outlook}", soft_wrap=True, highlight=False)

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
        spent = self._ledger.meter.in_words(records)
        line = Text(f"{len(ended)} of {planned} trials ended, {left} to go; {elapsed} so far{estimate}\n", style="bold")
        line.append(f"{spent}\n" if spent else "")
        return line.append(f"best so far  {best_by_arm(records, self._ledger.experiment.spec.objective.direction)}")


def best_by_arm(records: list[TrialRecord], direction: str) -> str:
    """`arm value` for each arm that has a value on validation."""
    best = min if direction == "minimize" else max
    arms = dict.fromkeys(r.arm for r in records)
    values = {arm: [r.objective for r in records if r.arm == arm and r.objective is not None] for arm in arms}
    return "   ".join(f"{arm} {best(found):.4f}" for arm, found in values.items() if found)


def _trials_table(records: list[TrialRecord], reports: dict[str, Report]) -> Table:
    table = trials_table()
    running = sorted((r for r in records if r.state == "running"), key=lambda r: r.started or 0.0)
    if len(running) > RUNNING_SHOWN:
        table.caption = f"and {len(running) - RUNNING_SHOWN} more run"
    ended = heapq.nlargest(ENDED_SHOWN, (r for r in records if r.ended is not None), key=lambda r: r.ended or 0.0)
    for record in [*reversed(ended), *running[-RUNNING_SHOWN:]]:
        table.add_row(*trial_row(record, reports.get(record.key)))
    return table


def _arms_table(report: SweepReport) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))  # fits 80 columns
    splits = {arm.metric.split for arm in report.arms if arm.metric}
    metric = f"{splits.pop()} {report.metric}" if len(splits) == 1 else report.metric
    for title in ("arm", metric, "95 % interval", "n", "parameters", "steps", "compute", "time"):
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
            flop(arm.flops) if arm.flops else "",
            duration(arm.seconds) if arm.seconds else "",
        )
    return table
