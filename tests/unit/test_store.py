"""A sweep's directory: one driver, no torn line, nothing changed under a name; and what it may need on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_experiment import experiment

from hrm.data.dataset import build_dataset
from hrm.errors import SpecError
from hrm.records import Progress, Report
from orchestrator.disk import check_disk, forecast_bytes
from orchestrator.store import SweepStore


@pytest.fixture
def store(tmp_path: Path) -> SweepStore:
    store = SweepStore(tmp_path, "sweep")
    store.open()
    return store


def report(index: int) -> Report:
    return Report(index, Progress(index), 1.5, {"loss": 1 / index})


def test_a_second_driver_is_refused_and_the_first_is_named(store: SweepStore) -> None:
    with pytest.raises(SpecError, match=rf"another driver is at work on this sweep \(process {os.getpid()} on .+\)"):
        SweepStore(store.storage, "sweep").open()
    SweepStore(store.storage, "other").open()
    store.close()
    SweepStore(store.storage, "sweep").open()


def test_the_lock_of_a_dead_driver_is_free(tmp_path: Path) -> None:
    code = (
        "import os; from pathlib import Path; from orchestrator.store import SweepStore\n"
        f"store = SweepStore(Path({str(tmp_path)!r}), 'sweep'); store.open(); assert store.is_locked(); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    store = SweepStore(tmp_path, "sweep")
    assert not store.is_locked()
    store.open()
    assert SweepStore(tmp_path, "sweep").is_locked()


def test_looking_at_the_lock_leaves_it_alone(store: SweepStore) -> None:
    assert SweepStore(store.storage, "sweep").is_locked()
    assert not SweepStore(store.storage, "none").is_locked()
    with pytest.raises(SpecError, match="another driver"):
        SweepStore(store.storage, "sweep").open()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "sweeps").write_text("a file")
    with pytest.raises(SpecError, match=r"sweeps/x: cannot be written: Not a directory.*Give another --storage"):
        SweepStore(tmp_path, "x").open()


def test_an_old_request_to_stop_does_not_stop_a_new_driver(store: SweepStore) -> None:
    store.request_stop()
    store.close()
    store.open()
    assert not store.stop_file.exists()


def test_reports_come_back_as_they_were(store: SweepStore) -> None:
    written = [report(1), report(2)]
    for one in written:
        store.append_report("a", one)
    assert store.reports("a") == written
    assert store.reports("none") == []


def test_a_torn_report_is_left_out_and_cut_before_the_next(store: SweepStore) -> None:
    store.append_report("a", report(1))
    path = store.trial_directory("a") / "records.jsonl"
    whole = path.read_bytes()
    for torn in (b"{", report(2).to_json().encode()):  # a line without its end is torn, too
        path.write_bytes(whole + torn)
        assert store.reports("a") == [report(1)]
        store.append_report("a", report(2))
        assert store.reports("a") == [report(1), report(2)]
    path.write_bytes(b"{torn first line")
    store.append_report("a", report(1))
    assert store.reports("a") == [report(1)]


def test_a_torn_journal_and_its_left_lock_are_mended(store: SweepStore) -> None:
    store.close()
    store.journal.write_bytes(b'{"op_code": 0}\n{"op_co')
    lock = store.journal.with_name("journal.log.lock")
    lock.symlink_to(store.journal)
    store.open()
    assert store.journal.read_bytes() == b'{"op_code": 0}\n'
    assert not lock.is_symlink()


def test_checkpoints_are_dropped_but_those_to_keep_and_the_bytes_are_counted(store: SweepStore) -> None:
    for name in ("attempts/1/step-00000001", "attempts/2/step-00000002", "attempts/2/step-00000003.damaged"):
        folder = store.trial_directory("a") / name
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"12345")
    (store.trial_directory("a") / "log.txt").write_text("kept")
    assert store.drop_checkpoints("a", {"attempts/2/step-00000002"}) == 10
    left = {
        str(p.relative_to(store.trial_directory("a"))) for p in store.trial_directory("a").rglob("*") if p.is_file()
    }
    assert left == {"log.txt", "attempts/2/step-00000002/model.safetensors"}
    assert store.drop_checkpoints("none") == 0


# --- its size --------------------------------------------------------------------------------------------------------


def test_the_forecast_grows_with_replicas_and_concurrency(tmp_path: Path, store: SweepStore) -> None:
    for task in experiment(tmp_path).tasks.values():
        build_dataset(task, store.data_root)
    few, many = {"resources": {"max_concurrent_trials": 1}}, {"resources": {"max_concurrent_trials": 2}}
    one = forecast_bytes(experiment(tmp_path, **few), store)
    assert 0 < one < forecast_bytes(experiment(tmp_path, **many), store)
    assert one < forecast_bytes(experiment(tmp_path, **few, replicas__seeds=3), store)
    averaged = forecast_bytes(experiment(tmp_path, **few, base__ema=0.9), store)
    assert 1.25 * one < averaged < 4 / 3 * one, "an average of the weights is one value more for each three"


def test_a_sweep_that_may_not_fit_on_the_disk_is_refused(tmp_path: Path, store: SweepStore) -> None:
    for task in experiment(tmp_path).tasks.values():
        build_dataset(task, store.data_root)
    check_disk(experiment(tmp_path), store)
    with pytest.raises(SpecError, match=r"may need \d+\.\d\d GB and .* are free\. Free some space"):
        check_disk(experiment(tmp_path, resources={"max_concurrent_trials": 10**9}), store)
