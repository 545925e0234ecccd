"""A lost control directory is rebuilt from the copies in the store, and nothing is run twice. Trials are pretended."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command import s3_store
from ledger_runner import Killed, Runner, table, undisturbed
from small_experiment import experiment

from analysis.records import SweepRecord
from hrm.errors import SpecError, StorageError
from hrm.records import Progress, Report, TrialResult
from hrm.remote import Archive
from orchestrator.copies import rebuild
from orchestrator.jobs import Job
from orchestrator.lease import LeaseLostError
from orchestrator.ledger import Ledger
from orchestrator.store import SweepStore


def sweep_record(store: str) -> SweepRecord:
    none: dict[str, Any] = {}
    return SweepRecord("small", "?", none, [], [], "loss", "minimize", none, 0, none, "", none, none, 0.0, store=store)


class StoreRunner(Runner):
    """Its sweep has a store."""

    def open(self, *unused: Any) -> Ledger:
        uri = str(self.storage / "store")
        store = SweepStore(self.storage, self.experiment.name, Archive(uri))
        store.open()
        if not store.exists():
            store.write_sweep(sweep_record(uri))
        return Ledger(self.experiment, store)

    def training(self, ledger: Ledger, job: Job) -> Iterator[Report | TrialResult]:
        """Its last checkpoint is in the store, whatever becomes of the directory."""
        last = f"attempts/{job.attempt}/step-{job.spec['num_reports']:08d}"
        (ledger.store.trial_directory(job.key) / last).mkdir(parents=True)
        return super().training(ledger, job)


@pytest.mark.parametrize("seed", range(3))
def test_a_head_that_loses_its_disk_again_and_again_still_ends_the_sweep(tmp_path: Path, seed: int) -> None:
    asked = experiment(tmp_path, search__deterministic=True)
    runner, moments = StoreRunner(asked, tmp_path, seed), random.Random(seed)
    for _ in range(100):
        ledger = runner.open()
        try:
            runner.drive(ledger, calls=moments.randrange(1, 25))
        except Killed:
            ledger.store.close()
            shutil.rmtree(ledger.store.directory)
        else:
            break
    assert table(ledger) == undisturbed(asked, tmp_path / "undisturbed")
    assert all(found["state"] in ("completed", "pruned") for found in table(ledger).values())
    before = {p: p.read_text() for p in ledger.store.directory.glob("trials/*/*.json*")}
    assert ledger.store.archive is not None
    assert rebuild(ledger.store.archive, tmp_path / "elsewhere")
    after = {p: (tmp_path / "elsewhere" / p.relative_to(ledger.store.directory)).read_text() for p in before}
    assert after == before


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_store() as uri:
        yield uri


@pytest.fixture
def store(tmp_path: Path) -> SweepStore:
    return opened(tmp_path, str(tmp_path / "store"))


def opened(tmp_path: Path, uri: str) -> SweepStore:
    store = SweepStore(tmp_path, "small", Archive(uri, patience=0.2))
    store.open()
    store.write_sweep(sweep_record(uri))
    return store


def append(store: SweepStore, index: int) -> None:
    store.append_report("a", Report(index, Progress(index), 0.0, {"loss": 1.0}))
    store.commit("a")


def test_a_copy_holds_what_is_new_only(store: SweepStore, tmp_path: Path) -> None:
    for index in range(1, 6):
        append(store, index)
    sizes = [path.stat().st_size for path in sorted((tmp_path / "store/sweeps/small/copies").glob("*/*"))]
    assert len(sizes) == 6
    assert max(sizes[2:]) < sizes[1], "sweep.json and the earlier lines are not sent again"
    store.commit("a")
    assert len(list((tmp_path / "store/sweeps/small/copies").glob("*/*"))) == 6, "nothing new, nothing sent"


def test_half_a_line_is_not_copied(store: SweepStore, tmp_path: Path) -> None:
    append(store, 1)
    with (store.trial_directory("a") / "records.jsonl").open("a") as file:
        file.write('{"torn')
    store.commit("a")
    assert store.archive is not None
    rebuild(store.archive, tmp_path / "new")
    assert (tmp_path / "new/trials/a/records.jsonl").read_text().count("\n") == 1
    assert "torn" not in (tmp_path / "new/trials/a/records.jsonl").read_text()


def test_a_sweep_is_rebuilt_from_a_store_that_has_moved(store: SweepStore, tmp_path: Path) -> None:
    append(store, 1)
    store.close()
    shutil.move(tmp_path / "store", tmp_path / "moved")
    again = SweepStore(tmp_path / "other", "small", Archive(str(tmp_path / "moved")))
    again.open()
    assert again.read_sweep().store == str(tmp_path / "moved")
    append(again, 2)
    again.close()
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("kind", ["local", "s3"])
def test_a_driver_with_another_disk_takes_over_and_the_first_one_finds_out(kind: str, s3: str, tmp_path: Path) -> None:
    store = opened(tmp_path, s3 if kind == "s3" else str(tmp_path / "store"))
    append(store, 1)
    assert store.root is not None
    second = SweepStore(tmp_path / "other", "small", store.root)
    second.open()
    assert [report.index for report in second.reports("a")] == [1]
    with pytest.raises(LeaseLostError, match="another driver has taken over"):
        append(store, 2)
    append(second, 2)
    second.close()
    store.close()
    store.open()  # what it wrote alone is put aside
    assert [report.index for report in store.reports("a")] == [1, 2]


def test_a_damaged_copy_is_refused(store: SweepStore, tmp_path: Path) -> None:
    append(store, 1)
    last = max((tmp_path / "store/sweeps/small/copies").glob("*/*"))
    last.write_bytes(last.read_bytes()[:-1] + b"x")
    assert store.archive is not None
    with pytest.raises(StorageError, match="is damaged"):
        rebuild(store.archive, tmp_path / "new")


def test_a_store_that_fails_is_not_asked_again_and_again(store: SweepStore, tmp_path: Path) -> None:
    append(store, 1)
    shutil.rmtree(tmp_path / "store")
    (tmp_path / "store").write_text("in the way")
    for index in (2, 3):
        with pytest.raises(StorageError):
            append(store, index)
    (tmp_path / "store").unlink()
    store.close()
    store.open()
    append(store, 4)
    assert [report.index for report in store.reports("a")] == [1, 2, 3, 4], "nothing was lost here"


def test_another_store_than_the_one_that_it_was_begun_with_is_refused(store: SweepStore, tmp_path: Path) -> None:
    store.close()
    with pytest.raises(SpecError, match=r"keeps its checkpoints in .*/store, got --store .*/second"):
        SweepStore(tmp_path, "small", Archive(str(tmp_path / "second"))).open()
    again = SweepStore(tmp_path, "small")
    again.open()
    assert again.root is not None, "the sweep remembers its store"
