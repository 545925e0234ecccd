"""What a sweep will take: a calibration that really trains, and the arithmetic from arms to the sweep."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import MakeTrial
from small_experiment import experiment

from orchestrator.calibration import Bench, Calibration, calibrate
from orchestrator.dry_run import _drawn
from orchestrator.forecast import ArmForecast, Start, assemble, in_words
from orchestrator.resources import Resources

ARM = ArmForecast(
    task="text",
    arm="plain",
    configurations=3,
    step_seconds=0.1,
    steps=100.0,
    search_seconds=10.0,
    pruned_share=0.25,
    pruned_seconds=3.0,
    replica_seconds=12.0,
    flops=1e9,
    checkpoint_bytes=1000,
    watts=None,
    refused=(),
)
AT_ONCE = Start(0.0, 0.0)
PARTS = Calibration(
    began=0.0,
    start_seconds=1.0,
    first_step_seconds=5.0,
    step_seconds=0.1,
    steps=101.0,
    validation_seconds=0.5,
    checkpoint_seconds=0.25,
    num_reports=4,
    test_seconds=2.0,
    flops=1e9,
    checkpoint_bytes=1000,
    watts=None,
)


def resources(**fields: Any) -> Resources:
    return Resources(**{"cpus_per_worker": 2, "gpus_per_worker": 0.5, "workers_per_trial": 2, **fields})


def test_a_calibration_trains_the_trial_and_leaves_nothing(make_trial: MakeTrial, data_root: Path) -> None:
    data = make_trial(budget={"axis": "steps", "amount": 500}).model_dump(mode="json")
    before = sorted(data_root.rglob("*"))
    found = calibrate(data, Bench(str(data_root), 1, "never", 1, 0.0), test=True)
    assert found.steps == 500
    assert min(found.start_seconds, found.step_seconds, found.validation_seconds, found.test_seconds) > 0
    assert found.seconds() > 499 * found.step_seconds
    assert found.seconds(test=True) == pytest.approx(found.seconds() + found.test_seconds)
    assert found.checkpoint_bytes > 1000
    assert found.watts is None
    assert sorted(data_root.rglob("*")) == before


def test_a_budget_in_seconds_gives_the_steps(make_trial: MakeTrial, data_root: Path) -> None:
    data = make_trial(budget={"axis": "seconds", "amount": 30.0}).model_dump(mode="json")
    found = calibrate(data, Bench(str(data_root), 1, "never", 1, 0.0), test=False)
    assert found.steps * found.step_seconds == pytest.approx(30.0)
    assert found.test_seconds == 0.0


def test_a_worker_of_two_takes_half_of_the_batch(make_trial: MakeTrial, data_root: Path) -> None:
    data = make_trial(batch_size=32).model_dump(mode="json")
    one, two = (calibrate(data, Bench(str(data_root), 1, "never", workers, 0.0), test=False) for workers in (1, 2))
    assert two.checkpoint_bytes < one.checkpoint_bytes  # half of the carry
    assert two.steps == one.steps


def test_the_parts_of_a_trial_make_its_time() -> None:
    assert PARTS.seconds() == pytest.approx(1 + 5 + 100 * 0.1 + 4 * 0.75)
    assert PARTS.seconds(test=True) == pytest.approx(PARTS.seconds() + 2.0)
    assert PARTS.seconds(0.25) == pytest.approx(1 + 5 + 24.25 * 0.1 + 0.75)


def test_the_whole_is_the_sum_of_its_trials(tmp_path: Path) -> None:
    spec = experiment(tmp_path, search__deterministic=False, search__pruner={"kind": "none"}).spec
    found = assemble(spec, [ARM, replace(ARM, arm="control")], resources(), 4, Start(connect=7.0, process=3.0))
    busy = 2 * (6 * 10 + 2 * 12) + 4 * 3  # four processes start
    assert (found.search_trials, found.replicas) == (12, 4)
    assert found.without_pruning.spending.seconds == pytest.approx(7 + busy / 4)
    assert found.without_pruning.spending.cpu_hours == pytest.approx(busy * 4 / 3600)
    assert found.without_pruning.spending.gpu_hours == pytest.approx(busy / 3600)
    assert found.without_pruning.flops == pytest.approx(2 * 8 * 1e9)
    assert found.most_pruned == found.without_pruning
    assert found.disk_bytes == 2 * 1000 * 4 + 4 * 4 * 1000


def test_pruning_saves_all_but_what_it_compares_with(tmp_path: Path) -> None:
    free = experiment(tmp_path, search__deterministic=False).spec
    assert assemble(free, [ARM], resources(), 1, AT_ONCE).most_pruned.spending.seconds == pytest.approx(10 + 5 * 3 + 24)
    fixed = experiment(tmp_path).spec  # three trials are a generation
    assert assemble(fixed, [ARM], resources(), 1, AT_ONCE).most_pruned.spending.seconds == pytest.approx(
        30 + 3 * 3 + 24
    )
    assert assemble(fixed, [ARM], resources(), 1, AT_ONCE).most_pruned.flops == pytest.approx((3 + 2 + 3 * 0.25) * 1e9)


def test_one_arm_cannot_use_more_places_than_it_has_trials(tmp_path: Path) -> None:
    spec = experiment(tmp_path, search__pruner={"kind": "none"}).spec  # generations of three
    assert assemble(spec, [ARM], resources(), 100, AT_ONCE).without_pruning.spending.seconds == pytest.approx(20 + 12)


def test_energy_is_known_where_every_arm_measured_it(tmp_path: Path) -> None:
    spec = experiment(tmp_path, search__pruner={"kind": "none"}, replicas__seeds=0).spec
    hot = replace(ARM, watts=300.0)
    spent = assemble(spec, [hot], resources(), 1, AT_ONCE).without_pruning.spending
    assert spent.energy_kwh == pytest.approx(300 * 2 * 60 / 3.6e6)
    assert assemble(spec, [hot, ARM], resources(), 1, AT_ONCE).without_pruning.spending.energy_kwh is None


def test_the_forecast_is_held_against_the_limits(tmp_path: Path) -> None:
    limits = {"seconds": 60.0, "cpu_hours": 0.01, "gpu_hours": 9.0, "energy_kwh": 1.0}
    spec = experiment(tmp_path, search__deterministic=False, limits=limits, prices={"gpu_hour": 3.0}).spec
    found = assemble(spec, [ARM], resources(), 1, AT_ONCE)
    assert found.limits == (
        "limits.gpu_hours of 9 GPU-hours is enough: 0.0233 at most",
        "limits.cpu_hours of 0.01 CPU-hours will be reached before the end: 0.0544 to 0.0933 are needed",
        "limits.seconds of 60 seconds may be reached before the end: 49 to 84 are needed",
        "limits.energy_kwh of 1 kWh is not known beforehand here",
    )
    words = "\n".join(in_words(found, spec))
    assert "6 search trials and 2 replicas, 1 at a time" in words
    assert "49 s to 1 min 24 s" in words
    assert "USD" in words


def test_configurations_come_from_the_space_or_are_the_arm_itself(tmp_path: Path) -> None:
    loaded = experiment(tmp_path)
    drawn = _drawn(loaded.arms[0], loaded.spec)
    assert len({trial.hash() for trial in drawn}) == 3
    assert drawn == _drawn(loaded.arms[0], loaded.spec)
    alone = replace(loaded.arms[0], space={})
    assert [trial.batch_size for trial in _drawn(alone, loaded.spec)] == [4]


def test_trials_in_processes_of_their_own_all_pay_for_the_start(tmp_path: Path) -> None:
    spec = experiment(tmp_path, search__pruner={"kind": "none"}).spec
    shared, own = (
        assemble(spec, [ARM], resources(isolation=isolation), 2, Start(0.0, 5.0)).without_pruning.spending
        for isolation in ("shared", "process")
    )
    assert own.cpu_hours - shared.cpu_hours == pytest.approx((8 - 2) * 5 * 4 / 3600)
