"""Whatever dies, no finished step is lost, no trial is run twice, nothing is reported twice, the answer is the same.

Really done: the processes are killed by signals while they train. The sweeps are small, their trials take seconds.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from command import (
    STEADY,
    check_mlflow,
    command,
    kill,
    numbers,
    reports_of,
    run,
    same_weights,
    start,
    trials,
    wait_for,
)

TRIAL_TITLES = ("ray::TrialProcess", "ray::ResourceTrainable")
"""What Ray calls a process in which trials train: between two calls, and in one."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of a sweep that nothing disturbed."""
    root = tmp_path_factory.mktemp("undisturbed")
    (root / "steady.yaml").write_text(STEADY)
    run("sweep", root / "steady.yaml", "--storage", root)
    return root


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    (tmp_path / "steady.yaml").write_text(STEADY)
    return tmp_path


def sweep(storage: Path) -> tuple[str, Path, str, Path]:
    return ("sweep", storage / "steady.yaml", "--storage", storage)


def check_equal(storage: Path, undisturbed: Path) -> None:
    assert numbers(storage, "steady") == numbers(undisturbed, "steady")
    assert same_weights(storage, undisturbed, "steady", "steady")
    check_mlflow(storage, "steady")


def some_report(storage: Path, key: str, count: int) -> bool:
    return reports_of(storage, "steady", key) >= count


def worker_processes(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    """The Ray processes in which trials train."""
    family = psutil.Process(driver.pid).children(recursive=True)
    return [p for p in family if any(name in _title(p) for name in TRIAL_TITLES)]


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_a_killed_driver_costs_nothing_and_leaves_no_process(storage: Path, undisturbed: Path) -> None:
    driver = start(*sweep(storage))
    wait_for(lambda: some_report(storage, "hrm-search-0001", 2))
    family = psutil.Process(driver.pid).children(recursive=True)
    names = (*TRIAL_TITLES, "raylet/raylet", "gcs_server")  # Ray's agents take up to a minute to notice
    heavy = [p for p in family if any(name in _title(p) for name in names)]
    assert len(heavy) >= 3
    kill(driver)
    driver.wait(30)
    wait_for(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in heavy), 20)
    before = {key: t for key, t in trials(storage, "steady").items() if t.state in ("completed", "pruned")}
    run(*sweep(storage))
    check_equal(storage, undisturbed)
    after = trials(storage, "steady")
    assert all(after[key].attempts == record.attempts for key, record in before.items()), "a finished trial ran again"


def test_a_killed_trial_process_costs_no_step(storage: Path, undisturbed: Path) -> None:
    driver = start(*sweep(storage))
    wait_for(lambda: some_report(storage, "hrm-search-0000", 1))
    victims = wait_for(lambda: worker_processes(driver))
    os.kill(victims[0].pid, signal.SIGKILL)
    output, errors = driver.communicate(timeout=240)
    assert driver.returncode == 0, output + errors
    assert max(t.attempts for t in trials(storage, "steady").values()) == 2
    check_equal(storage, undisturbed)


def test_ctrl_c_saves_everything_and_the_same_command_goes_on(storage: Path, undisturbed: Path) -> None:
    driver = start(*sweep(storage))
    wait_for(lambda: some_report(storage, "hrm-search-0001", 1))
    os.killpg(driver.pid, signal.SIGINT)  # a terminal's Ctrl-C reaches the whole group
    output, errors = driver.communicate(timeout=60)
    assert driver.returncode == 130, output + errors
    assert "the same command goes on" in output
    states = {t.state for t in trials(storage, "steady").values()}
    assert "waiting" in states
    assert "running" not in states
    run(*sweep(storage))
    check_equal(storage, undisturbed)


def test_a_second_driver_on_one_sweep_is_refused_and_stop_ends_the_first(storage: Path, undisturbed: Path) -> None:
    driver = start(*sweep(storage))
    wait_for(lambda: some_report(storage, "hrm-search-0000", 1))
    second = subprocess.run(command(*sweep(storage)), capture_output=True, text=True, timeout=60)
    assert second.returncode == 2
    assert f"another driver is at work on this sweep (process {driver.pid} on" in second.stderr
    refused = subprocess.run(
        command("clean", "steady", "--storage", storage), capture_output=True, text=True, timeout=60
    )
    assert refused.returncode == 2
    assert "a driver is at work" in refused.stderr
    assert "stopped, everything saved" in run("stop", "steady", "--storage", storage)
    assert driver.wait(60) == 130
    run(*sweep(storage))
    check_equal(storage, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_driver_killed_at_random_moments_again_and_again(storage: Path, undisturbed: Path, seed: int) -> None:
    moments = random.Random(seed)
    for _ in range(6):
        driver = start(*sweep(storage))
        time.sleep(moments.uniform(1.0, 22.0))
        kill(driver)
        driver.wait(30)
    run(*sweep(storage))
    check_equal(storage, undisturbed)


@pytest.mark.slow
def test_a_killed_ray_train_worker_costs_no_step(storage: Path, undisturbed: Path) -> None:
    driver = start(*sweep(storage), "--set", "resources.launcher=ray_train")
    wait_for(lambda: some_report(storage, "hrm-search-0000", 1))
    family = psutil.Process(driver.pid).children(recursive=True)
    victim = next(p for p in family if "RayTrainWorker" in _title(p))
    os.kill(victim.pid, signal.SIGKILL)
    output, errors = driver.communicate(timeout=300)
    assert driver.returncode == 0, output + errors
    assert max(t.attempts for t in trials(storage, "steady").values()) == 2
    check_equal(storage, undisturbed)
