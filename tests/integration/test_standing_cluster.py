"""A standing cluster with token authentication, as `ray start` makes it: a sweep as a Ray job with its own copy of the
code, sweeps by `--address`, and the doctor on every node.

Both nodes are on this machine, where they share Ray's folder: a Ray job's copy of the code would vanish when the other
node's agent has done with it, so that it has a single node. Two machines were not tried.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.command import ROOT, STEADY, check_mlflow, command, trials, wait_for

pytestmark = pytest.mark.slow
RAY = str(Path(sys.executable).with_name("ray"))
QUICK = ("--set", "budget.amount=8", "--set", "search.trials=2", "--set", "replicas.seeds=1")


@dataclass(frozen=True)
class Standing:
    """The cluster: addresses and the environment that knows its token."""

    address: str
    dashboard: str
    environment: dict[str, str]

    def run(self, *words: str | Path, expect: int = 0, **more: str) -> str:
        environment = {**self.environment, **more}
        done = subprocess.run(
            list(map(str, words)), cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200
        )
        assert done.returncode == expect, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def one_node() -> Iterator[Standing]:
    port, dashboard = free_port(), free_port()
    scratch = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # short: the names of sockets lie below it
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_TMPDIR": scratch,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    environment.pop("RAY_ADDRESS", None)
    head = ("--head", f"--port={port}", f"--dashboard-port={dashboard}")
    with _node(environment, head):
        wait_for(lambda: _listens(port) and _listens(dashboard), 60)
        yield Standing(f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", environment)
    shutil.rmtree(scratch, ignore_errors=True)


@pytest.fixture(scope="module")
def two_nodes(one_node: Standing) -> Iterator[Standing]:
    status = (RAY, "status", f"--address={one_node.address}")
    with _node(one_node.environment, (f"--address={one_node.address}",)):
        wait_for(lambda: one_node.run(*status).count("node_") == 2)
        yield one_node


@contextlib.contextmanager
def _node(environment: dict[str, str], options: tuple[str, ...]) -> Iterator[None]:
    options = (*options, "--node-ip-address=127.0.0.1", "--num-cpus=1", "--object-store-memory=100000000", "--block")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    node = subprocess.Popen([RAY, "start", *options], env=environment, **quiet)
    try:
        yield
    finally:
        node.terminate()
        node.wait(60)


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    return False


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    path = tmp_path / "steady.yaml"
    path.write_text(STEADY)
    return path


def test_a_sweep_runs_as_a_ray_job_with_its_own_copy_of_the_code(
    one_node: Standing, experiment: Path, tmp_path: Path
) -> None:
    driver = ("python", "-m", "orchestrator", "sweep", experiment, "--storage", tmp_path, "--address", "auto", *QUICK)
    submit = (RAY, "job", "submit", "--address", one_node.dashboard, "--working-dir", ".")
    said = one_node.run(*submit, "--", *driver, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert "succeeded" in said
    assert trials(tmp_path, "steady")
    check_mlflow(tmp_path, "steady")


def test_a_sweep_runs_on_both_nodes_of_a_standing_cluster(
    two_nodes: Standing, experiment: Path, tmp_path: Path
) -> None:
    where = ("--storage", tmp_path, "--address", two_nodes.address, "--nodes", "2")
    said = two_nodes.run(*command("sweep", experiment, *where, *QUICK))
    assert "2 at a time" in said
    assert {record.state for record in trials(tmp_path, "steady").values()} <= {"completed", "pruned"}
    check_mlflow(tmp_path, "steady")


def test_without_the_token_the_way_out_is_named(two_nodes: Standing, experiment: Path, tmp_path: Path) -> None:
    options = ("--storage", tmp_path, "--address", two_nodes.address, *QUICK)
    said = two_nodes.run(*command("sweep", experiment, *options), expect=3, RAY_AUTH_TOKEN="wrong")
    assert "RAY_AUTH_MODE" in said


def test_the_doctor_examines_every_node(two_nodes: Standing, tmp_path: Path) -> None:
    options = ("--address", two_nodes.address, "--storage", tmp_path, "--store", tmp_path / "store", "--json")
    found = json.loads(two_nodes.run(*command("doctor", *options)))
    assert found["verdict"] != "fail"
    by_node: dict[str, dict[str, dict[str, str]]] = {}
    for line in found["findings"]:
        by_node.setdefault(line["node"], {})[line["name"]] = line
    assert len(by_node.keys() - {""}) == 2
    for node, lines in by_node.items():
        if node:
            assert {"cpu", "memory", "/dev/shm", "nvml", "open files", "clock", "clock skew", "disk"} <= lines.keys()
            assert {"head", "store", "storage", "versions"} <= lines.keys()
            assert "shared with the driver" in lines["storage"]["value"]
            assert lines["versions"]["value"] == "as the driver's"
            assert f":{two_nodes.address.partition(':')[2]} answers" in lines["head"]["value"]
    assert by_node[""]["cluster"]["value"].startswith(f"{two_nodes.address}: 2 node(s)")
    assert sorted(path.name for path in tmp_path.iterdir()) in ([], ["store"])
