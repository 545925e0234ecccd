"""Whatever dies, no finished step is lost, no trial is run twice, nothing is reported twice, the answer is the same.

Really done: the processes are killed by signals while they train. The sweeps are small, their trials take seconds.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
from command import command, kill, run, start, trials, wait_for
from steady import SERVERS, TRIAL_TITLES, check_equal, family, finish, has_reports, sweep, titled, wait_until_gone
from steady import workers as workers_of


def test_a_killed_driver_costs_nothing_and_leaves_no_process(storage: Path, undisturbed: Path) -> None:
    driver = start(*sweep(storage))
    wait_for(lambda: has_reports(storage, "hrm-search-0001", 2))
    heavy = titled(family(driver), *TRIAL_TITLES, *SERVERS)
    assert len(heavy) >= 3
    kill(driver)
    driver.wait(30)
    wait_until_gone(heavy, 20)
    before = {key: t for key, t in trials(storage, "steady").items() if t.state in ("completed", "pruned")}
    run(*sweep(storage))
    check_equal(storage, undisturbed)
    after = trials(storage, "steady")
    assert all(after[key].attempts == record.attempts for key, record in before.items()), "a finished trial ran again"


def test_a_killed_trial_process_costs_no_step(storage: Path, undisturbed: Path) -> None:
    driver = start(*sweep(storage))
    wait_for(lambda: has_reports(storage, "hrm-search-0000", 1))
    os.kill(workers_of(driver)[0].pid, signal.SIGKILL)
    finish(driver)
    assert max(t.attempts for t in trials(storage, "steady").values()) == 2
    check_equal(storage, undisturbed)


@pytest.mark.slow
def test_ctrl_c_saves_everything_and_the_same_command_goes_on(storage: Path, undisturbed: Path) -> None:
    driver = start(*sweep(storage))
    wait_for(lambda: has_reports(storage, "hrm-search-0001", 1))
    os.killpg(driver.pid, signal.SIGINT)  # a terminal's Ctrl-C reaches the whole group
    assert "the same command goes on" in finish(driver, expect=130, seconds=90)
    states = {t.state for t in trials(storage, "steady").values()}
    assert "waiting" in states
    assert "running" not in states
    run(*sweep(storage))
    check_equal(storage, undisturbed)


def test_a_second_driver_on_one_sweep_is_refused_and_stop_ends_the_first(storage: Path) -> None:
    endless = ("budget.amount=1_000_000", "base.num_reports=100_000", "resources.compile=never")
    driver = start(*sweep(storage, *endless))
    wait_for(lambda: has_reports(storage, "hrm-search-0000", 1))
    second = subprocess.run(command(*sweep(storage)), capture_output=True, text=True, timeout=150)
    assert second.returncode == 2
    assert f"another driver is at work on this sweep (process {driver.pid} on" in second.stderr
    refused = subprocess.run(
        command("clean", "steady", "--storage", storage), capture_output=True, text=True, timeout=150
    )
    assert refused.returncode == 2
    assert "a driver is at work" in refused.stderr
    assert "stopped, everything saved" in run("stop", "steady", "--storage", storage)
    assert driver.wait(90) == 130
    assert {trial.state for trial in trials(storage, "steady").values()} == {"waiting"}
    assert list((storage / "sweeps/steady/trials/hrm-search-0000/attempts/1").glob("step-*"))
