"""The doctor on clocks, on what lies outside of a machine (the store, the tracker, the head), and on nodes."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from orchestrator import doctor
from orchestrator.doctor.clock import judge_skew, judge_synchronised
from orchestrator.doctor.cluster import judge_shared, judge_versions, versions
from orchestrator.doctor.finding import Finding
from orchestrator.doctor.reach import examine_reach


def test_clocks_that_disagree_are_named() -> None:
    assert judge_synchronised(False).verdict == "warn"
    assert judge_synchronised(True).verdict == judge_synchronised(None).verdict == "ok"
    assert judge_skew(-30.0, 0.01).verdict == "warn"
    assert judge_skew(0.2, 0.01).verdict == "ok"
    assert judge_skew(1.5, 2.0).verdict == "ok"  # a slow network tells nothing


def test_a_store_is_written_read_and_left_as_it_was(tmp_path: Path) -> None:
    [line] = examine_reach(str(tmp_path / "store"), None)
    assert line == Finding("store", f"{tmp_path / 'store'}: a file was written, read and removed")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    (tmp_path / "file").write_text("")
    [broken] = examine_reach(str(tmp_path / "file" / "store"), None)
    assert (broken.verdict, "environment" in broken.fix) == ("fail", True)
    [secret] = examine_reach("s3://key:secret@bucket/x", None)
    assert (secret.verdict, "holds credentials" in secret.value) == ("fail", True)


class Tracker(BaseHTTPRequestHandler):
    """Answers as an MLflow server with basic authentication does (a fake: starting a real one takes 15 seconds)."""

    def do_GET(self) -> None:
        known = self.headers.get("Authorization") == "Basic bWU6cHc="
        self.send_response(200 if known and "/api/2.0/mlflow/experiments/search" in self.path else 401)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Be silent."""


def test_a_tracker_is_asked_with_the_credentials_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HTTPServer(("127.0.0.1", 0), Tracker) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uri = f"http://127.0.0.1:{server.server_port}"
        [refused] = examine_reach(None, uri)
        assert (refused.verdict, "401" in refused.value) == ("warn", True)
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "pw")
        assert [line.verdict for line in examine_reach(None, uri)] == ["ok"]
        server.shutdown()
    [down] = examine_reach(None, uri)
    assert (down.verdict, "refused" in down.value) == ("warn", True)
    assert next(iter(examine_reach(None, None, "127.0.0.1:1"))).verdict == "fail"
    assert next(iter(examine_reach(None, f"sqlite:///{tmp_path}/new/mlflow.db"))).verdict == "ok"


def test_nodes_must_have_the_drivers_versions_and_disk() -> None:
    here = versions()
    assert {"python", "torch", "ray", "hrm-orchestrator"} <= here.keys()
    assert judge_versions(here, here).verdict == "ok"
    other = judge_versions(here, {**here, "torch": "1.0"})
    assert (other.verdict, "torch 1.0 instead of" in other.value) == ("fail", True)
    assert judge_shared(Path("/runs"), "", has_store=False).verdict == "ok"
    assert judge_shared(Path("/runs"), "is not the driver's disk", has_store=True).verdict == "ok"
    apart = judge_shared(Path("/runs"), "is not the driver's disk", has_store=False)
    assert (apart.verdict, "--store" in apart.fix) == ("fail", True)


def test_a_cluster_that_does_not_answer_is_a_line(tmp_path: Path) -> None:
    lines = doctor.examine(tmp_path, address="127.0.0.1:1")
    [line] = [finding for finding in lines if finding.name == "cluster"]
    assert (line.verdict, "no Ray cluster answers" in line.value) == ("fail", True)
    assert list(tmp_path.iterdir()) == []
