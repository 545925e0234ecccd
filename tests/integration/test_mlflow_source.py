"""`report --from-mlflow` with real MLflow: the sweep's directory is gone, its runs hold what the report needs.

The sweeps are synthetic, written by hand (mlflow_sweep.py). With a real sweep: test_mlflow_places.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow_sweep import runs_of, sync_all, tracker_of, write_five_trials, write_sweep, write_trial

from analysis.records import read_sweep_record
from analysis.report import write_report
from analysis.sweep import load_sweep
from orchestrator.cli import DONE, WRONG_INPUT, main
from orchestrator.importance import search_findings


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One storage root, thus one database, for all sweeps of this file: creating a database costs 2 seconds."""
    return tmp_path_factory.mktemp("storage")


@pytest.fixture
def sweep(storage: Path, request: pytest.FixtureRequest) -> Path:
    """A sweep directory with a completed, a pruned, a failed, a running and a waiting trial."""
    return write_five_trials(storage / "sweeps" / request.node.name)


def finish(sweep: Path) -> dict[str, Any]:
    """End it with a report, send everything, and give its report.json."""
    for key in ("baseline-search-0003", "baseline-search-0004"):
        write_trial(sweep, key, state="completed", reports=2, objective=0.4)
    (sweep / "trials/baseline-search-0002/log.txt").write_text("the loss was nan\n")
    write_sweep(sweep, name=sweep.name, finished=True)
    write_report(load_sweep(sweep), sweep, search_findings(load_sweep(sweep)))
    tracker = tracker_of(sweep)
    sync_all(tracker, sweep)
    tracker.finish(read_sweep_record(sweep), [sweep / "report.json"])
    parent, _ = runs_of(tracker.uri, sweep)
    assert parent.data.tags["mlflow.note.content"].endswith(report_in(sweep)["answer"]["sentence"])
    return report_in(sweep)


def report_in(directory: Path) -> dict[str, Any]:
    """Its report.json without the time at which it was made."""
    report: dict[str, Any] = json.loads((directory / "report.json").read_text())
    del report["created"]
    return report


def test_the_report_is_the_same_when_the_directory_is_gone(sweep: Path, storage: Path) -> None:
    original = finish(sweep)
    shutil.rmtree(sweep)
    for _ in range(2):  # again, over what the first wrote
        assert main(["report", sweep.name, "--from-mlflow", "--storage", str(storage)]) == DONE
    rebuilt = storage / "rebuilt" / sweep.name
    assert report_in(rebuilt) == original
    assert original["searches"]
    page, runs = (rebuilt / "report.html").read_text(), runs_of(tracker_of(sweep).uri, sweep)[1]
    assert all(f"/runs/{run.info.run_id}" in page for run in runs.values()), "each trial's entry leads to its run"
    assert (rebuilt / "trials/baseline-search-0002/log.txt").read_text() == "the loss was nan\n"


def test_trials_that_had_not_ended_are_counted_not_invented(
    sweep: Path, storage: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sweep(sweep, name=sweep.name)
    sync_all(tracker_of(sweep), sweep)
    shutil.rmtree(sweep)
    command = ["report", sweep.name, "--from-mlflow", f"sqlite:///{storage}/mlflow.db", "--output", str(tmp_path / "r")]
    assert main(command) == DONE
    assert "1 trials are left out" in capsys.readouterr().out
    assert report_in(tmp_path / "r")["trials"]["total"] == 3


def test_files_of_a_trial_are_sent_once_and_only_when_it_has_ended(sweep: Path) -> None:
    tracker = tracker_of(sweep)
    sync_all(tracker, sweep)
    _, trials = runs_of(tracker.uri, sweep)
    held = {key: Path(run.info.artifact_uri.removeprefix("file://")) / "trial.json" for key, run in trials.items()}
    assert [path.exists() for _, path in sorted(held.items())] == [True, True, True, False]
    times = {key: path.stat().st_mtime_ns for key, path in held.items() if path.exists()}
    sync_all(tracker_of(sweep), sweep)
    assert times == {key: held[key].stat().st_mtime_ns for key in times}


def test_a_folder_with_something_else_is_not_written_over(sweep: Path, storage: Path) -> None:
    finish(sweep)
    before = sorted(path for path in sweep.rglob("*") if path.is_file())
    command = ["report", sweep.name, "--from-mlflow", "--storage", str(storage), "--output", str(sweep)]
    assert main(command) == WRONG_INPUT
    assert sorted(path for path in sweep.rglob("*") if path.is_file()) == before


def test_an_unknown_name_names_those_that_are_there(
    sweep: Path, storage: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sweep(sweep, name=sweep.name)
    tracker_of(sweep).sync_sweep(read_sweep_record(sweep))
    assert main(["report", "nothing", "--from-mlflow", "--storage", str(storage)]) == WRONG_INPUT
    assert sweep.name in capsys.readouterr().err
    assert main(["report", "--from-mlflow", "--storage", str(storage / "elsewhere")]) == WRONG_INPUT
    assert "there is no database" in capsys.readouterr().err
