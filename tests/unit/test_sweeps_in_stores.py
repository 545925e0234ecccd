"""Sweeps whose workers see nothing of the driver but the store: real training, without a cluster, under faults.

Jobs run one after another in this process, as a worker on another node would run them. The S3 server is moto's.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import s3_store
from small_experiment import experiment

from analysis.records import read_trial_records
from hrm.checkpoint import read_checkpoint
from hrm.errors import StorageError
from hrm.records import Progress, Report, TrialResult, read_reports
from hrm.remote import Archive
from orchestrator.experiment import Experiment
from orchestrator.failures import Failure, decide
from orchestrator.fetched import checkpoint_folder, sweep_in
from orchestrator.ledger import Job, Ledger
from orchestrator.store import SweepStore, publish
from orchestrator.sweep import _sweep_record
from orchestrator.trial_driver import Place, ProcessContext, Reports, outcome, run_job
from orchestrator.upkeep import clean
from orchestrator.validation import with_data


class Sweep:
    """A small sweep with a store. `begin` is what the command does before it has a cluster, `run` the rest."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder, self.uri = folder, uri
        folder.mkdir(parents=True, exist_ok=True)

    def begin(self) -> Ledger:
        store = SweepStore(self.folder / "driver", "small", Archive(self.uri, patience=0.5))
        store.open()
        small = {"arms": {"plain": {}}, "search__trials": 2, "search__generation": 1, "replicas__seeds": 1}
        self.asked: Experiment = with_data(experiment(self.folder, **small), store.data_root)
        self.record = _sweep_record(self.asked, store)
        publish(self.asked, store)
        return Ledger(self.asked, store)

    def start(self, job: Job) -> Reports:
        place = Place("/nowhere/small", "/nowhere/data", "/nowhere/STOP", 1, "never", store=self.record.store)
        return run_job(job, ProcessContext(place, job))

    def run(self, ledger: Ledger, events: float = float("inf")) -> Failure | None:
        """Until nothing is left, or after so many events; gives the failure that ended it."""
        while (job := ledger.next_job()) is not None:
            reports = self.start(job)
            while True:
                if (events := events - 1) < 0:
                    reports.close()
                    return None
                event = outcome(reports)
                if "failure" in event:
                    return Failure(**json.loads(event["failure"]))
                if "result" in event:
                    data = json.loads(event["result"])
                    ledger.on_completed(job.key, TrialResult(**{**data, "progress": Progress(**data["progress"])}))
                    break
                if ledger.on_report(job.key, Report.from_dict(json.loads(event["report"]))):
                    reports.close()
                    ledger.on_pruned(job.key)
                    break
        return None


