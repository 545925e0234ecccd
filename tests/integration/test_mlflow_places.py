"""MLflow in other places: a server that asks who one is, and artifacts on S3.

The server is MLflow's own with its basic-auth app. The S3 is moto's server: a real HTTP server that speaks S3 in
memory, not Amazon's. The sweeps are synthetic (mlflow_sweep.py).
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from mlflow import MlflowClient
from mlflow_sweep import runs_of, sync_all, write_five_trials, write_sweep
from moto.server import ThreadedMotoServer

from analysis.records import read_sweep_record
from orchestrator.cli import DONE, WRONG_INPUT, main
from orchestrator.trackers.mirror import Mirror
from orchestrator.trackers.mlflow import MlflowSpec
from orchestrator.trackers.mlflow_client import MlflowRefusedError

USER, PASSWORD = "admin", "a-long-password-1234"


@pytest.fixture
def sweep(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A sweep directory with a completed, a pruned, a failed, a running and a waiting trial."""
    directory = write_five_trials(tmp_path / "sweeps" / request.node.name)
    write_sweep(directory, name=directory.name)
    return directory


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket on a local server; the environment holds what a user would set."""
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("MLFLOW_S3_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="bucket")
    yield f"http://{host}:{port}"
    server.stop()


def test_artifacts_go_to_s3_and_the_report_comes_back_from_there(sweep: Path, s3: str, tmp_path: Path) -> None:
    tracker = MlflowSpec(artifacts="s3://bucket/of/hrm").build(sweep)
    checkpoint = sweep / "trials/baseline-search-0000/attempts/1/step-00000010"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text("{}")
    sync_all(tracker, sweep)
    tracker.finish(read_sweep_record(sweep), [checkpoint])
    parent, _ = runs_of(tracker.uri, sweep)
    assert parent.info.artifact_uri.startswith("s3://bucket/of/hrm/")
    stored = boto3.client("s3", endpoint_url=s3).list_objects_v2(Bucket="bucket")["Contents"]
    names = [Path(entry["Key"]).name for entry in stored]
    assert names.count("trial.json") == names.count("records.jsonl") == 3
    assert {"sweep.json", "manifest.json", "experiment.yaml"} <= set(names)
    assert not (tmp_path / "mlartifacts").exists()
    shutil.rmtree(sweep)
    assert main(["report", sweep.name, "--from-mlflow", "--storage", str(tmp_path)]) == DONE
    assert (tmp_path / "rebuilt" / sweep.name / "report.html").exists()


class Server:
    """An MLflow server that knows one user."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{port}"
        (folder / "auth.ini").write_text(
            f"[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{folder}/users.db\n"
            f"admin_username = {USER}\nadmin_password = {PASSWORD}\n"
        )
        command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(port), "--backend-store-uri", f"sqlite:///{folder}/server.db"]
        command += ["--artifacts-destination", str(folder / "artifacts")]
        environment = os.environ | {
            "MLFLOW_AUTH_CONFIG_PATH": str(folder / "auth.ini"),
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "for this test",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        self._log = (folder / "server.log").open("ab")
        self._process = subprocess.Popen(
            command, env=environment, stdout=self._log, stderr=self._log, start_new_session=True
        )

    def wait(self) -> None:
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=1):
                    return
            except OSError:
                assert self._process.poll() is None, Path(self._log.name).read_text()[-3000:]
                assert time.monotonic() < deadline, Path(self._log.name).read_text()[-3000:]
                time.sleep(0.2)

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._log.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """It answers."""
    folder = tmp_path / "server"
    folder.mkdir()
    server = Server(folder)
    try:
        server.wait()
        yield server
    finally:
        server.kill()


@pytest.mark.slow
def test_a_server_that_asks_who_one_is_loses_nothing(
    sweep: Path,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    spec = MlflowSpec(uri=server.uri)
    mirror = Mirror(spec.build(sweep), sweep)
    mirror.finish([])
    assert not mirror.close(60)
    assert "MLFLOW_TRACKING_USERNAME" in mirror.last_error
    assert "HTTP 401" in mirror.last_error
    assert "MLFLOW_TRACKING_USERNAME" in caplog.text
    assert main(["report", sweep.name, "--from-mlflow", server.uri, "--storage", str(tmp_path)]) == WRONG_INPUT
    assert "MLFLOW_TRACKING_PASSWORD" in capsys.readouterr().err

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "not this one")
    with pytest.raises(MlflowRefusedError, match="MLFLOW_TRACKING_USERNAME say"):
        spec.build(sweep).sync_sweep(read_sweep_record(sweep))

    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
    mirror = Mirror(spec.build(sweep), sweep)
    mirror.finish([])
    assert mirror.close(60), mirror.last_error
    _, trials = runs_of(server.uri, sweep)
    assert len(trials) == 4
    assert [file.path for file in MlflowClient(server.uri).list_artifacts(trials["baseline-search-0000"].info.run_id)]
    shutil.rmtree(sweep)
    assert main(["report", sweep.name, "--from-mlflow", server.uri, "--storage", str(tmp_path)]) == DONE
    assert PASSWORD not in (tmp_path / "rebuilt" / sweep.name / "sweep.json").read_text()
