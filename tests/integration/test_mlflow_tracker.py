"""The MLflow tracker and its mirror, with real MLflow: on a database, and on a server that starts late.

The sweeps are synthetic: the files of a sweep directory are written by hand, since they are all that a tracker reads.
"""

from __future__ import annotations

import dataclasses
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
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from analysis.records import SweepRecord, TrialRecord, read_sweep_record, read_trial_records, write_json
from hrm.records import Progress, Report, StepRecord, read_reports
from hrm.variants import discover
from orchestrator.trackers import Tracker, TrackerSpec
from orchestrator.trackers.mirror import Mirror
from orchestrator.trackers.mlflow import MlflowSpec, MlflowTracker
from orchestrator.trackers.mlflow_view import Point, batches_of, flatten, points_of

START = 1_700_000_000.0
STEPS_PER_REPORT = 5


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One storage root, thus one database, for all sweeps of this file: creating a database costs 2 seconds."""
    return tmp_path_factory.mktemp("storage")


@pytest.fixture
def sweep(storage: Path, request: pytest.FixtureRequest) -> Path:
    """A sweep directory with a completed, a pruned, a failed, a running and a waiting trial."""
    directory = storage / "sweeps" / request.node.name
    write_sweep(directory)
    write_trial(directory, "baseline-search-0000", state="completed", reports=2, objective=0.5)
    write_trial(directory, "baseline-search-0001", state="pruned", reports=1, reason="worse than the median at step 5")
    write_trial(directory, "baseline-search-0002", state="failed", reports=1, reason="diverged: loss is nan")
    write_trial(directory, "baseline-search-0003", state="running", reports=1)
    write_trial(directory, "baseline-search-0004", state="waiting", reports=0, started=None)
    return directory


def write_sweep(directory: Path, **changes: Any) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    record = SweepRecord(
        name="demo",
        question="Which change makes it learn?",
        experiment={"name": "demo", "base": {"optimizer": {"kind": "adamw"}}, "replicas": 2},
        arms=["baseline"],
        tasks=["text"],
        metric="loss",
        direction="minimize",
        budget={"axis": "steps", "amount": 10},
        planned_trials=5,
        datasets={"text": {"recipe": "datasets/text.yaml", "fingerprint": "abc123", "rows": {"train": 8}}},
        command="python -m orchestrator sweep experiments/demo.yaml",
        code={"commit": "0123abcd", "dirty": True},
        environment={"python": "3.11.7", "cores": 2},
        created=START,
    )
    write_json(directory / "sweep.json", dataclasses.replace(record, **changes))


def write_trial(directory: Path, key: str, reports: int, **changes: Any) -> None:
    folder = directory / "trials" / key
    folder.mkdir(parents=True, exist_ok=True)
    arm, phase, number = key.rsplit("-", 2)
    state = changes.get("state", "running")
    record = TrialRecord(
        key=key,
        task="text",
        arm=arm,
        phase="search" if phase == "search" else "replica",
        number=int(number),
        trial_id=f"id{number}",
        spec={"seed": int(number) + 7, "data": {"batch_size": 4}, "model": {"kind": "hrm", "num_layers": 2}},
        parameters={"model.num_layers": 2},
        attempts=1,
        started=START + int(number),
        ended=START + 60 if state in ("completed", "pruned", "failed") else None,
        num_parameters=123,
        resolved={"precision": "float32"},
        result=result_of(reports) if state == "completed" else None,
    )
    write_json(folder / "trial.json", dataclasses.replace(record, **changes))
    lines = [report_at(index).to_json() + "\n" for index in range(1, reports + 1)]
    (folder / "records.jsonl").write_text("".join(lines))


def report_at(index: int) -> Report:
    steps = tuple(
        StepRecord(progress_at(step), START + step, {"loss": 1 / step, "learning_rate": 0.1, "gradient_norm": 1.0})
        for step in range((index - 1) * STEPS_PER_REPORT + 1, index * STEPS_PER_REPORT + 1)
    )
    last = index * STEPS_PER_REPORT
    return Report(index, progress_at(last), START + last, {"loss": 1 / last}, steps, {"cpu_percent": 50.0})


def progress_at(step: int) -> Progress:
    return Progress(step, 4 * step, 64 * step, 1e3 * step, 0.1 * step)


def result_of(reports: int) -> dict[str, Any]:
    last = reports * STEPS_PER_REPORT
    return {
        "progress": dataclasses.asdict(progress_at(last)),
        "best_step": last,
        "best_checkpoint": "attempts/1/step-00000010",
        "best_validation": {"loss": 0.5},
        "test": {"loss": 0.6},
    }


def tracker_of(directory: Path) -> MlflowTracker:
    return MlflowSpec().build(directory)


def sync_all(tracker: Tracker, directory: Path) -> None:
    tracker.sync_sweep(read_sweep_record(directory))
    for record in read_trial_records(directory):
        tracker.sync_trial(record, list(read_reports(directory / "trials" / record.key / "records.jsonl")))


def runs_of(uri: str, directory: Path) -> tuple[Run, dict[str, Run]]:
    """The parent run of the sweep and its trials' runs by key; fails when anything exists twice."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("hrm")
    assert experiment is not None
    every = client.search_runs([experiment.experiment_id])
    parents = [run for run in every if run.data.tags.get("sweep_id", "").startswith(f"{directory.name}-")]
    assert len(parents) == 1
    children = [run for run in every if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    by_key = {run.data.tags["trial_key"]: run for run in children}
    assert len(by_key) == len(children)
    return parents[0], by_key


def steps_of(uri: str, run: Run, metric: str) -> list[int]:
    return [entry.step for entry in MlflowClient(uri).get_metric_history(run.info.run_id, metric)]


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_two_processes_make_one_run_per_trial(sweep: Path) -> None:
    first, second = tracker_of(sweep), tracker_of(sweep)
    sync_all(first, sweep)
    sync_all(second, sweep)
    _, trials = runs_of(first.uri, sweep)
    assert sorted(trials) == [f"baseline-search-{number:04}" for number in range(4)], "a waiting trial has no run"
    for key, run in trials.items():
        assert first.run_id(key) == second.run_id(key) == run.info.run_id
    assert first.run_id("baseline-search-0004") == ""


def test_a_replayed_step_is_written_once(sweep: Path) -> None:
    key = "baseline-search-0003"
    sync_all(tracker_of(sweep), sweep)
    write_trial(sweep, key, state="running", reports=3)
    tracker = tracker_of(sweep)
    sync_all(tracker, sweep)
    sync_all(tracker, sweep)
    sync_all(tracker_of(sweep), sweep)
    _, trials = runs_of(tracker.uri, sweep)
    for metric in ("train/loss", "train/learning_rate", "progress/examples"):
        assert steps_of(tracker.uri, trials[key], metric) == list(range(1, 16))
    for metric in ("validation/loss", "system/cpu_percent", "progress/tokens", "progress/flops", "progress/seconds"):
        assert steps_of(tracker.uri, trials[key], metric) == [5, 10, 15]


def test_a_trial_ends_as_it_ended(sweep: Path) -> None:
    tracker = tracker_of(sweep)
    sync_all(tracker, sweep)
    sync_all(tracker_of(sweep), sweep)
    parent, trials = runs_of(tracker.uri, sweep)
    statuses = [run.info.status for _, run in sorted(trials.items())]
    assert statuses == ["FINISHED", "KILLED", "FAILED", "RUNNING"]
    assert parent.info.status == "RUNNING"
    pruned = trials["baseline-search-0001"]
    assert pruned.data.tags["state"] == "pruned"
    assert pruned.data.tags["reason"] == "worse than the median at step 5"
    assert pruned.info.end_time == (START + 60) * 1000
    completed = trials["baseline-search-0000"]
    assert completed.data.metrics["test/loss"] == 0.6
    assert completed.data.metrics["best/loss"] == 0.5
    assert steps_of(tracker.uri, completed, "test/loss") == [10]


def test_a_failed_trial_that_is_retried_runs_again(sweep: Path) -> None:
    key = "baseline-search-0002"
    sync_all(tracker_of(sweep), sweep)
    write_trial(sweep, key, state="running", reports=2, attempts=2)
    tracker = tracker_of(sweep)
    sync_all(tracker, sweep)
    run = runs_of(tracker.uri, sweep)[1][key]
    assert (run.info.status, run.data.tags["state"], run.data.tags.get("reason", "")) == ("RUNNING", "running", "")
    write_trial(sweep, key, state="completed", reports=3, attempts=2, ended=START + 99)
    sync_all(tracker, sweep)
    run = runs_of(tracker.uri, sweep)[1][key]
    assert (run.info.status, run.info.end_time) == ("FINISHED", (START + 99) * 1000)
    assert steps_of(tracker.uri, run, "train/loss") == list(range(1, 16))


def test_names_parameters_and_tags_say_what_a_run_is(sweep: Path) -> None:
    write_trial(sweep, "transformer-replica-0001", state="running", reports=1, source="baseline-search-0000")
    tracker = tracker_of(sweep)
    sync_all(tracker, sweep)
    parent, trials = runs_of(tracker.uri, sweep)
    assert parent.info.run_name == "demo"
    assert parent.data.tags["question"] == parent.data.tags["mlflow.note.content"] == "Which change makes it learn?"
    assert parent.data.tags["git_commit"] == "0123abcd"
    assert parent.data.tags["git_dirty"] == "true"
    assert parent.data.params["base.optimizer.kind"] == "adamw"
    search, replica = trials["baseline-search-0003"], trials["transformer-replica-0001"]
    assert search.info.run_name == "baseline search 3"
    assert replica.info.run_name == "transformer replica seed 8"
    expected = {"arm": "baseline", "task": "text", "seed": "10", "batch_size": "4", "model.num_layers": "2"}
    assert expected.items() <= search.data.params.items()
    assert search.data.params["spec.model.kind"] == "hrm"
    tags = {"trial_id": "id0003", "phase": "search", "dataset_fingerprint": "abc123", "resolved.precision": "float32"}
    assert tags.items() <= search.data.tags.items()


def test_finish_sends_the_files_and_ends_the_sweep(sweep: Path) -> None:
    (sweep / "report.html").write_text("<html></html>")
    checkpoint = sweep / "trials/baseline-search-0000/attempts/1/step-00000010"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text("{}")
    tracker = tracker_of(sweep)
    write_sweep(sweep, finished=True)
    for _ in range(2):
        sync_all(tracker, sweep)
        tracker.finish(read_sweep_record(sweep), [sweep / "report.html", sweep / "report.md", checkpoint])
    parent, _ = runs_of(tracker.uri, sweep)
    assert parent.info.status == "FINISHED"
    client = MlflowClient(tracker.uri)
    assert {file.path for file in client.list_artifacts(parent.info.run_id)} == {
        "experiment.json",
        "experiment.yaml",
        "report.html",
        "trials",
    }
    inside = client.list_artifacts(parent.info.run_id, "trials/baseline-search-0000/attempts/1/step-00000010")
    assert [Path(file.path).name for file in inside] == ["manifest.json"]
    assert "mlartifacts" in parent.info.artifact_uri


def test_a_stopped_sweep_is_shown_as_stopped_until_it_goes_on(sweep: Path) -> None:
    tracker = tracker_of(sweep)
    tracker.finish(read_sweep_record(sweep), [])
    assert runs_of(tracker.uri, sweep)[0].info.status == "KILLED"
    tracker_of(sweep).sync_sweep(read_sweep_record(sweep))
    assert runs_of(tracker.uri, sweep)[0].info.status == "RUNNING"


def test_the_global_state_of_mlflow_is_left_alone(sweep: Path) -> None:
    before = mlflow.get_tracking_uri()
    sync_all(tracker_of(sweep), sweep)
    assert mlflow.get_tracking_uri() == before
    assert mlflow.active_run() is None


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
    assert files == {"experiment.json", "experiment.yaml", "report.html"}


def test_closing_does_not_wait_for_a_tracker_that_is_down(sweep: Path, server: Server) -> None:
    mirror = Mirror(MlflowSpec(uri=server.uri).build(sweep), sweep)
    wait_until(lambda: mirror.failures >= 1, seconds=60)
    began = time.monotonic()
    assert not mirror.close(60)
    assert time.monotonic() - began < 15


def test_batches_are_cut_between_steps() -> None:
    points = [Point(step, 0.0, {f"m{n}": 0.0 for n in range(4)}) for step in range(6)]
    assert [[point.step for point in batch] for batch in batches_of(points, 10)] == [[0, 1], [2, 3], [4, 5]]
    assert [len(batch) for batch in batches_of(points, 2)] == [1] * 6


def test_every_point_carries_the_marker() -> None:
    points = points_of([report_at(1), report_at(2)])
    assert [point.step for point in points] == list(range(1, 11))
    assert all("progress/examples" in point.metrics for point in points)


def test_flatten_leaves_out_what_is_too_long_for_a_parameter() -> None:
    assert flatten({"a": {"b": [1, 2], "c": "x" * 600}, "d": None}) == {"a.b": "[1, 2]", "d": "null"}


def test_the_tracker_is_discovered_and_its_addresses_are_checked(sweep: Path) -> None:
    assert discover("orchestrator.trackers", TrackerSpec)["mlflow"] is MlflowSpec
    with pytest.raises(ValueError, match=r"http://HOST:PORT"):
        MlflowSpec(uri="./mlruns")
    tracker = MlflowSpec.smoke().build(sweep)
    assert tracker.uri == f"sqlite:///{sweep.parent.parent}/mlflow.db"
    assert tracker.uri in tracker.ui_command
    assert MlflowSpec(uri="sqlite:///here.db").build(sweep).uri == f"sqlite:///{Path.cwd()}/here.db"