def numbers(ledger: Ledger) -> dict[str, Any]:
    """What a disturbance must not change."""
    found = {}
    for key, record in ledger.records.items():
        reports = list(read_reports(ledger.store.trial_directory(key) / "records.jsonl"))
        steps = [(step.progress.step, step.metrics) for report in reports for step in report.steps]
        result = record.result and {name: record.result[name] for name in ("best_step", "best_validation", "test")}
        found[key] = (record.trial_id, record.state, steps, [report.validation for report in reports], result)
    return found


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_store() as uri:
        yield uri


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The numbers of a sweep that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HRM_CACHE", str(folder / "cache"))
        sweep = Sweep(folder, str(folder / "store"))
        ledger = sweep.begin()
        assert sweep.run(ledger) is None
    assert ledger.is_complete()
    return numbers(ledger)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's node keeps what it fetches."""
    monkeypatch.setenv("HRM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def at(uri: str, name: str) -> str:
    """A place of this test alone."""
    base, mark, query = uri.partition("?")
    return f"{base}/{name}{mark}{query}"


def test_the_store_has_what_workers_wrote_and_the_driver_finds_it(tmp_path: Path, s3: str, cache: Path) -> None:
    sweep = Sweep(tmp_path, at(s3, "whole"))
    ledger = sweep.begin()
    assert sweep.run(ledger) is None
    ledger.keeping.sweep(ledger.lines)
    root = ledger.store.root
    assert root is not None
    assert not list((tmp_path / "driver").glob("sweeps/*/trials/*/attempts"))
    assert not list(cache.glob("sweeps/*/trials/*/attempts")), "a node keeps nothing"
    for key, trial in ledger.records.items():
        assert root.has(f"sweeps/small/trials/{key}/attempts/1/log.txt")
        if trial.result is not None and trial.phase == "replica":
            best = f"trials/{key}/{trial.result['best_checkpoint']}"
            for named in (sweep.record.place_of(best), str(ledger.store.directory / best)):
                read_checkpoint(checkpoint_folder(named))
    arms = len(sweep.asked.arms)
    assert len(root.folders("sweeps/small/trials")) == 2 * arms, "the best of each search, and each replica's"
    ledger.store.close()
    shown = sweep_in(root.uri, None)
    assert [trial.key for trial in read_trial_records(shown.directory)] == sorted(ledger.records)
    clean(shown)
    assert len(root.folders("sweeps/small/trials")) == arms


@pytest.mark.slow
@pytest.mark.parametrize("events", [5, 7])
def test_a_head_that_loses_its_disk_costs_nothing(
    tmp_path: Path, s3: str, expected: dict[str, Any], events: int
) -> None:
    sweep = Sweep(tmp_path, at(s3, f"lost-{events}"))
    for _ in range(30):
        ledger = sweep.begin()
        attempts = {key: record.attempts for key, record in ledger.records.items() if record.ended}
        sweep.run(ledger, events)
        assert all(ledger.records[key].attempts == count for key, count in attempts.items()), "an ended one ran again"
        ledger.store.close()
        if ledger.is_complete():
            break
        shutil.rmtree(tmp_path / "driver")
    assert numbers(ledger) == expected


def test_a_store_that_goes_away_ends_the_sweep_and_nothing_is_lost(
    tmp_path: Path, expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.trial_driver._opened", lambda uri: Archive(uri, patience=0.5))
    with s3_store() as bucket:
        uri = at(bucket, "away")
        sweep = Sweep(tmp_path, uri)
        ledger = sweep.begin()
        sweep.run(ledger, events=2)
    with pytest.raises(StorageError, match="s3://bucket/store/away"):
        ledger.store.commit("plain-search-0000")
    ledger.store.close()
    with s3_store(port_of(uri)):
        ledger = sweep.begin()
        job = ledger.next_job()
        assert job is not None
        reports = sweep.start(job)
        assert "report" in outcome(reports)
    while "failure" not in (event := outcome(reports)):
        assert "report" in event, "it cannot end without its checkpoint"
    failure = Failure(**json.loads(event["failure"]))
    assert failure.origin == "storage"
    assert decide(failure, 1, 5) == "abort"
    assert "s3://bucket/store/away" in failure.reason
    ledger.store.close()
    with s3_store(port_of(uri)):
        ledger = sweep.begin()
        assert sweep.run(ledger) is None
        assert numbers(ledger) == expected


def port_of(uri: str) -> int:
    return int(uri.partition("127.0.0.1:")[2].partition("&")[0])


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flipped", "truncated", "deleted"])
def test_a_damaged_checkpoint_costs_steps_and_no_trial(tmp_path: Path, expected: dict[str, Any], damage: str) -> None:
    sweep = Sweep(tmp_path, str(tmp_path / "store"))
    ledger = sweep.begin()
    sweep.run(ledger, events=2)
    ledger.store.close()
    newest = max((tmp_path / "store").glob("sweeps/small/trials/*/attempts/*/step-*"))
    weights = newest / "model.safetensors"
    content = bytearray(weights.read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
    weights.write_bytes(content[: len(content) // 2] if damage == "truncated" else content)
    if damage == "deleted":
        weights.unlink()
    ledger = sweep.begin()
    assert sweep.run(ledger) is None
    assert numbers(ledger) == expected
    assert (newest / "manifest.json.damaged").exists()
