"""What gives no sign of life is ended, with its stacks in the trial's log, and the trial goes on elsewhere.

Really done: a process that sleeps in a step, and processes frozen by SIGSTOP while they train.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from command import start, trials, wait_for
from steady import check_equal, finish, has_reports, is_gone, sweep, workers

from orchestrator.pulse import Beat, Pulse

HANGING = """\
import sys, time
from pathlib import Path
from orchestrator.heart import HEART

def a_step_that_never_ends():
    time.sleep(60)

HEART.take("x", 1, 0, 0.5, Path(sys.argv[1]))
time.sleep(1.0)  # waits for the driver: nobody minds
with HEART.at_work():
    for _ in range(8):
        time.sleep(0.1)
        HEART.beat()
    a_step_that_never_ends()
"""


def test_a_step_that_never_ends_leaves_the_stacks_and_ends_the_process(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    done = subprocess.run([sys.executable, "-c", HANGING, log], timeout=50)
    assert done.returncode == 1
    assert "Timeout" in log.read_text()
    assert "a_step_that_never_ends" in log.read_text()


def beat(**fields: object) -> Beat:
    return Beat(**{"key": "x", "attempt": 1, "rank": 0, "node": "n", "pid": 7, "idle": 0.0, **fields})  # type: ignore[arg-type]


def test_the_pulse_knows_the_newest_attempt_and_tells_what_is_outdated_to_leave() -> None:
    pulse = Pulse()
    assert pulse.beat(beat()) == ""
    assert pulse.beat(beat(attempt=2, rank=1)) == ""
    assert pulse.beat(beat()) == "leave"
    assert [silence.beat for silence in pulse.look([], False, ["x"])["x"]] == [beat(attempt=2, rank=1)]
    assert pulse.look([], False, []) == {}


def test_the_pulse_tells_workers_of_a_leaving_node_to_leave_and_all_of_them_of_a_stop() -> None:
    pulse = Pulse()
    pulse.look(["n"], False, ["x"])
    assert pulse.beat(beat()) == "leave"
    assert pulse.beat(beat(node="other")) == ""
    pulse.look([], True, ["x"])
    assert pulse.beat(beat(node="other")) == "stop"


def test_time_in_which_the_driver_did_not_look_makes_nobody_look_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("orchestrator.pulse.time.monotonic", lambda: now)  # the clock is fake
    pulse = Pulse()
    pulse.beat(beat(idle=2.0))
    now = 5.0
    assert pulse.look([], False, ["x"])["x"][0].seconds == 7.0
    now = 5000.0  # the whole machine was frozen
    assert pulse.look([], False, ["x"])["x"][0].seconds < 20.0


@pytest.mark.slow
def test_a_frozen_trial_process_is_ended_and_its_trial_goes_on(storage: Path, undisturbed: Path) -> None:
    driver = start(*sweep(storage, "resources.hang_seconds=12"))
    wait_for(lambda: has_reports(storage, "hrm-search-0000", 1))
    frozen = workers(driver)[0]
    os.kill(frozen.pid, signal.SIGSTOP)
    wait_for(lambda: is_gone(frozen), 90)
    finish(driver)
    assert max(t.attempts for t in trials(storage, "steady").values()) == 2
    check_equal(storage, undisturbed)


@pytest.mark.slow
def test_trials_that_hang_again_and_again_fail_as_hung(storage: Path) -> None:
    """One of two workers is frozen: the other hangs in a collective, and its watchdog writes where."""
    settings = ("resources.workers_per_trial=2", "resources.hang_seconds=12", "resources.max_attempts=1")
    endless = ("budget.amount=100_000", "resources.compile=never")
    driver = start(*sweep(storage, *settings, "search.trials=1", "replicas.seeds=0", *endless))
    key = "hrm-search-0000"
    wait_for(lambda: has_reports(storage, key, 1) or len(workers(driver)) == 2)
    wait_for(lambda: "begins" in (storage / "sweeps/steady/trials" / key / "log.txt").read_text())
    os.kill(workers(driver)[1].pid, signal.SIGSTOP)
    wait_for(lambda: trials(storage, "steady")[key].state == "failed", 120)
    assert trials(storage, "steady")[key].reason.startswith("hung: no step for ")
    log = (storage / "sweeps/steady/trials" / key / "log.txt").read_text()
    assert "Timeout" in log
    assert "all_reduce" in log
    driver.kill()
