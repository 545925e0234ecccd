"""`status --watch`: a sweep's curves and trials while it runs, from its files alone, on any machine that sees them.

On a terminal it is drawn anew every few seconds; elsewhere a line is written whenever something has changed. It ends
when no driver is at work any more.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from analysis.columns import ReportColumns
from analysis.numbers import duration, significant
from analysis.records import TrialRecord
from analysis.sweep import Sweep, load_sweep
from orchestrator.status import show_status, trial_row, trials_table
from orchestrator.store import SweepStore
from orchestrator.text_plot import Line, plot
from orchestrator.view import waited_for

EVERY_SECONDS = 2.0
SHARE = 0.2
"""Of the time, at most, goes into reading: a sweep of many trials is drawn less often."""
RUNNING_DRAWN, ROWS = 12, 8
_COLOURS = ("cyan", "yellow", "magenta", "green", "red", "blue", "bright_cyan", "bright_yellow")


def watch_sweep(store: SweepStore, every_trial: bool) -> int:
    """Show the sweep until its driver has ended, then say where it stands; Ctrl-C ends the looking alone."""
    console = Console()
    watch = _Watch(store)
    try:
        if console.is_terminal:
            with Live(console=console, auto_refresh=False, transient=True) as live:
                for sweep in watch.readings():
                    live.update(watch.screen(sweep, console.width, console.height), refresh=True)
        else:
            for line in watch.lines():
                print(line, flush=True)
    except KeyboardInterrupt:
        return 0
    show_status(store, as_json=False, every_trial=every_trial)
    return 0


@dataclass(slots=True)
class _Watch:
    """One sweep that is looked at again and again; files that did not grow are not read again."""

    store: SweepStore
    _known: dict[str, tuple[int, ReportColumns]] = field(default_factory=dict)

    def readings(self) -> Iterator[Sweep]:
        """The sweep as it is now, again and again while a driver is at work."""
        while True:
            began, at_work = time.monotonic(), self.store.is_locked()
            yield load_sweep(self.store.directory)
            if not at_work:
                return
            time.sleep(max(EVERY_SECONDS, (time.monotonic() - began) * (1 / SHARE - 1)))

    def lines(self) -> Iterator[str]:
        """A line whenever it says something new."""
        before = ""
        for sweep in self.readings():
            line = f"{_counts(sweep)}; {_best(sweep)}"
            if line != before:
                yield f"{time.strftime('%H:%M:%S')} {line}"
            before = line

    def screen(self, sweep: Sweep, width: int, height: int) -> RenderableType:
        """As much of the sweep as fits a terminal: where it stands, its curves, its latest trials."""
        trials = _telling(sweep)
        tasks = sweep.record.tasks
        left = height - len(trials) - 8
        each = max(left // len(tasks) - 2, 6)
        shown: list[RenderableType] = [self._head(sweep)]
        for task in tasks[: max(left // (each + 2), 1)]:
            shown += [_legend(sweep, task), self._curves(sweep, task, width, each)]
        table = trials_table()
        for trial in trials:
            table.add_row(*trial_row(trial, sweep.last_report(trial)))
        return Group(*shown, table)

    def _head(self, sweep: Sweep) -> Text:
        waiting = waited_for(self.store.directory) if self.store.is_locked() else ""
        took = duration(sweep.record.elapsed_seconds)
        text = Text.assemble((sweep.record.name, "bold"), f" {_counts(sweep)}, {took} of work\n")
        return text.append(waiting, style="yellow") if waiting else text

    def _curves(self, sweep: Sweep, task: str, width: int, height: int) -> Text:
        """Finished replicas, the best of each search, and what runs."""
        axis, lines = str(sweep.record.budget.get("axis", "steps")), []
        for trial in _drawn(sweep, task):
            reports = self._reports(sweep, trial)
            if sweep.record.metric in reports.validation:
                colour = _colour(sweep, trial.arm)
                lines.append(Line(reports.axes[axis], reports.validation[sweep.record.metric], colour))
        return plot(lines, width, height, f"validation {sweep.record.metric} over {axis}")

    def _reports(self, sweep: Sweep, trial: TrialRecord) -> ReportColumns:
        path = sweep.folder_of(trial) / "records.jsonl"
        size = path.stat().st_size if path.exists() else 0
        known = self._known.get(trial.key)
        if known is None or known[0] != size:
            known = self._known[trial.key] = size, sweep.reports(trial)
        return known[1]


def _drawn(sweep: Sweep, task: str) -> list[TrialRecord]:
    best = [sweep.best_search_trial(task, arm) for arm in sweep.record.arms]
    found = [trial for trial in best if trial is not None]
    found += sweep.select(task=task, phase="replica", state="completed")
    running = sorted(sweep.select(task=task, state="running"), key=lambda trial: trial.started or 0.0)
    return found + running[-RUNNING_DRAWN:]


def _telling(sweep: Sweep) -> list[TrialRecord]:
    """What runs, and what ended last."""
    latest = heapq.nlargest(ROWS, sweep.trials, key=lambda trial: (trial.state == "running", trial.ended or 0.0))
    return sorted((trial for trial in latest if trial.state != "waiting"), key=lambda trial: trial.key)


def _legend(sweep: Sweep, task: str) -> Text:
    text = Text(f"{task}  " if len(sweep.record.tasks) > 1 else "", style="bold")
    for arm in sweep.record.arms:
        running = len(sweep.select(task=task, arm=arm, state="running"))
        best = sweep.best_of((trial, trial.objective) for trial in sweep.select(task=task, arm=arm))
        said = significant(best.objective) if best else "–"
        text.append("■ ", style=_colour(sweep, arm)).append(
            f"{arm} {said}{f', {running} running' if running else ''}  "
        )
    return text


def _colour(sweep: Sweep, arm: str) -> str:
    return _COLOURS[sweep.record.arms.index(arm) % len(_COLOURS)]


def _counts(sweep: Sweep) -> str:
    states = Counter(trial.state for trial in sweep.trials)
    ended = states["completed"] + states["pruned"] + states["failed"]
    failed = f", {states['failed']} failed" if states["failed"] else ""
    return f"{ended} of {sweep.record.planned_trials} trials ended{failed}, {states['running']} running"


def _best(sweep: Sweep) -> str:
    """`best validation loss: baseline 0.20, transformer 0.19`."""
    best = {
        f"{task}/{arm}" if len(sweep.record.tasks) > 1 else arm: sweep.best_of(
            (trial, trial.objective) for trial in sweep.select(task=task, arm=arm)
        )
        for task in sweep.record.tasks
        for arm in sweep.record.arms
    }
    said = ", ".join(f"{name} {significant(trial.objective)}" for name, trial in best.items() if trial)
    return f"best validation {sweep.record.metric}: {said or 'none yet'}"
