"""Drives a ledger without any cluster: a runner that trains nothing, and drivers that die before any commit."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from analysis.records import TrialRecord, read_trial_records
from hrm.records import Progress, Report, TrialResult, read_reports
from orchestrator import ledger as ledger_module
from orchestrator.experiment import Experiment
from orchestrator.jobs import Job
from orchestrator.ledger import Ledger
from orchestrator.store import SweepStore

SLOTS = 3
Table = dict[str, dict[str, Any]]


class Killed(BaseException):
    """The driver died here."""


class Life:
    """Ends after a number of commits, or never."""

    def __init__(self, commits: float = math.inf) -> None:
        self.left = commits

    def commit(self) -> None:
        """Called before each write; raises Killed instead of the one too many."""
        if self.left <= 0:
            raise Killed
        self.left -= 1


class MortalStore(SweepStore):
    """A store whose writer may die before any write."""

    def __init__(self, storage: Path, name: str, life: Life) -> None:
        super().__init__(storage, name)
        self.life = life

    def append_report(self, key: str, report: Report) -> None:
        self.life.commit()
        super().append_report(key, report)

    def write_trial(self, record: TrialRecord) -> None:
        self.life.commit()
        super().write_trial(record)

    def drop_checkpoints(self, key: str, keep: set[str] | None = None) -> int:
        self.life.commit()
        return super().drop_checkpoints(key, keep)


class MortalJournal(JournalFileBackend):
    """Optuna's own journal, whose writer may die before any line."""

    def __init__(self, path: str, life: Life) -> None:
        super().__init__(path)
        self.life = life

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self.life.commit()
        super().append_logs(logs)


class Runner:
    """Starts the ledger's jobs and feeds it what a training would give, in any order of finishing.

    Lives on when a driver dies, so that it knows what was completed.
    """

    def __init__(self, experiment: Experiment, storage: Path, seed: int = 0) -> None:
        self.experiment, self.storage = experiment, storage
        self.random = random.Random(seed)
        self.completed: set[str] = set()
        self.jobs: list[Job] = []

    def open(self, monkeypatch: pytest.MonkeyPatch | None = None, life: Life | None = None) -> Ledger:
        life = life or Life()
        store = MortalStore(self.storage, self.experiment.name, life)
        store.open()
        if monkeypatch:
            monkeypatch.setattr(
                ledger_module, "open_journal", lambda path, check: JournalStorage(MortalJournal(str(path), life))
            )
        try:
            return Ledger(self.experiment, store)
        except BaseException:
            store.close()
            raise

    def drive(self, ledger: Ledger, calls: float = math.inf) -> None:
        """Until the ledger is finished, or dead after a number of its calls."""
        life, running = Life(calls), dict[str, Iterator[Report | TrialResult]]()
        while not ledger.is_finished():
            if len(running) < SLOTS:
                life.commit()
                job = ledger.next_job()
                assert job or running, "nothing runs, nothing is left to do, and it is not finished"
                if job:
                    assert job.key not in self.completed, "a completed trial is run again"
                    assert job.key not in running
                    self.jobs.append(job)
                    running[job.key] = self.training(ledger, job)
            if running:
                self._advance(ledger, running, life)

    def _advance(self, ledger: Ledger, running: dict[str, Iterator[Report | TrialResult]], life: Life) -> None:
        key = self.random.choice(sorted(running))
        event = next(running[key])
        life.commit()
        if isinstance(event, TrialResult):
            ledger.on_completed(key, event)
            self.completed.add(key)
            del running[key]
        elif ledger.on_report(key, event):
            life.commit()
            ledger.on_pruned(key)
            del running[key]

    def training(self, ledger: Ledger, job: Job) -> Iterator[Report | TrialResult]:
        """Reports beyond the known ones, then the result, as functions of the spec."""
        of = job.spec["num_reports"]
        for index in range(job.known_reports + 1, of + 1):
            report = report_of(job.spec, index, job.attempt)
            (ledger.store.trial_directory(job.key) / report.checkpoint).mkdir(parents=True, exist_ok=True)
            facts = {"num_parameters": 123, "resolved": {"precision": "float32"}}
            yield replace(report, facts=facts if index == job.known_reports + 1 else {})
        last = report_of(job.spec, of, job.attempt)
        test = {"loss": last.validation["loss"] + 0.5} if job.test else None
        directory = ledger.store.trial_directory(job.key)
        newest = max(directory.glob(f"attempts/*/step-{of:08d}"))  # of an earlier attempt, where that wrote it
        best = str(newest.relative_to(directory))
        yield TrialResult(last.progress, last.progress.step, best, last.validation, test)


