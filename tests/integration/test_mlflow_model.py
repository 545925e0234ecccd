"""The best checkpoint as a model in real MLflow: loaded again it answers as our own commands do; made once.

The sweep is written by hand around one real training.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlflow
import pandas
import pytest
from conftest import TINY_HRM, run
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow_sweep import runs_of, sync_all, write_sweep, write_trial

from analysis.records import read_sweep_record
from hrm.context import LocalContext
from hrm.data.dataset import build_dataset
from hrm.spec import parse_spec
from hrm.trial import TrialSpec
from orchestrator.cli import DONE, main
from orchestrator.generate_options import NEW_TOKENS
from orchestrator.leaders import Leader
from orchestrator.trackers.mlflow import MlflowSpec, MlflowTracker

TEXT = {"kind": "text", "sequence_length": 48, "validation_fraction": 0.2, "test_fraction": 0.2}
SUDOKU = {"kind": "sudoku", "size": 4, "num_train": 32, "num_validation": 8, "num_test": 8, "min_givens": 6}
PUZZLE_HRM = {**TINY_HRM, "causal": False, "halting": {"rule": "q", "segments": 3}}
KEY = "baseline-replica-0000"
PROMPTS = ["The ferry", "A good knot holds"]
GRID = "1...\n..2.\n.3..\n...4"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One storage root, thus one database, for all sweeps of this file: creating a database costs 2 seconds."""
    return tmp_path_factory.mktemp("storage")


def logged(storage: Path, task: dict[str, Any], model: dict[str, Any]) -> tuple[MlflowTracker, Leader, Path]:
    """A finished sweep of one short training, whose best checkpoint is a model in MLflow."""
    data = {"task": task, "model": model, "optimizer": {"kind": "adamw", "learning_rate": 0.01}, "batch_size": 4}
    trial = parse_spec(TrialSpec, {**data, "budget": {"axis": "steps", "amount": 2}, "num_reports": 1}, "trial")
    trial = trial.model_copy(update={"task": build_dataset(trial.task, storage / "data").task})
    sweep = storage / "sweeps" / str(task["kind"])
    write_sweep(sweep, name=sweep.name, finished=True)
    _, result = run(trial, LocalContext(sweep / "trials" / KEY, storage / "data"))
    spec = trial.model_dump(mode="json")
    write_trial(sweep, KEY, reports=1, state="completed", spec=spec, result=asdict(result))
    tracker = MlflowSpec().build(sweep)
    sync_all(tracker, sweep)
    leader = Leader("text", "baseline", KEY, sweep / "trials" / KEY / result.best_checkpoint, storage / "data")
    tracker.log_best(read_sweep_record(sweep), [leader])
    return tracker, leader, sweep


def address_of(tracker: MlflowTracker, sweep: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where MLflow's functions, which know a global address alone, find the sweep's model."""
    parent, _ = runs_of(tracker.uri, sweep)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracker.uri)
    return str(parent.data.tags["best_model.text"])


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> Any:
    capsys.readouterr()
    assert main([*map(str, arguments), "--json"]) == DONE
    return json.loads(capsys.readouterr().out)


def test_a_text_model_says_what_generate_says_and_is_made_once(
    storage: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, leader, sweep = logged(storage, TEXT, TINY_HRM)
    model = mlflow.pyfunc.load_model(address_of(tracker, sweep, monkeypatch))
    how = {"max_new_tokens": 8, "temperature": 0.7, "top_p": 0.9, "seed": 3}
    answer = model.predict(pandas.DataFrame({"prompt": PROMPTS}), params=how)
    options = [word for name, value in how.items() for word in (f"--{name.replace('_', '-')}", value)]
    prompts = [word for text in PROMPTS for word in ("--prompt", text)]
    ours = said(capsys, "generate", leader.checkpoint, *prompts, *options, "--storage", storage)
    assert answer["text"].tolist() == [each["text"] for each in ours["continuations"]]
    params = model.metadata.get_params_schema().to_dict()
    assert {each["name"]: each["default"] for each in params}["max_new_tokens"] == NEW_TOKENS == 100
    with pytest.raises(MlflowException, match="must not be empty"):
        model.predict(pandas.DataFrame({"prompt": [""]}))

    client, (parent, trials) = MlflowClient(tracker.uri), runs_of(tracker.uri, sweep)
    tracker.log_best(read_sweep_record(sweep), [leader])
    MlflowSpec().build(sweep).log_best(read_sweep_record(sweep), [leader])
    [found] = [
        each for each in client.search_logged_models([parent.info.experiment_id]) if each.tags["sweep"] == sweep.name
    ]
    assert (found.status.value, found.source_run_id) == ("READY", trials[KEY].info.run_id)
    assert (found.tags["arm"], found.tags["trial_key"]) == ("baseline", KEY)
    assert "best/loss" in {metric.key for metric in found.metrics}
    for linked in (parent, trials[KEY]):
        outputs = client.get_run(linked.info.run_id).outputs
        assert [output.model_id for output in outputs.model_outputs] == [found.model_id]
    files = [path.name for path in Path(found.artifact_location.removeprefix("file://")).rglob("*") if path.is_file()]
    assert {"served_model.py", "model.safetensors", "tokenizer.json", "manifest.json"} <= set(files)
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".bin"))]


def test_a_puzzle_model_solves_as_solve_does(
    storage: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, leader, sweep = logged(storage, SUDOKU, PUZZLE_HRM)
    answer = mlflow.pyfunc.load_model(address_of(tracker, sweep, monkeypatch)).predict(
        pandas.DataFrame({"puzzle": [GRID]})
    )
    [ours] = said(capsys, "solve", leader.checkpoint, GRID, "--storage", storage)["puzzles"]
    assert answer["solution"].tolist() == ["\n".join(ours["answer"])]
    assert answer["segments"].tolist() == [ours["segments"]]
    assert answer["confidence"].tolist() == pytest.approx([ours["confidence"]])


def test_a_tracker_that_wants_no_model_gets_none(storage: Path) -> None:
    sweep = storage / "sweeps" / "without"
    write_sweep(sweep, name="without", finished=True)
    tracker = MlflowSpec(model=False).build(sweep)
    tracker.log_best(read_sweep_record(sweep), [Leader("text", "baseline", KEY, sweep / "none", storage / "data")])


@pytest.mark.slow
def test_mlflow_serves_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker, _, sweep = logged(tmp_path, TEXT, TINY_HRM)
    address = address_of(tracker, sweep, monkeypatch)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", address, "--env-manager", "local"]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where MLflow looks for its web server
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port)], env=environment, start_new_session=True
    )
    body = json.dumps({"dataframe_records": [{"prompt": "The ferry"}], "params": {"max_new_tokens": 4}}).encode()
    try:
        deadline, answer = time.monotonic() + 120, b""
        while not answer:
            assert process.poll() is None
            assert time.monotonic() < deadline, "it did not answer in time"
            request = urllib.request.Request(
                f"http://127.0.0.1:{port}/invocations", body, {"Content-Type": "application/json"}
            )
            try:
                with urllib.request.urlopen(request, timeout=30) as response:
                    answer = response.read()
            except urllib.error.HTTPError as error:
                raise AssertionError(error.read()) from error
            except OSError:
                time.sleep(0.5)
        own = mlflow.pyfunc.load_model(address).predict(
            pandas.DataFrame({"prompt": ["The ferry"]}), params={"max_new_tokens": 4}
        )
        assert json.loads(answer)["predictions"] == own.to_dict("records")
    finally:
        with contextlib.suppress(ProcessLookupError):  # it has ended itself
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
