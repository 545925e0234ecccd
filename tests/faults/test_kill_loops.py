"""Many kills in one sweep, of anything that there is, at moments of a recorded seed; and other weather in mid-sweep.

Really done: signals, a real MLflow server that goes and comes. Fake: the clock that jumps is Python's `time.time` in
every process of the sweep, by a sitecustomize that adds an offset from a file.
"""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from command import numbers, run, start, trials, wait_for
from steady import (
    SERVERS,
    SLOT_TITLES,
    TRIAL_TITLES,
    check_equal,
    family,
    finish,
    has_reports,
    sweep,
    titled,
    wait_until_gone,
)

TWO_WORKERS = ("resources.workers_per_trial=2", "search.trials=2", "replicas.seeds=1", "resources.max_attempts=50")


@pytest.fixture(scope="module")
def undisturbed_pair(tmp_path_factory: pytest.TempPathFactory, undisturbed: Path) -> Path:
    """A smaller sweep whose trials have two workers."""
    root = tmp_path_factory.mktemp("pair")
    (root / "steady.yaml").write_text((undisturbed / "steady.yaml").read_text())
    run(*sweep(root, *TWO_WORKERS))
    return root


def disturb(storage: Path, settings: tuple[str, ...], seed: int, kills: int) -> list[str]:
    """Kill a worker, the driver and the raylet in any order, then any of them again and again, each soon after it is
    there, and let the sweep end. Gives what was killed."""
    chance = random.Random(seed)
    victims = chance.sample(["worker", "driver", "raylet"], 3)
    victims += chance.choices(["worker", "worker", "driver", "raylet"], k=kills - 3)
    killed: list[str] = []
    driver = start(*sweep(storage, *settings))
    seen: set[psutil.Process] = set()
    for victim in victims:
        while driver.poll() is None and not living(driver, victim):
            time.sleep(0.05)
        time.sleep(chance.uniform(0.0, 2.0))
        if driver.poll() is not None:
            break
        seen |= set(titled(family(driver), *TRIAL_TITLES, *SLOT_TITLES, *SERVERS))
        if found := living(driver, victim):
            chance.choice(found).kill()
            killed.append(victim)
        if victim == "driver":
            driver.wait(30)
            driver = start(*sweep(storage, *settings))
    finish(driver, seconds=300)
    wait_until_gone(list(seen))
    return killed


def living(driver: subprocess.Popen[str], victim: str) -> list[psutil.Process]:
    """What there is to kill now; of a raylet that is starting the driver would only say so and end."""
    if victim == "driver":
        return [psutil.Process(driver.pid)]
    there = family(driver)
    if victim == "worker":
        return titled(there, *TRIAL_TITLES, *SLOT_TITLES)
    return titled(there, "raylet/raylet") if titled(there, "ray::Pulse") else []


@pytest.mark.slow
def test_random_kills_of_worker_driver_and_raylet_change_nothing(storage: Path, undisturbed: Path) -> None:
    killed = disturb(storage, ("resources.max_attempts=50",), seed=5, kills=6)
    assert {"worker", "driver", "raylet"} <= set(killed), killed
    check_equal(storage, undisturbed)


@pytest.mark.slow
def test_random_kills_of_one_of_two_workers_change_nothing(storage: Path, undisturbed_pair: Path) -> None:
    killed = disturb(storage, TWO_WORKERS, seed=8, kills=3)
    assert "worker" in killed
    check_equal(storage, undisturbed_pair)


@contextmanager
def mlflow_server(storage: Path, port: int) -> Iterator[None]:
    where = ["--backend-store-uri", f"sqlite:///{storage / 'mlflow.db'}", "--artifacts-destination", str(storage / "a")]
    server = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port), *where],
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(lambda: answers(port))
        yield
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
def test_a_tracking_server_that_is_away_and_clocks_that_jump_change_nothing(storage: Path, undisturbed: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    offset = storage / "offset"
    offset.write_text("0")
    (storage / "sitecustomize.py").write_text(
        "import time\nreal = time.time\ndef jumping():\n"
        f"    with open({str(offset)!r}) as file:\n        return real() + float(file.read() or 0)\n"
        "time.time = jumping\n"
    )
    paths = os.pathsep.join(filter(None, [str(storage), os.environ.get("PYTHONPATH", "")]))
    tracker = f"trackers=[{{kind: mlflow, uri: 'http://127.0.0.1:{port}', model: false}}]"
    with mlflow_server(storage, port):
        driver = start(*sweep(storage, tracker), environment={"PYTHONPATH": paths})
        wait_for(lambda: has_reports(storage, "hrm-search-0000", 1), 150)
    offset.write_text("7200")
    wait_for(lambda: has_reports(storage, "hrm-search-0002", 1))
    offset.write_text("-7200")
    wait_for(lambda: has_reports(storage, "transformer-search-0000", 1))
    with mlflow_server(storage, port):
        if "the same command sends the rest" in finish(driver):  # the sweep ended soon after the server was back
            finish(start(*sweep(storage, tracker)))
    check_equal(storage, undisturbed)


ILL = """\
  exploding:
    patch: {optimizer: {epsilon: 1e-50}}
"""


@pytest.mark.slow
def test_a_trial_without_finite_numbers_fails_with_its_reason_and_leaves_the_others_alone(
    storage: Path, undisturbed: Path
) -> None:
    """Without an epsilon AdamW divides nothing by nothing where a gradient is zero: the second step is not finite."""
    text = (storage / "steady.yaml").read_text()
    (storage / "steady.yaml").write_text(text.replace("space:\n", ILL + "space:\n"))
    finish(start(*sweep(storage)), expect=1)
    found = trials(storage, "steady")
    ill = [trial for trial in found.values() if trial.arm == "exploding"]
    assert {(t.state, t.attempts, t.reason.split(":")[0]) for t in ill} == {("failed", 1, "not_finite")}
    expected = {key: value for key, value in numbers(undisturbed, "steady").items() if key.startswith("hrm-")}
    assert {key: value for key, value in numbers(storage, "steady").items() if key in expected} == expected
