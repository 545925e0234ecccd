"""Limits of a sweep: what attempts took is booked once, whatever ends them, and at the limit the sweep says why.

The clock is moved by hand, and NVML's C library is a fake (`nvml_stub`).
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_experiment import experiment
from sweep_fixture import replica, write_sweep, write_trial

from analysis.records import read_sweep_record, write_json
from analysis.report import write_report
from analysis.spending import Spending, limit_sentence, limits_line, outlook, spent_rows, total
from analysis.sweep import load_sweep
from hrm.errors import SpecError
from hrm.records import Progress, Report, TrialResult
from orchestrator import limits as limits_module
from orchestrator.failures import Failure
from orchestrator.ledger import Ledger
from orchestrator.limits import LimitReachedError, LimitSpec, check_energy
from orchestrator.node import GpuEnergy, energy_problem
from orchestrator.store import SweepStore
from tests.unit.nvml_stub import GPU_IS_LOST, FakeGpu, FakeNvml

ONE_ARM = {"arms": {"plain": {}}, "search__trials": 3, "search__deterministic": False, "base__num_reports": 2}
LOST = Failure("infrastructure", "worker_lost: the trial's process died")
EURO = {"gpu_hour": 2.0, "cpu_hour": 0.5, "currency": "EUR"}


class Clock:
    """The driver's clock."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(limits_module.time, "monotonic", clock.monotonic)
    return clock


def open_ledger(folder: Path, **changes: Any) -> Ledger:
    loaded = experiment(folder, **{**ONE_ARM, **changes})
    store = SweepStore(folder, loaded.name)
    store.open()
    return Ledger(loaded, store)


def report(index: int, joules: float | None = None) -> Report:
    system = {} if joules is None else {"energy_joules": joules}
    return Report(index, Progress(step=index), 0.0, {"loss": 1.0 / index}, system=system, checkpoint=f"step-{index}")


RESULT = TrialResult(Progress(step=2), 2, "attempts/1/step-2", {"loss": 0.5}, None)


def test_what_every_attempt_took_is_booked_once(tmp_path: Path, clock: Clock) -> None:
    ledger = open_ledger(tmp_path)
    ledger.meter.cpus, ledger.meter.gpus = 2.0, 0.5
    job = ledger.next_job()
    assert job
    clock.now += 10
    ledger.on_report(job.key, report(1, joules=50.0))
    clock.now += 5
    ledger.on_failed(job.key, LOST)
    clock.now += 100  # it waits: nobody holds anything
    again = next(job for job in iter(ledger.next_job, None) if job.attempt == 2)
    clock.now += 7
    ledger.on_report(again.key, report(2, joules=30.0))
    ledger.on_completed(again.key, RESULT)
    spent = ledger.records[again.key].spent
    assert spent == {"seconds": 22.0, "cpu_seconds": 44.0, "gpu_seconds": 11.0, "joules": 80.0}


def test_running_attempts_count_up_to_now(tmp_path: Path, clock: Clock) -> None:
    ledger = open_ledger(tmp_path, limits__cpu_hours=1.0)
    ledger.next_job()
    ledger.next_job()
    clock.now += 1800
    assert ledger.meter.spending(ledger.records.values()).cpu_hours == pytest.approx(1.0)
    assert ledger.meter.in_words(ledger.records.values()) == "spent 1 of 1 CPU-hours"


def test_a_kill_of_the_driver_loses_only_what_came_after_the_last_report(tmp_path: Path, clock: Clock) -> None:
    ledger = open_ledger(tmp_path)
    job = ledger.next_job()
    assert job
    clock.now += 10
    ledger.on_report(job.key, report(1))
    clock.now += 3  # then it is killed
    ledger.store.close()
    clock.now += 1000
    reopened = open_ledger(tmp_path)
    assert reopened.records[job.key].spent["seconds"] == 10.0
    again = reopened.next_job()
    assert again
    assert again.key == job.key
    clock.now += 4
    reopened.on_stopped(again.key)
    assert reopened.records[job.key].spent["seconds"] == 14.0


