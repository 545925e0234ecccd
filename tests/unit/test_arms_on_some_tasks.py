"""Arms that run on some of the tasks: the right lines, a whole report, costs against an arm that is there."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_experiment import SMALL, changed, experiment, write
from sweep_fixture import RIVALS, write_sweep

from analysis.records import ArmCost, compared_to
from analysis.report import build_report, write_report
from analysis.sweep import load_sweep
from analysis.tables import costs_table
from hrm.errors import SpecError
from hrm.trial import BudgetSpec
from orchestrator.cli import main
from orchestrator.experiment import load_experiment
from orchestrator.matching import how_well


def on_two_tasks(folder: Path, **arms: Any) -> dict[str, Any]:
    """The small experiment on `red_team` and `other`, with the fields given by arm."""
    other = write(folder / "other.yaml", {**SMALL["tasks"][0], "seed": 1})
    data = changed(tasks=[SMALL["tasks"][0], str(other)])
    for arm, fields in arms.items():
        data["arms"][arm].update(fields)
    return data


def test_an_arm_runs_on_its_tasks_and_one_that_names_none_on_all(tmp_path: Path) -> None:
    path = write(tmp_path / "x.yaml", on_two_tasks(tmp_path, control={"tasks": ["other"]}))
    lines = [(arm.task, arm.name) for arm in load_experiment(path).arms]
    assert lines == [("red_team", "plain"), ("other", "plain"), ("other", "control")]


def test_an_unknown_task_is_refused_with_the_known_ones_and_so_is_a_task_without_an_arm(tmp_path: Path) -> None:
    arms = {"plain": {"tasks": ["red_team", "othr"]}, "control": {"tasks": ["red_team"], "patch": {"batch_siz": 3}}}
    path = write(tmp_path / "x.yaml", on_two_tasks(tmp_path, **arms))
    with pytest.raises(SpecError) as caught:
        load_experiment(path)
    said = [str(problem).removeprefix(f"{path}: ") for problem in caught.value.problems]
    assert "arms.plain.tasks: there is no task 'othr'. The tasks are red_team, other." in said
    assert "tasks[1]: no arm runs on 'other'. Remove it, or name it in an arm's `tasks`." in said
    assert any(line.startswith("arms.control.patch.batch_siz: there is no such field") for line in said)
    assert len(said) == 3


def test_an_arm_whose_only_task_is_unknown_is_checked_all_the_same(tmp_path: Path) -> None:
    arms = {"control": {"tasks": ["othr"], "patch": {"batch_siz": 3}}}
    path = write(tmp_path / "x.yaml", on_two_tasks(tmp_path, **arms))
    with pytest.raises(SpecError, match=r"there is no task 'othr'(.|\n)*|batch_siz: there is no such field") as caught:
        load_experiment(path)
    assert len(caught.value.problems) == 2


def test_the_tasks_of_an_arm_are_science_and_none_is_what_it_was(tmp_path: Path) -> None:
    before = experiment(tmp_path).spec.science()
    arms = changed()["arms"]
    arms["plain"]["tasks"] = ["red_team"]
    assert experiment(tmp_path, arms=arms).spec.science() != before
    assert before["arms"]["plain"]["tasks"] is None


# --- the report ------------------------------------------------------------------------------------------------------


def partial_sweep(directory: Path) -> Path:
    """The rivals on `text`, and on `prose` without the lstm."""
    arms = {name: {"tasks": ["text"] if name == "lstm" else None} for name in RIVALS}
    write_sweep(directory, tasks=("text", "prose"), experiment={"arms": arms})
    for trial in (directory / "trials").glob("prose-lstm-*"):
        shutil.rmtree(trial)
    return directory


def test_the_report_knows_only_the_arms_that_a_task_has(tmp_path: Path) -> None:
    report = build_report(load_sweep(partial_sweep(tmp_path / "s")))
    lines = [(arm.task, arm.name) for arm in report.arms]
    assert lines == [*(("text", name) for name in RIVALS), ("prose", "transformer"), ("prose", "hrm")]
    assert [difference["other"] for difference in report.comparisons] == ["hrm", "lstm", "hrm"]


def test_an_arm_that_does_not_run_on_a_task_leaves_no_doubt_about_its_winner(tmp_path: Path) -> None:
    directory = partial_sweep(tmp_path / "s")
    report = write_report(load_sweep(directory), directory)
    assert [(answer.best_arm, answer.decided) for answer in report.answers] == [("transformer", True)] * 2
    assert report.answer["decided"] is True
    prose = (directory / "report.md").read_text().partition("\n## Task prose")[2].partition("\n## ")[0]
    assert "lstm" not in prose
    assert "hrm" in prose


# --- costs -----------------------------------------------------------------------------------------------------------

OWN = ArmCost("plain", "text", 1000, 0, 2e6, 6e6, 1, 6e9, 480, 1e6)
COSTS = [OWN, replace(OWN, arm="wide", parameters=2000)]
COSTS += [replace(cost, task="prose", parameters=cost.parameters * 5) for cost in COSTS[1:]]
COSTS += [replace(OWN, arm="deep", task="prose", parameters=5000)]


def test_where_the_reference_does_not_run_the_first_arm_stands_in(tmp_path: Path) -> None:
    assert {task: cost.arm for task, cost in compared_to(COSTS, "plain").items()} == {"text": "plain", "prose": "wide"}
    assert {task: cost.arm for task, cost in compared_to(COSTS, "deep").items()} == {"text": "plain", "prose": "deep"}
    table = costs_table(COSTS, "plain")
    assert [(row[0], row[2]) for row in table.rows] == [
        ("text/plain", "1.000"),
        ("text/wide", "2.000"),
        ("prose/wide", "1.000"),
        ("prose/deep", "0.500"),
    ]
    said = how_well(COSTS, "plain", BudgetSpec(axis="flops", amount=1e9))
    assert said.startswith("Against plain (wide on prose): parameters 0.50 to 2.00 times and training FLOPs per token")


def test_a_partial_experiment_is_validated_and_trained_by_the_arm_that_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = on_two_tasks(tmp_path, plain={"tasks": ["red_team"]}, control={"tasks": ["other"]})
    data["match"], data["budget"]["amount"], data["base"]["num_reports"] = {"parameters": 0.05}, 1, 1
    path, storage = write(tmp_path / "x.yaml", data), ["--storage", str(tmp_path / "runs")]
    assert main(["validate", str(path), "--json", *storage]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert [(cost["task"], cost["arm"]) for cost in facts["costs"]] == [("red_team", "plain"), ("other", "control")]
    assert (facts["search_trials"], facts["replicas"]) == (12, 4)
    assert main(["train", str(path), "--arm", "control", "--task", "red_team", *storage]) == 2
    error = capsys.readouterr().err
    assert "--task red_team: the arm control does not run on it. Give one of other." in error
    assert main(["train", str(path), "--task", "other", "--json", *storage]) == 0
    assert "control-" in json.loads(capsys.readouterr().out)["directory"]
