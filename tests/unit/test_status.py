"""`status` answers what is waited for, what was resumed and why trials failed, also for a thousand trials."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from sweep_fixture import search_trial, write_sweep, write_trial

from analysis.records import TrialRecord
from orchestrator.progress import ENDED_SHOWN, RUNNING_SHOWN, _trials_table
from orchestrator.status import FAILURES_SHOWN, TRIALS_SHOWN, show_status
from orchestrator.store import SweepStore
from orchestrator.view import NotingView, View


@pytest.fixture
def store(tmp_path: Path) -> SweepStore:
    """A sweep of an arm with six search trials and two replicas."""
    write_sweep(tmp_path / "sweeps" / "demo", {"hrm": [0.2, 0.3]})
    return SweepStore(tmp_path, "demo")


def said(store: SweepStore, capsys: pytest.CaptureFixture[str], **options: Any) -> str:
    show_status(store, as_json=False, **options)
    return capsys.readouterr().out


class Terminal(View):
    """Remembers what a person was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def waiting(self, message: str) -> None:
        self.told.append(message)


def test_status_says_what_the_driver_waits_for_while_it_waits(
    store: SweepStore, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    view = NotingView(terminal, store.directory)
    view.waiting("Waiting for room in the cluster: 1 of [2] nodes")
    assert "Waiting for room" not in said(store, capsys), "no driver is at work"
    store.open()
    record = store.read_sweep()
    store.write_sweep(replace(record, finished=False))
    assert "Waiting for room in the cluster: 1 of [2] nodes" in said(store, capsys)
    view.waiting("")
    assert "Waiting for room" not in said(store, capsys)
    store.close()
    assert terminal.told == ["Waiting for room in the cluster: 1 of [2] nodes", ""]


def test_a_failure_is_shown_with_its_reason_and_its_log(store: SweepStore, capsys: pytest.CaptureFixture[str]) -> None:
    trial = replace(search_trial("text", "hrm", 2), reason="unexpected: shapes [3] and [/4] do not fit")
    write_trial(store.directory, trial)
    text = said(store, capsys)
    assert trial.reason in text
    log = store.directory / "trials" / trial.key / "log.txt"
    assert str(log) in text
    assert log.exists()


def test_a_resumed_trial_shows_its_attempt(store: SweepStore, capsys: pytest.CaptureFixture[str]) -> None:
    write_trial(store.directory, replace(search_trial("text", "hrm", 0), attempts=3))
    text = said(store, capsys)
    assert "completed x3" in text
    assert "xN: attempt N" in text
    write_trial(store.directory, search_trial("text", "hrm", 0))
    assert "xN: attempt N" not in said(store, capsys)
    write_trial(store.directory, replace(search_trial("text", "hrm", 0), attempts=3))
    show_status(store, as_json=True)
    each = {trial["key"]: trial for trial in json.loads(capsys.readouterr().out)["each"]}
    assert each["text-hrm-search-0000"]["attempts"] == 3


def test_a_thousand_trials_are_counted_and_the_newest_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    directory = write_sweep(tmp_path / "sweeps" / "demo", {"hrm": []}, search={"hrm": 0})
    for number in range(400):
        trial = replace(search_trial("text", "hrm", number), ended=1e9 + number)
        if number % 10 == 3:
            trial = replace(trial, state="failed", reason="worker_lost: again")
        write_trial(directory, trial, num_reports=1)
    write_trial(directory, replace(search_trial("text", "hrm", 400), state="running", ended=None), num_reports=1)
    store = SweepStore(tmp_path, "demo")
    text = said(store, capsys)
    assert len(text.splitlines()) < TRIALS_SHOWN + FAILURES_SHOWN + 10
    assert "text-hrm-search-0400" in text, "it runs"
    assert "text-hrm-search-0398" in text
    assert "text-hrm-search-0000" not in text
    assert f"The latest {TRIALS_SHOWN} of 401 trials" in text
    assert "more have failed" in text
    everything = said(store, capsys, every_trial=True)
    assert all(f"text-hrm-search-{number:04d}" in everything for number in range(401))


def test_the_live_table_fits_a_terminal_with_many_trials_at_once() -> None:
    records: list[TrialRecord] = [
        replace(search_trial("text", "hrm", number), state="running", ended=None, started=1e9 + number)
        for number in range(3, 67)
    ]
    console = Console(width=160)
    with console.capture() as captured:
        console.print(_trials_table(records, {}))
    lines = captured.get().splitlines()
    assert len(lines) <= ENDED_SHOWN + RUNNING_SHOWN + 3
    assert f"and {len(records) - RUNNING_SHOWN} more run" in captured.get()
    assert "text-hrm-search-0066" in captured.get()