def test_a_reached_limit_ends_the_sweep_and_a_higher_one_lets_it_go_on(tmp_path: Path, clock: Clock) -> None:
    ledger = open_ledger(tmp_path, limits__cpu_hours=0.01)
    job = ledger.next_job()
    assert job
    clock.now += 20
    ledger.check_limits()
    clock.now += 20
    with pytest.raises(LimitReachedError) as caught:
        ledger.check_limits()
    assert str(caught.value) == (
        "limits.cpu_hours is reached: 0.0111 of 0.01 CPU-hours spent. Raise it, and the same command goes on"
    )
    ledger.on_stopped(job.key)
    ledger.store.close()
    with pytest.raises(LimitReachedError):  # the records know it
        open_ledger(tmp_path, limits__cpu_hours=0.01).check_limits()
    higher = open_ledger(tmp_path, limits__cpu_hours=0.02)
    higher.check_limits()
    assert higher.next_job()


def test_a_limit_is_looked_at_once_a_second(tmp_path: Path, clock: Clock) -> None:
    ledger = open_ledger(tmp_path, limits__seconds=5.0)
    ledger.check_limits()
    ledger.meter.elapsed = lambda: 100.0
    ledger.check_limits()
    clock.now += 1.0
    with pytest.raises(LimitReachedError, match="100 of 5 seconds"):
        ledger.check_limits()


def test_money_is_hours_times_prices() -> None:
    spent = total([{"gpu_seconds": 7200.0, "cpu_seconds": 3600.0, "seconds": 3600.0}], 60.0, EURO)
    assert spent == Spending(gpu_hours=2.0, cpu_hours=1.0, seconds=60.0, energy_kwh=None, cost=4.5)
    assert "4.5 of 4 EUR" in limit_sentence(spent, {"cost": 4.0}, EURO)
    assert total([], 0.0, {}).cost is None
    assert total([{"joules": 3.6e6}, {"seconds": 1.0}], 0.0, {}).energy_kwh == 1.0


def test_what_is_not_reached_says_nothing_and_several_limits_are_all_named() -> None:
    spent = Spending(2.0, 1.0, 60.0, None, None)
    assert limit_sentence(spent, {"gpu_hours": 3.0, "cpu_hours": None, "energy_kwh": 1.0}, {}) == ""
    sentence = limit_sentence(spent, {"gpu_hours": 2.0, "seconds": 30.0}, {})
    assert sentence.startswith("limits.gpu_hours and limits.seconds are reached: 2 of 2 GPU-hours, 60 of 30 seconds")


def test_the_outlook_names_what_will_not_suffice() -> None:
    spent = Spending(1.0, 4.0, 600.0, None, None)
    said = outlook(spent, 5, 20, {"gpu_hours": 8.0, "cpu_hours": 8.0}, {})
    assert said == "by the 5 trials that have ended, all 20 will take about 16 CPU-hours (limits.cpu_hours is 8)"
    assert outlook(spent, 0, 20, {"cpu_hours": 8.0}, {}) == ""
    assert outlook(spent, 20, 20, {"cpu_hours": 8.0}, {}) == ""


def test_a_limit_in_money_needs_a_price(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"limits.cost: must be null where no price is given, got 5. Set prices"):
        experiment(tmp_path, limits__cost=5.0)
    assert experiment(tmp_path, limits__cost=5.0, prices__cpu_hour=0.1).spec.prices.currency == "USD"
    with pytest.raises(SpecError, match=r"limits.gpu_hours: must be > 0"):
        experiment(tmp_path, limits__gpu_hours=0.0)


def test_limits_and_prices_are_no_part_of_the_science(tmp_path: Path) -> None:
    free = experiment(tmp_path).spec.science()
    assert experiment(tmp_path, limits__seconds=5.0, prices__cpu_hour=1.0).spec.science() == free


def test_a_limit_in_energy_is_refused_without_a_gpu() -> None:
    check_energy(LimitSpec(), 0.0)
    with pytest.raises(SpecError, match=r"limits.energy_kwh: must be null where trials have no GPU, got 2"):
        check_energy(LimitSpec(energy_kwh=2.0), 0.0)


