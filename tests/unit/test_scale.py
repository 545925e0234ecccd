"""What a sweep costs its driver does not grow with the trials before: counted operations, never times.

The ledger, its journal and its files are real; the trainings are made up (`ledger_runner.py`).
"""

from __future__ import annotations

import gc
import json
import math
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ledger_runner import Life, MortalJournal, Runner, report_of
from optuna.storages import JournalStorage
from small_experiment import experiment
from sweep_fixture import replica, search_trial, write_sweep, write_trial

from analysis import search_figures
from analysis.columns import StepColumns
from analysis.curves import telling
from analysis.records import TrialRecord, write_json
from analysis.report import write_report
from analysis.sections import failures
from analysis.sweep import Sweep, load_sweep
from hrm.records import Progress, Report, StepRecord, read_last_report
from orchestrator import ledger as ledger_module
from orchestrator.failures import Failure
from orchestrator.ledger import Ledger

MANY = {
    "search__trials": 500,
    "search__deterministic": False,
    "search__sampler": {"kind": "random"},
    "search__pruner": {"kind": "none"},
    "base__num_reports": 2,
    "space": {"optimizer.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}},
}


class CountingStorage(JournalStorage):
    """Optuna's own storage, which counts how often it is asked for all trials of a study."""

    scans = 0

    def get_all_trials(self, *arguments: Any, **named: Any) -> Any:
        self.scans += 1
        return super().get_all_trials(*arguments, **named)


class Costs:
    """A listener that notes, whenever a trial has ended, what the driver has written and read up to then."""

    def __init__(self, ledger: Ledger, life: Life, storage: CountingStorage) -> None:
        self._ledger, self._life, self._storage = ledger, life, storage
        self.commits: list[float] = []
        self.scans: list[int] = []

    def changed(self, key: str) -> None:
        if self._ledger.records[key].ended is not None:
            self.commits.append(-self._life.left)
            self.scans.append(self._storage.scans)


@pytest.mark.slow
def test_the_1000th_trial_costs_the_driver_no_more_writes_and_scans_than_the_100th(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, life = Runner(experiment(tmp_path, **MANY), tmp_path), Life(1e9)
    storage = CountingStorage(MortalJournal(str(tmp_path / "journal.log"), life))
    monkeypatch.setattr(ledger_module, "open_journal", lambda path, check: storage)
    ledger = runner.open(life=life)
    ledger.listeners.append(costs := Costs(ledger, life, storage))
    runner.drive(ledger)
    assert len(ledger.records) == ledger.planned_trials == 2 * (500 + 2)
    for numbers in (costs.commits, costs.scans):
        early, late = numbers[200] - numbers[100], numbers[1000] - numbers[900]
        assert late <= 1.1 * early


def test_the_driver_keeps_one_report_of_a_trial_and_none_of_its_steps(tmp_path: Path) -> None:
    def steps() -> int:
        gc.collect()
        return sum(type(thing) is StepRecord for thing in gc.get_objects())

    ledger = Runner(experiment(tmp_path, base__num_reports=40, search__pruner={"kind": "none"}), tmp_path).open()
    job, before = ledger.next_job(), steps()
    assert job is not None
    for index in range(1, 31):
        made = tuple(StepRecord(Progress(step=10 * index + i), 0.0, {"loss": 1.0}) for i in range(10))
        assert not ledger.on_report(job.key, replace(report_of(job.spec, index), steps=made))
    del made
    assert steps() - before <= 10
    ledger.on_failed(job.key, Failure("trial", "diverged"))
    assert steps() - before == 0
    assert ledger.reports[job.key].index == 30


def test_the_last_report_is_found_behind_long_lines_and_before_a_torn_one(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    assert read_last_report(path) is None
    path.write_text('{"index": 1, "prog')
    assert read_last_report(path) is None
    long = tuple(StepRecord(Progress(step=i), 0.0, {"loss": 1.0}) for i in range(400))
    reports = [Report(i, Progress(step=400 * i), 0.0, {"loss": 1.0 / i}, long if i != 2 else ()) for i in (1, 2, 3)]
    for count in (1, 2, 3):
        lines = [report.to_json() + "\n" for report in reports[:count]]
        for torn in ("", lines[0][:-1], lines[0][:50]):
            path.write_text("".join(lines) + torn)
            assert read_last_report(path) == replace(reports[count - 1], steps=())


def test_an_ended_trial_is_neither_read_whole_nor_written_again_when_its_sweep_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = experiment(tmp_path)
    runner = Runner(asked, tmp_path)
    runner.drive(ledger := runner.open())
    ledger.store.close()
    store = type(ledger.store)
    damaged = ledger.store.trial_directory("plain-search-0001") / "trial.json"
    damaged.write_text("{")
    monkeypatch.setattr(store, "reports", lambda self, key: pytest.fail("all reports of an ended trial were read"))
    monkeypatch.setattr(store, "write_trial", lambda self, record: written.append(record.key))
    written: list[str] = []
    assert runner.open().records == ledger.records
    assert written == ["plain-search-0001"]


# --- the files of 2,000 trials ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sweep's directory with 2,000 search trials of two arms, every eighth failed, and two replicas each."""
    directory = tmp_path_factory.mktemp("storage") / "sweeps" / "large"
    write_sweep(directory, {"hrm": [0.2, 0.21], "transformer": [0.3, 0.31]}, search={})
    for arm in ("hrm", "transformer"):
        for number in range(1000):
            trial = search_trial("text", arm, number)
            if number % 8 == 5:
                trial = replace(trial, state="failed", reason="diverged", objective=None, result=None)
            write(directory, trial)
    return directory


def write(directory: Path, trial: TrialRecord) -> None:
    place = directory / "trials" / trial.key
    place.mkdir()
    write_json(place / "trial.json", trial)


def test_the_page_of_a_large_sweep_draws_the_telling_trials_and_lists_the_first_failures(large: Path) -> None:
    report = write_report(load_sweep(large), large)
    assert report.trials["total"] == 2004
    assert len(report.failures) > failures.SHOWN
    page, text = (large / "report.html").read_text(), (large / "report.md").read_text()
    assert f"The first {failures.SHOWN} of" in page
    assert text.count("diverged") <= failures.SHOWN
    assert len(json.loads((large / "report.json").read_text())["failures"]) == len(report.failures)


def test_the_search_plot_of_a_large_sweep_keeps_the_best_trial_and_every_state(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_figures, "MAX_DOTS", 200)
    sweep = load_sweep(large)
    drawn = [point for trace in search_figures.search_plot(sweep, "text").data for point in trace.hovertext or ()]
    assert len(drawn) <= 1.1 * 200
    best = sweep.best_search_trial("text", "hrm")
    assert best is not None
    assert any(point.startswith(f"{best.key},") for point in drawn)
    states = Counter(point.split(", ")[1].split(":")[0] for point in drawn)
    assert states.keys() == {"completed", "pruned", "failed"}


def test_the_telling_values_hold_the_ends_and_the_extremes() -> None:
    import numpy as np

    values = np.sin(np.arange(5000.0) * 0.37)
    values[3210], values[777] = 5.0, -5.0
    kept = telling(values, 100)
    assert len(kept) <= 100
    assert {0, 777, 3210, 4999} <= set(kept)
    assert telling(values[:5], 100) == [0, 1, 2, 3, 4]
    assert math.isfinite(values[kept].sum())


def test_optimizer_steps_are_read_of_replicas_alone(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    whole = Sweep.steps

    def steps(self: Sweep, trial: TrialRecord) -> StepColumns:
        read.append(trial.key)
        return whole(self, trial)

    write_trial(large, replace(search_trial("text", "hrm", 1), reason="pruned"))
    write_trial(large, replica("text", "hrm", 0, 0.2))
    monkeypatch.setattr(Sweep, "steps", steps)
    write_report(load_sweep(large), large)
    assert read
    assert all("replica" in key for key in read)


def test_status_and_list_need_neither_torch_nor_ray_nor_optuna() -> None:
    code = (
        "import sys, orchestrator.status; print([n for n in ('torch', 'ray', 'optuna', 'mlflow') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
