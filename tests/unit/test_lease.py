"""Who may write in a shared directory: one driver, by a lease. Fake: the names and boot ids of the machines."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import ROOT, wait_for

from hrm.errors import SpecError
from hrm.records import Progress, Report
from orchestrator.lease import Holder, Lease, LeaseHeldError, LeaseLostError, Machine, newest
from orchestrator.store import SweepStore
from orchestrator.studies import open_journal

A, B = (Machine(name, f"boot of {name}") for name in "AB")
SECONDS = 0.6


def lease(directory: Path, machine: Machine = A) -> Lease:
    return Lease(directory, machine, SECONDS)


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Lease]:
    one = lease(tmp_path)
    one.acquire(alone=True)
    yield one
    one.release()


def test_a_renewed_lease_is_not_taken_by_another_machine(held: Lease, tmp_path: Path) -> None:
    with pytest.raises(LeaseHeldError, match=f"process {os.getpid()} on A"):
        lease(tmp_path, B).acquire(alone=False)
    held.check()


def test_a_released_lease_is_free_at_once_and_the_token_grows(tmp_path: Path) -> None:
    for token, machine in enumerate((A, B, A), start=1):
        one = Lease(tmp_path, machine, 60.0)
        one.acquire(alone=True)
        assert one.token == token
        one.release()
    assert [path.name for path in tmp_path.glob("lease-*")] == ["lease-00000003.json"]


def test_a_dead_process_of_the_same_machine_holds_nothing_and_a_living_one_does(tmp_path: Path) -> None:
    Lease(tmp_path, A, 60.0).acquire(alone=True)  # never released
    with pytest.raises(LeaseHeldError):
        Lease(tmp_path, A, 60.0).acquire(alone=False)
    Lease(tmp_path, A, 60.0).acquire(alone=True)  # the file lock says that the other is dead


def test_the_clocks_of_two_machines_are_never_compared(held: Lease, tmp_path: Path) -> None:
    for hours in (-1000, 1000):
        os.utime(tmp_path / "lease-00000001.json", (time.time() + 3600 * hours,) * 2)
        with pytest.raises(LeaseHeldError):
            lease(tmp_path, B).acquire(alone=False)


def test_of_two_machines_that_take_over_one_wins(tmp_path: Path) -> None:
    lease(tmp_path)._write(Holder(1, "A", "boot of A", 1), new=True)  # and nobody renews it
    code = (
        "import sys; from pathlib import Path; from orchestrator.lease import *\n"
        "name = sys.argv[1]; lease = Lease(Path(sys.argv[2]), Machine(name, name), 0.6)\n"
        "try:\n    lease.acquire(False); print('won', flush=True); input()\n"
        "except LeaseHeldError as error: print('held by', error)"
    )
    rivals = [
        subprocess.Popen(
            [sys.executable, "-c", code, name, str(tmp_path)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in "BCDE"
    ]
    said = [rival.stdout.readline().strip() for rival in rivals if rival.stdout]
    for rival in rivals:
        rival.communicate("\n", timeout=30)
    assert sum(words == "won" for words in said) == 1, said
    assert sum(words.startswith("held by") for words in said) == 3, said


HOLDER = """
import sys, time
from pathlib import Path
from orchestrator.lease import Lease, LeaseLostError, Machine
from orchestrator.store import SweepStore
from orchestrator.studies import open_journal
from optuna import create_study
from hrm.records import Progress, Report

store = SweepStore(Path(sys.argv[1]), "sweep")
store._lease = Lease(store.directory, Machine("A", "boot of A"), 0.6)
store.open()
study = create_study(storage=open_journal(store.journal, store.check))
index = 0
while True:
    index += 1
    try:
        store.append_report("a", Report(index, Progress(index), 0.0, {"loss": 1.0}))
        study.ask()
    except LeaseLostError as error:
        print(error, flush=True)
        break
for write in (lambda: study.ask(), lambda: store.write_trial(None), lambda: store.write_sweep(None)):
    try:
        write()
    except LeaseLostError:
        print("refused", flush=True)
store.close()
"""


def test_a_driver_that_slept_past_its_lease_writes_nothing_more(tmp_path: Path) -> None:
    store = SweepStore(tmp_path, "sweep")
    first = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: len(store.reports("a")) > 2, 60)
        store._lease = lease(store.directory, B)
        with pytest.raises(SpecError, match=f"another driver is at work on this sweep .process {first.pid} on A"):
            store.open()
        os.kill(first.pid, signal.SIGSTOP)
        store._lease = lease(store.directory, B)
        store.open()
        before = (store.reports("a"), store.journal.read_bytes())
        os.kill(first.pid, signal.SIGCONT)
        said, _ = first.communicate(timeout=30)
    finally:
        first.kill()
    assert "another driver" in said
    assert "on B" in said
    assert said.count("refused") == 3
    assert len(store.reports("a")) - len(before[0]) <= 1, "at most the write that the stop has interrupted"
    store.append_report("a", Report(10**6, Progress(), 0.0, {"loss": 1.0}))
    store.close()
    assert newest(store.directory) is not None


def test_a_holder_that_was_replaced_finds_out_before_it_writes(held: Lease, tmp_path: Path) -> None:
    other = {"token": 2, "host": "B", "boot": "boot of B", "pid": 7}
    (tmp_path / "lease-00000002.json").write_text(json.dumps(other))
    with pytest.raises(LeaseLostError, match=r"process 7 on B\) has taken over"):
        held.check()
    held.release()
    assert json.loads((tmp_path / "lease-00000002.json").read_text()) == other


def test_a_journal_is_not_written_once_the_lease_is_lost(tmp_path: Path) -> None:
    def lost() -> None:
        raise LeaseLostError("gone")

    with pytest.raises(LeaseLostError):
        open_journal(tmp_path / "journal.log", lost).create_new_study([], "x")
    assert (tmp_path / "journal.log").read_bytes() == b""
