"""The MLflow tracker with real MLflow on a database: what it writes, once each, however often it is asked.

The sweeps are synthetic (mlflow_sweep.py). How changes reach the tracker is in test_mlflow_mirror.py.
"""

from __future__ import annotations

from pathlib import Path

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow_sweep import (
    START,
    report_at,
    runs_of,
    steps_of,
    sync_all,
    tracker_of,
    write_five_trials,
    write_sweep,
    write_trial,
)

from analysis.records import read_sweep_record
from hrm.variants import discover
from orchestrator.trackers import TrackerSpec
from orchestrator.trackers.mlflow import MlflowSpec
from orchestrator.trackers.mlflow_view import Point, batches_of, flatten, points_of


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One storage root, thus one database, for all sweeps of this file: creating a database costs 2 seconds."""
    return tmp_path_factory.mktemp("storage")


@pytest.fixture
def sweep(storage: Path, request: pytest.FixtureRequest) -> Path:
    """A sweep directory with a completed, a pruned, a failed, a running and a waiting trial."""
    return write_five_trials(storage / "sweeps" / request.node.name)


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
    assert [(data.dataset.name, data.dataset.digest) for data in search.inputs.dataset_inputs] == [("text", "abc123")]
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
        "sweep.json",
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


def test_an_experiment_that_keeps_its_files_elsewhere_is_said(sweep: Path, caplog: pytest.LogCaptureFixture) -> None:
    sync_all(tracker_of(sweep), sweep)
    assert "was fixed" not in caplog.text
    sync_all(MlflowSpec(artifacts="s3://bucket/other").build(sweep), sweep)
    assert caplog.text.count("not in s3://bucket/other") == 1


def test_the_global_state_of_mlflow_is_left_alone(sweep: Path) -> None:
    before = mlflow.get_tracking_uri()
    sync_all(tracker_of(sweep), sweep)
    assert mlflow.get_tracking_uri() == before
    assert mlflow.active_run() is None


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
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_PASSWORD"):
        MlflowSpec(uri="https://me:secret@mlflow.example.org")
    with pytest.raises(ValueError, match="absolute path"):
        MlflowSpec(artifacts="mlartifacts")
    tracker = MlflowSpec.smoke().build(sweep)
    assert tracker.uri == f"sqlite:///{sweep.parent.parent}/mlflow.db"
    assert tracker.uri in tracker.ui_command
    assert MlflowSpec(uri="sqlite:///here.db").build(sweep).uri == f"sqlite:///{Path.cwd()}/here.db"