def report_of(spec: dict[str, Any], index: int, attempt: int = 1) -> Report:
    """What a training of the spec reports: a loss with its best near a learning rate of 0.003."""
    loss = (math.log10(spec["optimizer"]["learning_rate"]) + 2.5) ** 2 + 0.02 * spec["batch_size"]
    loss += 0.3 / index + 0.01 * (spec["seed"] % 7)
    progress = Progress(step=index, examples=4 * index, flops=1e3 * index * spec["batch_size"] ** -2)
    return Report(index, progress, 0.0, {"loss": loss}, checkpoint=f"attempts/{attempt}/step-{index:08d}")


def table(ledger: Ledger) -> Table:
    """What a sweep found: everything but times, attempts and where checkpoints lie."""
    kept = ("trial_id", "spec", "parameters", "state", "reason", "objective", "source", "num_parameters", "resolved")
    kept = (*kept, "lineage", "no_more_seeds")
    result = {}
    for record in read_trial_records(ledger.store.directory):
        assert record == ledger.records[record.key]
        reports = list(read_reports(ledger.store.trial_directory(record.key) / "records.jsonl"))
        values = {name: getattr(record, name) for name in kept}
        found = {name: record.result[name] for name in ("best_validation", "test")} if record.result else None
        result[record.key] = {**values, "result": found, "reports": [(r.index, r.validation) for r in reports]}
    return result


def undisturbed(experiment: Experiment, storage: Path, seed: int = 0, kind: type[Runner] = Runner) -> Table:
    ledger = (runner := kind(experiment, storage, seed)).open()
    runner.drive(ledger)
    ledger.store.close()
    return table(ledger)


def kill_after_calls(asked: Experiment, folder: Path, stride: int, kind: type[Runner] = Runner) -> int:
    """Kill after call 0, `stride`, ... of the ledger, and compare. Gives the calls of a whole sweep, to a stride."""
    expected = undisturbed(asked, folder / "undisturbed", kind=kind)
    for calls in itertools.count(0, stride):
        runner = kind(asked, folder / str(calls), seed=calls)
        ledger = runner.open()
        try:
            runner.drive(ledger, calls)
        except Killed:
            ledger.store.close()
        else:
            ledger.store.close()
            return calls
        ledger = runner.open()
        runner.drive(ledger)
        assert table(ledger) == expected, f"killed before call {calls}"
        ledger.store.close()
    raise AssertionError("it never ends")


def die_again_and_again(runner: Runner, calls: Callable[[int], int]) -> Ledger:
    """Kill after `calls(life)` calls in each life, until the sweep has ended; gives the last ledger."""
    for life in range(200):
        ledger = runner.open()
        try:
            runner.drive(ledger, calls(life))
        except Killed:
            ledger.store.close()
        else:
            return ledger
    raise AssertionError("it never ends")


def kill_before_every_commit(
    asked: Experiment, folder: Path, monkeypatch: pytest.MonkeyPatch, first: int, stride: int,
    check: Callable[[Ledger], None] = lambda ledger: None, kind: type[Runner] = Runner,
) -> int:  # fmt: skip
    """Kill before commit `first`, `first + stride`, ... of a sweep, and compare. Gives the number of kills."""
    expected = undisturbed(asked, folder / "undisturbed", kind=kind)
    for kills in range(10_000):
        runner = kind(asked, folder / str(kills), seed=kills)
        life = Life(first + kills * stride)
        ledger = None
        try:
            ledger = runner.open(monkeypatch, life)
            runner.drive(ledger)
        except Killed:
            if ledger:
                ledger.store.close()
        else:
            return kills
        monkeypatch.undo()
        ledger = runner.open()
        runner.drive(ledger)
        assert table(ledger) == expected, f"killed before commit {first + kills * stride}"
        check(ledger)
        ledger.store.close()
    raise AssertionError("it never ends")
