"""The mirror in front of the MLflow tracker, with real MLflow: on a database, and on a server that starts late.

Whatever is killed, down or broken, training waits for nothing and the tracker catches up. The sweeps are synthetic
(mlflow_sweep.py).
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow_sweep import runs_of, steps_of, tracker_of, write_five_trials, write_sweep, write_trial

from orchestrator.trackers.mirror import Mirror
from orchestrator.trackers.mlflow import MlflowSpec


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One storage root, thus one database, for all sweeps of this file: creating a database costs 2 seconds."""
    return tmp_path_factory.mktemp("storage")


@pytest.fixture
def sweep(storage: Path, request: pytest.FixtureRequest) -> Path:
    """A sweep directory with a completed, a pruned, a failed, a running and a waiting trial."""
    return write_five_trials(storage / "sweeps" / request.node.name)


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_a_mirror_sends_what_changes(sweep: Path) -> None:
    tracker = tracker_of(sweep)
    mirror = Mirror(tracker, sweep, interval_seconds=0.05)
    wait_until(lambda: tracker.run_id("baseline-search-0003") != "")
    write_trial(sweep, "baseline-search-0003", state="completed", reports=2)
    mirror.changed("baseline-search-0003")
    write_trial(sweep, "baseline-search-0004", state="running", reports=1)
    mirror.changed("baseline-search-0004")
    write_sweep(sweep, finished=True)
    mirror.changed_sweep()
    mirror.finish([])
    assert mirror.close(30)
    assert mirror.failures == 0
    parent, trials = runs_of(tracker.uri, sweep)
    assert parent.info.status == trials["baseline-search-0003"].info.status == "FINISHED"
    assert steps_of(tracker.uri, trials["baseline-search-0003"], "train/loss") == list(range(1, 11))
    assert trials["baseline-search-0004"].info.status == "RUNNING"


KILLED_DRIVER = """
import os, signal, sys, time
from pathlib import Path
from orchestrator.trackers.mirror import Mirror
from orchestrator.trackers.mlflow import MlflowSpec

tracker = MlflowSpec().build(Path(sys.argv[1]))
mirror = Mirror(tracker, Path(sys.argv[1]))
while not tracker.run_id(sys.argv[2]):
    time.sleep(0.001)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_driver_leaves_a_gap_that_the_next_one_fills(sweep: Path) -> None:
    for key in ("baseline-search-0000", "baseline-search-0003"):
        ended = subprocess.run([sys.executable, "-c", KILLED_DRIVER, str(sweep), key], timeout=120, check=False)
        assert ended.returncode == -9
    tracker = tracker_of(sweep)
    assert Mirror(tracker, sweep).close(30)
    _, trials = runs_of(tracker.uri, sweep)
    assert len(trials) == 4
    assert steps_of(tracker.uri, trials["baseline-search-0000"], "train/loss") == list(range(1, 11))
    assert trials["baseline-search-0000"].info.status == "FINISHED"
    assert steps_of(tracker.uri, trials["baseline-search-0003"], "train/loss") == list(range(1, 6))


def test_one_trial_that_cannot_be_sent_holds_up_no_other(sweep: Path) -> None:
    broken = sweep / "trials/baseline-search-0000/records.jsonl"
    whole = broken.read_text()
    broken.write_text("not JSON\n")
    tracker = tracker_of(sweep)
    mirror = Mirror(tracker, sweep)
    assert not mirror.close(60)
    assert mirror.failures > 0
    assert "baseline-search-0000" in mirror.last_error
    assert set(runs_of(tracker.uri, sweep)[1]) == {f"baseline-search-{number:04}" for number in (1, 2, 3)}
    broken.write_text(whole)
    assert Mirror(tracker_of(sweep), sweep).close(60)
    assert len(runs_of(tracker.uri, sweep)[1]) == 4


class Server:
    """An MLflow server of one worker that can be started and killed; it takes 5 to 15 seconds to answer."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/server.db", "--workers", "1"]
        command += ["--artifacts-destination", str(self.folder / "artifacts")]
        environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        wait_until(lambda: answers(self.uri), seconds=90)

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that does not run yet."""
    server = Server(tmp_path)
    yield server
    server.kill()


def answers(uri: str) -> bool:
    try:
        with urllib.request.urlopen(f"{uri}/health", timeout=1) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def test_a_tracker_that_is_down_blocks_nothing_and_catches_up(
    sweep: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    key = "baseline-search-0003"
    tracker = MlflowSpec(uri=server.uri).build(sweep)
    assert tracker.ui_command == server.uri
    mirror = Mirror(tracker, sweep, interval_seconds=0.05, longest_pause_seconds=0.5)
    wait_until(lambda: mirror.failures >= 2, seconds=60)
    began = time.monotonic()
    for reports in range(1, 11):
        write_trial(sweep, key, state="running", reports=reports)
        mirror.changed(key)
        mirror.changed_sweep()
    assert time.monotonic() - began < 1.0
    assert len([entry for entry in caplog.records if entry.levelno == logging.WARNING]) == 1, "one warning per outage"
    server.start()
    wait_until(lambda: tracker.run_id(key) != "")

    server.kill()
    write_trial(sweep, key, state="completed", reports=12)
    mirror.changed(key)
    before = mirror.failures
    wait_until(lambda: mirror.failures > before)
    server.start()
    (sweep / "report.html").write_text("<html></html>")
    write_sweep(sweep, finished=True)
    mirror.finish([sweep / "report.html"])
    assert mirror.close(60)

    parent, trials = runs_of(server.uri, sweep)
    assert len(trials) == 4
    assert steps_of(server.uri, trials[key], "train/loss") == list(range(1, 61))
    assert parent.info.status == trials[key].info.status == "FINISHED"
    files = {file.path for file in MlflowClient(server.uri).list_artifacts(parent.info.run_id)}
    assert files == {"experiment.json", "experiment.yaml", "report.html", "sweep.json"}


def test_closing_does_not_wait_for_a_tracker_that_is_down(sweep: Path, server: Server) -> None:
    mirror = Mirror(MlflowSpec(uri=server.uri).build(sweep), sweep)
    wait_until(lambda: mirror.failures >= 1, seconds=60)
    began = time.monotonic()
    assert not mirror.close(60)
    assert time.monotonic() - began < 15
