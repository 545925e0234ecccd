"""The main job as a new user runs it, in seconds (`--smoke`), and everything that it leaves."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from command import ROOT, check_mlflow, command, report, run, trials
from mlflow import MlflowClient

EXPERIMENT = "experiments/text_adapt.yaml"
NAME = "text_adapt-smoke"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage after one smoke sweep."""
    root = tmp_path_factory.mktemp("storage")
    printed = run("sweep", EXPERIMENT, "--smoke", "--storage", root)
    (root / "printed.txt").write_text(printed)
    return root


def test_it_prints_the_answer_where_to_look_and_where_the_report_is(storage: Path) -> None:
    printed = (storage / "printed.txt").read_text()
    assert re.search(r"Ray dashboard +http://127\.0\.0\.1:\d+", printed)
    assert re.search(r"MLflow UI .*mlflow ui .*--host 127\.0\.0\.1", printed)
    assert "transformer" in printed
    assert str(storage / "sweeps" / NAME / "report.html") in printed.replace("\n", "")


def test_every_planned_trial_has_run_once_and_replicas_share_seeds(storage: Path) -> None:
    found = trials(storage, NAME).values()
    assert sorted({(t.arm, t.phase, t.number) for t in found}) == sorted((t.arm, t.phase, t.number) for t in found)
    for arm in ("baseline", "language_adapted", "transformer"):
        seeds = [t.spec["seed"] for t in found if t.arm == arm and t.phase == "replica"]
        assert seeds == [1000, 1001]
        assert len([t for t in found if t.arm == arm and t.phase == "search"]) == 2
    assert {t.attempts for t in found} == {1}


def test_report_json_holds_the_answer_and_what_it_cost(storage: Path) -> None:
    found = report(storage, NAME)
    assert found["schema"] == 1
    assert {"best_arm", "decided", "probability_best"} <= found["answer"].keys()
    assert found["elapsed_seconds"] > 0
    assert found["trials"]["total"] == 12
    assert found["trials"]["completed"] + found["trials"]["pruned"] == 12
    assert {arm["name"] for arm in found["arms"]} == {"baseline", "language_adapted", "transformer"}
    for arm in found["arms"]:
        assert arm["metric"]["n"] == 2
        assert arm["metric"]["low"] < arm["metric"]["mean"] < arm["metric"]["high"]
        assert arm["parameters"] > 0
        assert arm["flops"] == pytest.approx(4e9, rel=0.2)
        assert (storage / "sweeps" / NAME / arm["best_checkpoint"] / "manifest.json").exists()


def test_replicas_alone_look_at_the_test_split(storage: Path) -> None:
    for trial in trials(storage, NAME).values():
        if trial.result is not None:
            assert (trial.result["test"] is not None) == (trial.phase == "replica")


def test_report_html_is_whole_and_loads_nothing_from_elsewhere(storage: Path) -> None:
    html = (storage / "sweeps" / NAME / "report.html").read_text()
    assert html.rstrip().endswith("</html>")
    assert not re.search(r"<(?:script|link|img)[^>]+(?:src|href)=[\"']?https?:", html)
    assert (storage / "sweeps" / NAME / "report.md").read_text().startswith("#")


def test_mlflow_holds_one_run_for_each_trial_with_every_step_once(storage: Path) -> None:
    check_mlflow(storage, NAME)


def test_the_sweep_in_mlflow_holds_the_question_the_report_and_the_best_checkpoints(storage: Path) -> None:
    client = MlflowClient(f"sqlite:///{storage / 'mlflow.db'}")
    runs = client.search_runs(["1"], f"attributes.run_name = '{NAME}'")
    assert [run.info.status for run in runs] == ["FINISHED"]
    found = {file.path for file in client.list_artifacts(runs[0].info.run_id)}
    assert {"experiment.yaml", "report.html", "report.md", "report.json"} <= found
    for arm in report(storage, NAME)["arms"]:
        files = {file.path for file in client.list_artifacts(runs[0].info.run_id, arm["best_checkpoint"])}
        assert f"{arm['best_checkpoint']}/model.safetensors" in files


def test_a_trial_computes_with_as_many_threads_as_it_has_cpus(storage: Path) -> None:
    assert {t.resolved["threads"] for t in trials(storage, NAME).values()} == {1}


def test_losers_leave_no_checkpoints(storage: Path) -> None:
    searches = [t for t in trials(storage, NAME).values() if t.phase == "search"]
    directory = storage / "sweeps" / NAME / "trials"
    kept = {t.key for t in searches if list((directory / t.key / "attempts").glob("*/step-*"))}
    best = {min((t for t in searches if t.arm == a and t.result), key=lambda t: t.objective or 0.0).key for a in
            ("baseline", "language_adapted", "transformer")}  # fmt: skip
    assert kept == best


def test_the_same_command_again_runs_nothing_and_gives_the_same_answer(storage: Path) -> None:
    before = report(storage, NAME)
    again = json.loads(run("sweep", EXPERIMENT, "--smoke", "--storage", storage, "--json", timeout=60))
    assert again["answer"] == before["answer"]
    assert again["elapsed_seconds"] == before["elapsed_seconds"]
    assert {t.attempts for t in trials(storage, NAME).values()} == {1}


def test_status_list_and_report_read_it(storage: Path) -> None:
    status = json.loads(run("status", NAME, "--storage", storage, "--json"))
    assert status["state"] == "finished"
    assert len(status["each"]) == 12
    assert NAME in run("list", "--storage", storage)
    assert "transformer" in run("report", NAME, "--storage", storage)


def test_clean_keeps_the_best_checkpoint_of_each_arm(storage: Path) -> None:
    best = {arm["best_checkpoint"] for arm in report(storage, NAME)["arms"]}
    facts = json.loads(run("clean", NAME, "--storage", storage, "--json"))
    assert facts["freed_bytes"] > 0
    directory = storage / "sweeps" / NAME
    assert {str(p.relative_to(directory)) for p in directory.glob("trials/*/attempts/*/step-*")} == best


def test_a_changed_question_under_the_same_name_is_refused(storage: Path) -> None:
    arguments = ("sweep", EXPERIMENT, "--smoke", "--storage", str(storage), "--set", "search.seed=7")
    done = subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "search.seed: was 0 when the sweep began, and is 7" in done.stderr
    assert "--name" in done.stderr


SHORT = ("search.trials=1", "search.generation=1", "replicas.seeds=1")
"""As each arm's first point stands: six trainings of full length. Without, it is up to 33."""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_main_job_reaches_the_target_that_the_campaign_never_reached(tmp_path: Path) -> None:
    settings = [word for setting in SHORT for word in ("--set", setting)]
    said = run("sweep", EXPERIMENT, "--storage", tmp_path, "--json", *settings, timeout=1200)
    found: dict[str, Any] = json.loads(said)
    best = next(arm for arm in found["arms"] if arm["name"] == found["answer"]["best_arm"])
    assert best["metric"]["mean"] < 0.35
    assert best["metric"]["mean"] < 1.5 * found["reference"]["generator_cross_entropy"]
    assert all(arm["metric"]["n"] == 1 and arm["metric"]["split"] == "test" for arm in found["arms"])
    sizes = [arm["parameters"] for arm in found["arms"]]
    assert max(sizes) / min(sizes) < 1.01
    check_mlflow(tmp_path, "text_adapt")
