"""What a person sees of a running sweep from outside, with real Ray: metrics, the names of actors, `status`."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import STEADY, run, start, wait_for

from orchestrator.metrics import names

NOT_IN_EVERY_SWEEP = {"ray_hrm_lost_attempts_total", "ray_hrm_energy_kwh", "ray_hrm_cost"}
"""Without a lost worker, a GPU and prices there is nothing to export."""

LONG = ("trackers=[]", "budget.amount=4000", "base.num_reports=80")
"""It is stopped when all has been seen."""


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A sweep at work; gives the address of its Ray dashboard."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    (tmp_path / "watched.yaml").write_text(STEADY)
    settings = [part for value in LONG for part in ("--set", value)]
    process = start("sweep", tmp_path / "watched.yaml", "--storage", tmp_path, *settings)
    try:
        yield dashboard(process)
        run("stop", "watched", "--storage", tmp_path)
        process.communicate(timeout=60)
    finally:
        process.kill()


def dashboard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    said = ""
    for line in process.stdout:
        said += line
        if found := re.search(r"Ray dashboard\s+(http://\S+)", line):
            return found[1]
    raise AssertionError(f"no dashboard: {said}")


def get(address: str) -> str:
    with urllib.request.urlopen(address, timeout=5) as answer:
        return str(answer.read().decode())


def scraped(ray: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Our metrics at every target that Ray names for Prometheus: labels and values by name."""
    targets = [target for group in json.loads(get(f"{ray}/api/prometheus/sd")) for target in group["targets"]]
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for target in targets:
        try:
            page = get(f"http://{target}/metrics")
        except OSError:
            continue  # Ray names an autoscaler's port too, which a cluster on one machine does not open
        for name, labels, value in re.findall(r"^(ray_hrm_\w+)\{(.*)\} (\S+)$", page, re.M):
            found.setdefault(name, []).append((dict(re.findall(r'(\w+)="([^"]*)"', labels)), float(value)))
    return found


def everything(ray: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """All metrics that a sweep exports, each as it was seen last: Ray drops a gauge that comes late."""
    seen: dict[str, list[tuple[dict[str, str], float]]] = {}
    deadline = time.monotonic() + 120
    while missing := names() - NOT_IN_EVERY_SWEEP - seen.keys():
        assert time.monotonic() < deadline, sorted(missing)
        time.sleep(1)
        seen |= scraped(ray)
    return seen


@pytest.mark.slow
def test_a_sweep_can_be_watched_from_outside(sweep: str, tmp_path: Path) -> None:
    metrics = everything(sweep)
    labels, planned = metrics["ray_hrm_planned_trials"][0]
    assert (labels["sweep"], planned) == ("watched", 12)
    steps = sum(value for _, value in metrics["ray_hrm_steps_total"])
    assert steps > 0
    running = [labels for labels, value in metrics["ray_hrm_trials"] if labels["state"] == "running" and value]
    assert {labels["arm"] for labels in running} <= {"hrm", "transformer"}
    assert running

    actors = json.loads(get(f"{sweep}/api/v0/actors?detail=1"))["data"]["result"]["result"]
    named = {(actor["class_name"], actor["repr_name"]) for actor in actors if actor["state"] == "ALIVE"}
    assert ("TrialProcess", "watched: trial process") in named

    status = json.loads(run("status", "watched", "--storage", tmp_path, "--json"))
    assert (status["state"], status["waiting_for"]) == ("running", "")
    log = tmp_path / "sweeps" / "watched" / status["each"][0]["log"]
    assert "attempt 1" in log.read_text()

    process = next(actor["pid"] for actor in actors if actor["repr_name"] == "watched: trial process")
    os.kill(process, signal.SIGKILL)
    wait_for(lambda: sum(value for _, value in scraped(sweep).get("ray_hrm_lost_attempts_total", [])) == 1, 60)
    assert " x2" in run("status", "watched", "--storage", tmp_path)
