"""SIGTERM with a grace period: what is being trained is saved at its present step, and nothing is repeated."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from command import kill, start, trials, wait_for
from steady import both_at_work, check_equal, finish, goes_on_where_it_was_saved, has_reports, sweep, workers

TOLD = """\
import os, signal, sys
from pathlib import Path
from orchestrator.heart import HEART

HEART.leave_on_sigterm()
HEART.take("x", 1, 0, None, Path(sys.argv[1]))
os.kill(os.getpid(), signal.SIGTERM)  # between two reports
print(HEART.told)
HEART.drop()
os.kill(os.getpid(), signal.SIGTERM)
print("still here")
"""


def test_sigterm_asks_a_process_with_an_attempt_to_leave_and_ends_one_without(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TOLD, tmp_path / "log.txt"], capture_output=True, text=True, timeout=50
    )
    assert (done.returncode, done.stdout) == (128 + signal.SIGTERM, "leave\n"), done.stderr


@pytest.mark.slow
def test_a_worker_that_is_told_to_leave_saves_and_its_trial_goes_on_exactly_there(
    storage: Path, undisturbed: Path
) -> None:
    driver = start(*sweep(storage, "resources.launcher=ray_train", "resources.max_attempts=1"))
    wait_for(lambda: both_at_work(storage), 150)
    for worker in workers(driver):
        worker.send_signal(signal.SIGTERM)
    finish(driver, seconds=300)  # with max_attempts=1 a loss would have failed the trial
    left = [k for k, trial in trials(storage, "steady").items() if trial.attempts == 2]
    assert any(goes_on_where_it_was_saved(storage, key) for key in left)
    check_equal(storage, undisturbed)


@pytest.mark.slow
def test_a_driver_that_is_told_to_leave_saves_within_its_grace_period(storage: Path, undisturbed: Path) -> None:
    driver = start(*sweep(storage))
    wait_for(lambda: has_reports(storage, "hrm-search-0000", 1))
    began = time.monotonic()
    kill(driver, signal.SIGTERM)
    finish(driver, expect=130, seconds=90)
    assert time.monotonic() - began < 30
    waiting = [k for k, trial in trials(storage, "steady").items() if (trial.state, trial.attempts) == ("waiting", 1)]
    assert waiting
    finish(start(*sweep(storage)))
    assert all(goes_on_where_it_was_saved(storage, key) for key in waiting)
    check_equal(storage, undisturbed)
