"""What the ledger and the searcher make of attempts that the cluster or the disk ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ledger_runner import Runner, undisturbed
from small_experiment import experiment

from hrm.errors import InfrastructureError
from orchestrator.failures import Failure
from orchestrator.lease import LeaseLostError
from orchestrator.tuning import LedgerSearcher

PREEMPTED = Failure("preempted", "preempted: told to leave")
FULL = Failure("storage", "OSError: [Errno 28] No space left on device")


def test_places_that_are_taken_away_use_up_no_attempts(tmp_path: Path) -> None:
    runner = Runner(experiment(tmp_path, resources__max_attempts=1), tmp_path / "preempted")
    ledger = runner.open()
    for _ in range(4):
        job = ledger.next_job()
        assert job is not None
        ledger.on_failed(job.key, PREEMPTED)
        assert ledger.records[job.key].state == "waiting"
    runner.drive(ledger)
    assert {r.state for r in ledger.records.values()} <= {"completed", "pruned"}


def test_a_full_disk_ends_the_sweep_and_no_trial(tmp_path: Path) -> None:
    asked = experiment(tmp_path)
    runner = Runner(asked, tmp_path / "full")
    ledger = runner.open()
    job = ledger.next_job()
    assert job is not None
    with pytest.raises(InfrastructureError, match=f"{job.key}: OSError.*No space left"):
        ledger.on_failed(job.key, FULL)
    assert ledger.records[job.key].state == "waiting"
    assert not ledger.live
    ledger.store.close()
    again = runner.open()
    runner.drive(again)
    ended = {key: record.state for key, record in again.records.items()}
    assert ended == {key: row["state"] for key, row in undisturbed(asked, tmp_path / "other").items()}


class OneAtATime:
    """A watch that sees nothing: there is no cluster."""

    concurrency = 1

    def look(self) -> None:
        pass

    def hang(self, key: str) -> str:
        return ""

    def free(self, key: str) -> None:
        pass


def searcher(ledger: Any) -> LedgerSearcher:
    return LedgerSearcher(ledger, lambda job: {"key": job.key}, OneAtATime())  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), LeaseLostError("another"), KeyError("bug")])
def test_what_the_ledger_cannot_write_ends_everything_and_is_not_taken_for_a_trials_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The error is fake: raised where the disk would be written."""
    ledger = Runner(experiment(tmp_path), tmp_path / "x").open()
    tune = searcher(ledger)
    assert tune.suggest("t1") is not None
    assert tune.suggest("t2") is None

    def refuse(*arguments: Any) -> None:
        raise error

    monkeypatch.setattr(ledger, "on_stopped", refuse)
    tune.on_trial_complete("t1", {})
    assert tune.broken is error
    assert not ledger.store.stop_file.exists(), "the driver that has the sweep now would be stopped"
    assert tune.suggest("t3") is None


def test_a_worker_that_cannot_save_stops_the_others_and_the_reason_is_kept(tmp_path: Path) -> None:
    ledger = Runner(experiment(tmp_path), tmp_path / "x").open()
    tune = searcher(ledger)
    tune.suggest("t1")
    tune.on_trial_complete("t1", {"failure": '{"origin": "storage", "reason": "OSError: full"}'})
    assert isinstance(tune.aborted, InfrastructureError)
    assert ledger.store.stop_file.exists()
    assert tune.suggest("t2") == LedgerSearcher.FINISHED
