"""Real Ray: the same numbers wherever a trial runs, and the traps of clusters that would end in a silent wait."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from command import ROOT, check_mlflow, numbers, run, same_weights, trials

ONE_TRIAL = """\
tasks: [{kind: red_team, num_train: 64, num_validation: 16, num_test: 4}]
base:
  model:
    {kind: hrm, hidden_size: 32, num_heads: 2, H_layers: 1, L_layers: 1, causal: true, dropout: 0.1, convolution: 2}
  optimizer: {kind: adam_atan2, learning_rate: 3e-3}
  batch_size: 4
  num_reports: 2
  precision: float32
arms: {only: {}}
search: {trials: 1}
budget: {axis: steps, amount: 12}
replicas: {seeds: 1}
trackers: []
"""


def sweep(folder: Path, name: str, *options: str) -> Path:
    """Run the one-trial sweep in a storage of its own."""
    storage = folder / name
    storage.mkdir()
    (storage / "one.yaml").write_text(ONE_TRIAL)
    settings = [part for option in options for part in ("--set", option)]
    run("sweep", storage / "one.yaml", "--storage", storage, "--no-dashboard", *settings)
    return storage


@pytest.fixture(scope="module")
def in_process(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sweep(tmp_path_factory.mktemp("ray"), "in_process", "resources.launcher=in_process")


def test_a_trial_gives_equal_bits_in_the_trial_process_and_on_ray_train(in_process: Path, tmp_path: Path) -> None:
    on_ray_train = sweep(tmp_path, "ray_train", "resources.launcher=ray_train")
    assert numbers(on_ray_train, "one") == numbers(in_process, "one")
    assert same_weights(on_ray_train, in_process, "one", "one")
    assert not (on_ray_train / "sweeps" / "one" / "slots").exists()


@pytest.mark.slow
def test_two_workers_give_the_losses_of_one(in_process: Path, tmp_path: Path) -> None:
    on_two = sweep(tmp_path, "two", "resources.workers_per_trial=2")
    for key, (_, state, steps, _, result) in numbers(on_two, "one").items():
        alone = numbers(in_process, "one")[key]
        assert state == alone[1]
        for (step, found), (_, expected) in zip(steps, alone[2], strict=True):
            assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5), (key, step)
        assert result is not None
        assert result["best_validation"]["loss"] == pytest.approx(alone[4]["best_validation"]["loss"], rel=1e-5)


@pytest.mark.slow
def test_a_process_of_its_own_for_each_trial_changes_nothing(in_process: Path, tmp_path: Path) -> None:
    alone = sweep(tmp_path, "alone", "resources.launcher=ray_train", "resources.isolation=process")
    assert numbers(alone, "one") == numbers(in_process, "one")


@pytest.mark.slow
def test_two_sweeps_on_one_machine_at_once_do_not_wait_for_each_other(in_process: Path, tmp_path: Path) -> None:
    options = ("resources.launcher=ray_train", "resources.max_concurrent_trials=1")
    with ThreadPoolExecutor() as pool:
        storages = list(pool.map(lambda name: sweep(tmp_path, name, *options), ["first", "second"]))
    for storage in storages:
        assert numbers(storage, "one") == numbers(in_process, "one")


_PROBE = """\
import importlib.util, json, urllib.error, urllib.request
from orchestrator.cluster.connect import OWN, connect
with connect(OWN) as cluster:
    import ray, torch
    @ray.remote
    def look():
        found = importlib.util.find_spec("datasets")
        return None if found is None else found.origin
    page = urllib.request.urlopen(cluster.dashboard, timeout=20).status
    try:
        jobs = urllib.request.urlopen(cluster.dashboard + "/api/jobs/", timeout=20).status
    except urllib.error.HTTPError as error:
        jobs = error.code
    facts = {"cpus": sum(cpus for cpus, _ in cluster.nodes),
        "dashboard": cluster.dashboard, "page": page,
        "jobs_without_token": jobs,
        "datasets": ray.get(look.remote())}
    print("FACTS" + json.dumps(facts))
"""


def test_a_stale_cluster_file_a_dashboard_and_a_folder_named_datasets_do_no_harm(tmp_path: Path) -> None:
    note = Path("/tmp/ray/ray_current_cluster")
    kept = note.read_text() if note.exists() else None
    note.parent.mkdir(exist_ok=True)
    note.write_text("127.0.0.1:6")  # a cluster that died
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE], cwd=ROOT, capture_output=True, text=True, timeout=90, check=True
        )
    finally:
        note.unlink(missing_ok=True)
        if kept is not None:
            note.write_text(kept)
    facts = json.loads(done.stdout.split("FACTS")[1])
    assert facts["cpus"] >= 1
    assert facts["dashboard"].startswith("http://127.0.0.1:")
    assert facts["page"] == 200
    assert facts["datasets"] is None or "site-packages" in facts["datasets"]
    assert facts["jobs_without_token"] == 401


@pytest.mark.slow
def test_a_tracker_that_is_down_costs_no_trial_and_is_said(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(ONE_TRIAL)
    down = "trackers=[{kind: mlflow, uri: 'http://127.0.0.1:9'}]"
    printed = run("sweep", tmp_path / "one.yaml", "--storage", tmp_path, "--set", down)
    assert {t.state for t in trials(tmp_path, "one").values()} == {"completed"}
    assert "a tracker does not have everything" in printed.replace("\n", " ")
    run("sweep", tmp_path / "one.yaml", "--storage", tmp_path, "--set", "trackers=[{kind: mlflow}]", timeout=60)
    check_mlflow(tmp_path, "one")


def test_a_cluster_that_does_not_answer_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(ONE_TRIAL)
    run("sweep", tmp_path / "one.yaml", "--storage", tmp_path, "--address", "127.0.0.1:6", expect=3, timeout=60)


def test_a_trial_that_wants_more_than_there_is_is_refused_with_the_numbers(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(ONE_TRIAL)
    options = ("--storage", tmp_path, "--set", "resources.cpus_per_worker=1000", "--json")
    problems = json.loads(run("sweep", tmp_path / "one.yaml", *options, expect=2, timeout=60))["problems"]
    assert "a trial needs 1 worker(s) of 1000 CPUs and 0 GPUs, the cluster's nodes have" in problems[0]["rule"]
