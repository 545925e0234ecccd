"""What the report says of an arm's way: its population, and what got no more seeds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from sweep_fixture import replica, search_trial, write_sweep, write_trial

from analysis.arms import measure_arms
from analysis.course import course
from analysis.report import write_report
from analysis.sweep import load_sweep

TAKEN = {"report": 2, "from": "text-hrm-search-0000", "value": 0.3, "parameters": {"optimizer.learning_rate": 0.0036}}
CHANGES = [
    {"report": 1, "parameters": {"clip_norm": None}},
    {"report": 2, "parameters": {"optimizer.learning_rate": 0.0036}},
]


def test_nothing_is_said_where_nothing_happened(tmp_path: Path) -> None:
    assert all(arm.course == [] for arm in measure_arms(load_sweep(write_sweep(tmp_path / "x"))))


def test_a_population_and_the_schedule_that_its_replicas_repeat_are_said() -> None:
    members = [search_trial("text", "hrm", n) for n in (0, 3, 4)]
    members[1] = replace(members[1], lineage=[TAKEN, {**TAKEN, "report": 4}])
    repeated = replica("text", "hrm", 0, 0.2)
    parameters = {"optimizer.learning_rate": 0.003, "clip_norm": 1.0}
    repeated = replace(repeated, parameters=parameters, spec={**repeated.spec, "changes": CHANGES})
    first, second = course(members, [repeated], [repeated])
    assert first == "a population of 3, of which 1 took over the state of a better member, 2 times in all"
    assert second == (
        "its replicas repeat the winner's schedule: clip_norm 1.000, after report 1 None; optimizer.learning_rate "
        "0.003000, after report 2 0.003600"
    )
    kept = course(members, [replica("text", "hrm", 0, 0.2)], [replica("text", "hrm", 0, 0.2)])
    assert kept[1] == "its winner kept the parameters that it began with, and its replicas do"


def test_the_report_says_which_arm_and_which_configuration_got_no_more_seeds_and_why(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path / "x")
    why = "no more seeds after 3: worse than transformer by 0.06 in validation loss on the same seeds"
    write_trial(directory, replace(replica("text", "lstm", 2, 0.25), no_more_seeds=why))
    other = replace(replica("text", "hrm", 9, 0.3), source="text-hrm-search-0003")
    write_trial(directory, replace(other, no_more_seeds="no more seeds after 1: worse than text-hrm-search-0000"))
    write_report(load_sweep(directory), directory)
    text = (directory / "report.md").read_text()
    assert f"lstm: {why}." in text
    assert "hrm: the configuration of text-hrm-search-0003: no more seeds after 1: worse than" in text
