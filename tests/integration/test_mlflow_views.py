"""What a sweep's run in real MLflow shows beside its numbers: figures, tables, views that are ready, links from here.

The sweeps are synthetic, written by hand (mlflow_sweep.py). How MLflow's own pages draw them was looked at, not tested.
"""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow_sweep import runs_of, sync_all, tracker_of, write_five_trials, write_sweep, write_trial

from analysis.mlflow_runs import MlflowRuns, read_mlflow_runs
from analysis.records import read_sweep_record
from analysis.report import write_report
from analysis.sweep import load_sweep
from orchestrator.reporting import for_trackers
from orchestrator.trackers.mlflow_compare import views_of

EXPERIMENT = {
    "space": {"optimizer.learning_rate": {"low": 1e-3, "high": 6e-3, "log": True}},
    "arms": {"baseline": {"space": {"model.L_cycles": {"choices": [1, 2]}}}, "transformer": {}},
}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One storage root, thus one database, for all sweeps of this file: creating a database costs 2 seconds."""
    return tmp_path_factory.mktemp("storage")


@pytest.fixture
def sweep(storage: Path, request: pytest.FixtureRequest) -> Path:
    """A sweep directory with a completed, a pruned, a failed, a running and a waiting trial."""
    directory = write_five_trials(storage / "sweeps" / request.node.name)
    write_sweep(directory, experiment=EXPERIMENT, arms=["baseline", "transformer"])
    return directory


def noted(sweep: Path) -> MlflowRuns:
    runs = read_mlflow_runs(sweep)
    assert runs is not None
    return runs


def saved(uri: str, runs: MlflowRuns, name: str) -> dict[str, Any]:
    """The state of a saved view, read as MLflow's pages read it."""
    view = next(view for view, its in runs.views.items() if its == name)
    tag = MlflowClient(uri).get_experiment(runs.experiment_id).tags[f"mlflow.sharedViewState.{view}"]
    envelope = json.loads(tag)
    assert (envelope["name"], type(envelope["createdAt"])) == (name, int)
    packed = envelope["state"].removeprefix("deflate;")
    state: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return state


def test_the_directory_says_which_run_each_trial_is(sweep: Path) -> None:
    tracker = tracker_of(sweep)
    sync_all(tracker, sweep)
    parent, trials = runs_of(tracker.uri, sweep)
    runs = noted(sweep)
    assert runs.parent == parent.info.run_id
    assert runs.runs == {key: run.info.run_id for key, run in trials.items()}
    loaded = load_sweep(sweep)
    address = loaded.run_address(loaded.trials[0])
    assert address == f"http://127.0.0.1:5000/#/experiments/{runs.experiment_id}/runs/{runs.runs[loaded.trials[0].key]}"
    waiting = next(trial for trial in loaded.trials if trial.state == "waiting")
    assert loaded.run_address(waiting) == ""
    (sweep / "mlflow.json").unlink()
    tracker_of(sweep).sync_sweep(read_sweep_record(sweep))
    assert noted(sweep) == runs, "another process finds the same"


def test_two_comparisons_stand_ready_in_the_menu_of_views(sweep: Path) -> None:
    write_trial(sweep, "baseline-search-0001", state="pruned", reports=1, objective=0.7)
    tracker = tracker_of(sweep)
    sync_all(tracker, sweep)
    runs = noted(sweep)
    assert list(runs.views.values()) == ["demo: arms on test", "demo: search"]
    search = saved(tracker.uri, runs, "demo: search")
    parallel = [chart["selectedParams"] for chart in search["compareRunCharts"] if chart["type"] == "PARALLEL"]
    shared = ["arm", "optimizer.learning_rate"]
    assert parallel == [shared, [*shared, "model.L_cycles"]], "MLflow leaves out runs that lack a parameter"
    found = MlflowClient(tracker.uri).search_runs([runs.experiment_id], search["searchFilter"])
    _, trials = runs_of(tracker.uri, sweep)
    assert {run.info.run_id for run in found} == {run.info.run_id for run in trials.values()}
    measured = {run.data.tags["trial_key"] for run in found if "best/loss" in run.data.metrics}
    assert measured == {"baseline-search-0000", "baseline-search-0001"}, "the pruned one, too"
    arms = saved(tracker.uri, runs, "demo: arms on test")
    assert arms["groupBy"]["groupByKeys"] == [{"mode": "param", "groupByData": "arm"}]
    assert arms["orderByKey"] == "metrics.`test/loss`"


def test_a_view_that_somebody_changed_is_left_alone(sweep: Path) -> None:
    tracker = tracker_of(sweep)
    sync_all(tracker, sweep)
    runs = noted(sweep)
    tag = f"mlflow.sharedViewState.{next(iter(runs.views))}"
    MlflowClient(tracker.uri).set_experiment_tag(runs.experiment_id, tag, "mine")
    sync_all(tracker_of(sweep), sweep)
    assert MlflowClient(tracker.uri).get_experiment(runs.experiment_id).tags[tag] == "mine"


def test_curves_are_drawn_over_the_axis_by_which_arms_are_matched(sweep: Path) -> None:
    write_sweep(sweep, budget={"axis": "flops", "amount": 1e9}, experiment=EXPERIMENT)
    charts = [c for state in views_of(read_sweep_record(sweep), "p").values() for c in state["compareRunCharts"]]
    lines = [(chart["xAxisKey"], chart["selectedXAxisMetricKey"]) for chart in charts if chart["type"] == "LINE"]
    assert lines == [("metric", "progress/flops")] * 2


def test_the_sweeps_run_holds_the_reports_figures_and_tables(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_trial(sweep, "transformer-replica-0001", state="completed", reports=2, objective=0.5)
    report = write_report(load_sweep(sweep), sweep)
    tracker = tracker_of(sweep)
    sync_all(tracker, sweep)
    for attempt in range(2):
        folder = tmp_path / str(attempt)
        tracker.finish(
            read_sweep_record(sweep), [sweep / "report.html", *for_trackers(load_sweep(sweep), report, folder)]
        )
    client, parent = MlflowClient(tracker.uri), noted(sweep).parent
    tables = {Path(file.path).stem for file in client.list_artifacts(parent, "tables")}
    assert {"trials", "arms", "failures"} <= tables
    shown = json.loads(client.get_run(parent).data.tags["mlflow.loggedArtifacts"])
    assert {"path": "tables/arms.json", "type": "table"} in shown
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.uri)  # MLflow reads tables by its global address alone
    arms = client.load_table(noted(sweep).experiment_id, "tables/arms.json", run_ids=[parent])
    assert set(arms["name"]) == {"baseline", "transformer"}
    assert len(arms) == 2, "sent again, it is not appended"
    figures = {Path(file.path).name for file in client.list_artifacts(parent, "figures")}
    assert {"dots-0.html", "curves-0.html"} <= figures
    page = Path(client.download_artifacts(parent, "figures/dots-0.html", str(tmp_path))).read_text()
    assert "http://" not in page.partition('id="library"')[0]
    assert "<script src" not in page
