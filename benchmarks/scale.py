"""How a sweep's cost grows with the number of its trials: the ledger, its files, the commands that read them, Ray.

    python -m benchmarks.scale files [--trials 10000]    a sweep through the real ledger without a cluster, then
                                                         `status`, `list`, `report` and resuming it
    python -m benchmarks.scale sweep [--trials 1000]     a real sweep on Ray whose trials compute nothing

Limits: 1 second of orchestration per trial, no growth (last quarter / first quarter 1.5), the driver's memory flat
(1.1), commands on 10,000 trials 5 seconds, a report of 1,000 trials 10 seconds.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
from ray import tune

from benchmarks.trivial import EXPERIMENT, TrivialTrial, events
from hrm.records import Report, TrialResult, read_reports
from orchestrator.cluster.connect import Cluster, Where
from orchestrator.experiment import load_experiment
from orchestrator.jobs import Job
from orchestrator.ledger import Ledger
from orchestrator.sweep import SweepOutcome, run_sweep
from orchestrator.tuning import execute
from orchestrator.view import View

SECONDS_PER_TRIAL, COMMAND_SECONDS, REPORT_SECONDS = 1.0, 5.0, 10.0
GROWTH, MEMORY_GROWTH = 1.5, 1.1
NAME = "scale"


def line(what: str, value: float, limit: float, unit: str) -> None:
    """One measured number against its limit."""
    print(f"{what:52} {value:10.4g} {unit:4} {value / limit:7.3f} of the limit {limit:g}", flush=True)


class Counting:
    """A listener of the ledger: when each trial ended, and how much memory the driver had then."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._process = ledger, psutil.Process()
        self.ended: dict[str, tuple[float, float]] = {}
        """By trial: seconds and bytes."""

    def changed(self, key: str) -> None:
        if self._ledger.records[key].ended is not None and key not in self.ended:
            self.ended[key] = time.monotonic(), float(self._process.memory_info().rss)

    @property
    def last(self) -> float:
        """When the last trial ended."""
        return max(seconds for seconds, _ in self.ended.values())

    def show(self, seconds: float, concurrency: int) -> None:
        """Seconds of a slot per trial, and the growth of time and memory."""
        times, memory = zip(*self.ended.values(), strict=True)
        quarter = len(times) // 4
        first, last = times[quarter] - times[0], times[-1] - times[-1 - quarter]
        line("orchestration per trial", seconds * concurrency / len(times), SECONDS_PER_TRIAL, "s")
        line("  last quarter / first quarter", last / first, GROWTH, "")
        early = min(len(memory) // 10, 100)
        line(f"driver memory, trial {len(memory)} / trial {early}", memory[-1] / memory[early], MEMORY_GROWTH, "")


def drive(ledger: Ledger, slots: int = 4) -> str:
    """What Ray does, without Ray: start jobs, and hand their events to the ledger in turn."""
    running: dict[str, Iterator[Report | TrialResult]] = {}
    while not ledger.is_finished():
        while len(running) < slots and (job := ledger.next_job()):
            running[job.key] = _training(job)
        for key in list(running):
            if _ends(ledger, key, next(running[key])):
                del running[key]
    return ""


def _training(job: Job) -> Iterator[Report | TrialResult]:
    return events(job.spec, job.attempt, job.test, job.known_reports)


def _ends(ledger: Ledger, key: str, event: Report | TrialResult) -> bool:
    if isinstance(event, TrialResult):
        ledger.on_completed(key, event)
        return True
    if ledger.on_report(key, event):
        ledger.on_pruned(key)
        return True
    return False


def sweep_of(
    folder: Path, trials: int, *overrides: str, address: str | None = None, **replaced: Any
) -> tuple[SweepOutcome, Counting, float, int]:
    """Run the whole sweep command in this process; `replaced` are names of `orchestrator.sweep`."""
    path = folder / f"{NAME}.yaml"
    path.write_text(EXPERIMENT)
    experiment = load_experiment(path, [f"search.trials={trials // 2}", *overrides])
    watch = _Watch()
    with patch.multiple("orchestrator.sweep", **replaced):
        outcome = run_sweep(experiment, folder, Where(address), watch)
    return outcome, watch.counting, watch.seconds, watch.concurrency


class _Watch(View):
    """Counts from the first trial to the last."""

    counting: Counting
    seconds = 0.0
    concurrency = 1

    def started(self, ledger: Ledger, cluster: Cluster, concurrency: int, ui_commands: list[str]) -> None:
        self.counting, self.concurrency, self.seconds = Counting(ledger), concurrency, -time.monotonic()
        ledger.listeners.append(self.counting)

    def ended(self) -> None:
        self.seconds += time.monotonic()


def without_ray(ledger: Ledger, *rest: Any) -> str:
    """In the place of `orchestrator.sweep._run`."""
    view = next(argument for argument in rest if isinstance(argument, View))
    view.started(ledger, Cluster((), ""), 1, [])
    try:
        return drive(ledger)
    finally:
        view.ended()


def commands(folder: Path, trials: int, limit: float) -> None:
    """The commands that open a sweep, each in a process of its own, as a person would wait for them."""
    again = ["sweep", str(folder / f"{NAME}.yaml"), "--set", f"search.trials={trials // 2}"]
    for arguments in (["status"], ["status", "--json"], ["list"], ["report"], again):
        command = [sys.executable, "-m", "orchestrator", *arguments, "--storage", str(folder)]
        began = time.monotonic()
        printed = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout
        words = "sweep, finished before" if arguments is again else " ".join(arguments)
        line(f"{words} ({len(printed) / 1024:.0f} KiB)", time.monotonic() - began, limit, "s")
    page = folder / "sweeps" / NAME / "report.html"
    print(f"{'report.html':52} {page.stat().st_size / 2**20:10.4g} MiB")


def files(folder: Path, trials: int, trackers: list[str]) -> None:
    """Fill a sweep's directory through the real ledger; then read it in every way there is."""
    print(f"a sweep of {trials} trials through the ledger, without a cluster")
    outcome, counting, seconds, slots = sweep_of(folder, trials, *trackers, _run=without_ray)
    assert outcome.complete
    counting.show(seconds, slots)
    line("after the last trial: importances, report", time.monotonic() - counting.last, REPORT_SECONDS, "s")
    commands(folder, trials, COMMAND_SECONDS)


def sweep(folder: Path, trials: int, trackers: list[str]) -> None:
    """A real sweep on Ray of trials that compute nothing."""
    print(f"a sweep of {trials} trials on Ray")
    trainable = tune.with_resources(TrivialTrial, tune.PlacementGroupFactory([{"CPU": 1.0}]))
    outcome, counting, seconds, slots = sweep_of(
        folder, trials, *trackers, execute=partial(execute, trainable=trainable)
    )
    assert outcome.complete
    counting.show(seconds, slots)
    line("after the last trial (trackers, report)", time.monotonic() - counting.last, REPORT_SECONDS, "s")
    reports = [report for path in folder.glob("sweeps/*/trials/*/records.jsonl") for report in read_reports(path)]
    processes = {report.system["process_id"] for report in reports}
    print(f"{'trial processes':52} {len(processes):10}")
    print(f"{'  of them with torch':52} {sum(report.system['imports_torch'] for report in reports):10.0f}")
    print(f"{'  the largest':52} {max(r.system['process_memory_bytes'] for r in reports) / 2**20:10.4g} MiB resident")
    commands(folder, trials, REPORT_SECONDS)


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", choices=("files", "sweep"))
    parser.add_argument("--trials", type=int)
    parser.add_argument("--tracker", choices=("none", "mlflow"), default="none")
    parser.add_argument("--keep", type=Path, help="keep the sweep in this folder")
    options = parser.parse_args()
    trackers = [] if options.tracker == "none" else [f"trackers=[{{kind: {options.tracker}}}]"]
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if options.which == "files":
            files(folder, options.trials or 10_000, trackers)
        else:
            sweep(folder, options.trials or 1_000, trackers)


if __name__ == "__main__":
    main()
