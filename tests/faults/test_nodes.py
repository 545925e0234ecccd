"""Nodes are drained, die, are cut off and come back: trials go on elsewhere; where there is no room the view says so.

Really done: raylets and all of their processes are killed; a node in a network namespace loses its network. The
clusters ask for a token and have no dashboard.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from command import run, start, trials, wait_for
from nodes import AUTHENTICATION, Nodes
from steady import both_at_work, check_equal, finish, goes_on_where_it_was_saved, has_reports, sweep, titled

from orchestrator.view import waited_for


@pytest.fixture
def two_nodes() -> Iterator[Nodes]:
    nodes = Nodes(2)
    yield nodes
    nodes.close()


@pytest.mark.slow
def test_nodes_die_and_come_back(storage: Path, undisturbed: Path, two_nodes: Nodes) -> None:
    options = ("--address", two_nodes.address)
    driver = start(*sweep(storage, "resources.launcher=ray_train"), *options, environment=AUTHENTICATION)
    wait_for(lambda: has_reports(storage, "hrm-search-0000", 1), 150)
    two_nodes.ask("kill")
    two_nodes.ask("kill")
    wait_for(lambda: "Waiting for room in the cluster" in waited_for(storage / "sweeps" / "steady"), 90)
    two_nodes.ask("add")
    two_nodes.ask("add")
    wait_for(lambda: not waited_for(storage / "sweeps" / "steady"), 90)
    finish(driver, seconds=300)
    check_equal(storage, undisturbed)
    wait_for(lambda: two_nodes.ask("groups") == "0", 30)
    assert not titled(two_nodes.processes(), "TrialProcess", "RayTrainWorker", "Pulse", "SlotTrial")


def states(storage: Path) -> set[str]:
    return {trial.state for trial in trials(storage, "steady").values()}


@pytest.mark.slow
def test_a_node_that_is_to_go_is_left_by_its_trial_which_goes_on_exactly_there(storage: Path, two_nodes: Nodes) -> None:
    endless = ("budget.amount=1_000_000", "base.num_reports=1000", "resources.compile=never")
    driver = start(*sweep(storage, *endless), "--address", two_nodes.address, environment=AUTHENTICATION)
    wait_for(lambda: has_reports(storage, "hrm-search-0000", 1) and has_reports(storage, "hrm-search-0001", 1), 150)
    two_nodes.ask("drain")
    wait_for(lambda: "waiting" in states(storage), 60)
    two_nodes.ask("add")
    keys = ("hrm-search-0000", "hrm-search-0001")
    wait_for(lambda: any(goes_on_where_it_was_saved(storage, key) for key in keys), 90)
    run("stop", "steady", "--storage", storage)
    finish(driver, expect=130)


HEAD, NODE, SPACE = "10.177.0.1", "10.177.0.2", "hrm-node"


@pytest.fixture
def cut_cluster(tmp_path: Path) -> Iterator[str]:
    """The address of a head of one CPU with a node of one CPU in a network namespace."""
    if os.geteuid() != 0 or subprocess.run(["ip", "netns", "add", SPACE], capture_output=True).returncode:
        pytest.skip("needs root and network namespaces")
    processes = []
    try:
        ip(f"link add {SPACE} type veth peer name inside netns {SPACE}")
        ip(f"addr add {HEAD}/24 dev {SPACE}", f"link set {SPACE} up")
        for line in (f"addr add {NODE}/24 dev inside", "link set inside up", "link set lo up"):
            ip(f"-n {SPACE} {line}")
        ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
        ray += ["--object-store-memory=80000000"]
        head = ["--head", f"--node-ip-address={HEAD}", "--port=6399", "--include-dashboard=false"]
        where = f"--temp-dir=/tmp/ray-{os.getpid()}"
        processes.append(quiet([*ray, *head, where]))
        wait_for(lambda: reachable(), 60)
        joining = [f"--address={HEAD}:6399", f"--node-ip-address={NODE}"]
        processes.append(quiet(["ip", "netns", "exec", SPACE, *ray, *joining]))
        yield f"{HEAD}:6399"
    finally:
        for process in processes:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait()
        subprocess.run(["ip", "netns", "del", SPACE], check=False)


def ip(*lines: str) -> None:
    for line in lines:
        subprocess.run(["ip", *line.split()], check=True)


def quiet(command: list[str]) -> subprocess.Popen[bytes]:
    environment = {**os.environ, **AUTHENTICATION}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)


def reachable() -> bool:
    import socket

    try:
        socket.create_connection((HEAD, 6399), timeout=1.0).close()
    except OSError:
        return False
    return True


@pytest.mark.slow
def test_a_node_that_is_cut_off_the_network_costs_no_step(storage: Path, undisturbed: Path, cut_cluster: str) -> None:
    driver = start(*sweep(storage), "--address", cut_cluster, environment=AUTHENTICATION)
    wait_for(lambda: both_at_work(storage), 150)
    ip(f"link set {SPACE} down")
    finish(driver, seconds=300)
    assert max(trial.attempts for trial in trials(storage, "steady").values()) == 2
    check_equal(storage, undisturbed)