def test_energy_is_what_the_counters_of_a_workers_gpus_rose_by(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [FakeGpu(uuid="GPU-a", millijoules=5_000), FakeGpu(uuid="GPU-b", millijoules=7_000), FakeGpu(uuid="GPU-c")]
    FakeNvml(gpus).install(monkeypatch)
    both, shared = GpuEnergy(["GPU-a", "GPU-b"]), GpuEnergy(["GPU-a"], share=0.25)
    gpus[0].millijoules, gpus[1].millijoules, gpus[2].millijoules = 9_000, 8_000, 50_000
    assert both.joules() == pytest.approx(5.0)
    assert shared.joules() == pytest.approx(1.0)
    assert both.joules() == 0.0
    assert energy_problem() == ""


def test_a_gpu_without_an_energy_counter_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeNvml([FakeGpu(uuid="GPU-a"), FakeGpu(uuid="GPU-b", millijoules=None)]).install(monkeypatch)
    assert GpuEnergy(["GPU-a", "GPU-b"]).joules() is None
    assert energy_problem().startswith("NVML has no energy counter for GPU 1")
    FakeNvml(init=GPU_IS_LOST).install(monkeypatch)
    assert energy_problem() == "NVML does not answer there"
    assert GpuEnergy(["GPU-a"]).joules() is None


def test_the_report_says_what_was_spent_of_what_is_allowed(tmp_path: Path) -> None:
    spent = {"gpu_hours": 1.25, "cpu_hours": 3.0, "seconds": 600.0, "energy_kwh": None, "cost": 2.5}
    spent |= {"currency": "EUR", "limits": {"gpu_hours": 8.0, "cost": None, "seconds": 900.0}}
    assert spent_rows(spent) == [
        ["GPU-hours, over all attempts", "1.25 of 8"],
        ["CPU-hours, over all attempts", "3"],
        ["seconds of the driver", "600 of 900"],
        ["EUR, over all attempts", "2.5"],
    ]
    assert limits_line(spent) == " Spent: 1.25 of 8 GPU-hours, 600 of 900 seconds."
    assert "limits.seconds is reached" in limits_line({**spent, "seconds": 901.0})
    assert limits_line({}) == ""
    assert spent_rows({}) == []


def test_a_guard_that_ended_a_trial_is_in_its_record(tmp_path: Path, clock: Clock) -> None:
    ledger = open_ledger(tmp_path)
    job = ledger.next_job()
    assert job
    ledger.on_report(job.key, report(1))
    sentence = "plateau: 2 reports did not better the validation loss of 1, up to step 1"
    ledger.on_completed(job.key, replace(RESULT, ended_early=sentence))
    record = ledger.records[job.key]
    assert (record.state, record.reason) == ("completed", sentence)
    assert json.loads((ledger.store.trial_directory(job.key) / "trial.json").read_text())["reason"] == sentence


def test_the_report_shows_hours_limits_and_what_guards_ended(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path / "sweep", finished=False)
    asked = {"limits": {"gpu_hours": 0.5, "cpu_hours": None}, "prices": EURO}
    record = read_sweep_record(directory)
    write_json(directory / "sweep.json", replace(record, experiment={**record.experiment, **asked}))
    early = replace(replica("text", "hrm", 7, 0.2), reason="gap: it grew", spent={"gpu_seconds": 3600.0})
    write_trial(directory, early)
    found = write_report(load_sweep(directory), directory)
    assert found.spent["gpu_hours"] == 1.0
    assert found.spent["cost"] == 2.0
    assert found.spent["limits"] == asked["limits"]
    for name in ("report.md", "report.html"):
        text = (directory / name).read_text()
        assert "limits.gpu\\_hours is reached" in text or "limits.gpu_hours is reached" in text
        assert "1 of 0.5" in text
        assert "gap: it grew" in text
        assert "nor ended early by a guard" in text


def test_a_sweep_without_an_account_reports_as_before(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path / "sweep")
    found = write_report(load_sweep(directory), directory)
    text = (directory / "report.md").read_text()
    assert found.ended_early == []
    assert "over all attempts" not in text
    assert "guard" not in text
