"""The Pareto front of a sweep in its report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from sweep_fixture import search_trial, write_sweep, write_trial

from analysis.front import front_of, fronts
from analysis.report import write_report
from analysis.sweep import Sweep, load_sweep
from orchestrator.status import show_status
from orchestrator.store import SweepStore

OBJECTIVES = [{"metric": "loss", "direction": "minimize"}, {"metric": "flops", "direction": "minimize"}]
VALUES = {"a": [0.2, 9e9], "b": [0.3, 4e9], "c": [0.3, 5e9], "d": [0.5, 1e9], "e": [0.6, 1e9]}
"""The front is a, b, d."""


def sweep(folder: Path, **changes: object) -> Sweep:
    """One arm with these trials, in another order than the front's."""
    asked = {"search": {"objectives": OBJECTIVES}}
    write_sweep(folder, {"hrm": [0.2]}, search={"hrm": 0}, experiment=asked, **changes)
    for number, name in enumerate("edcba"):
        trial = replace(search_trial("text", "hrm", 0), key=f"text-hrm-search-{name}", number=number)
        write_trial(folder, replace(trial, values=VALUES[name], parameters={"rate": number / 10}))
    return load_sweep(folder)


def test_the_front_is_what_nothing_dominates_by_the_first_objective(tmp_path: Path) -> None:
    (front,) = fronts(sweep(tmp_path / "s"))
    assert [point.trial[-1] for point in front.points] == ["a", "b", "d"]
    assert front.points[0].checkpoint.startswith("trials/text-hrm-search-a/attempts/1/step-")
    assert front.points[0].parameters == {"rate": 0.4}


def test_a_direction_turns_the_front(tmp_path: Path) -> None:
    trials = [trial for trial in sweep(tmp_path / "s").trials if trial.phase == "search"]
    assert [t.key[-1] for t in front_of(trials, ["maximize", "minimize"])] == ["e"]
    assert [t.key[-1] for t in front_of(trials, ["minimize", "maximize"])] == ["a"]


def test_equal_values_are_both_on_the_front(tmp_path: Path) -> None:
    trials = [replace(search_trial("text", "hrm", 0), key=key, values=[1.0, 2.0]) for key in ("a", "b")]
    assert [t.key for t in front_of(trials, ["minimize", "minimize"])] == ["a", "b"]


def test_the_report_shows_the_front_in_all_its_forms(tmp_path: Path) -> None:
    write_report(sweep(tmp_path / "s"), tmp_path / "s")
    data = json.loads((tmp_path / "s" / "report.json").read_text())
    assert [point["values"] for point in data["fronts"][0]["points"]] == [[0.2, 9e9], [0.3, 4e9], [0.5, 1e9]]
    text = (tmp_path / "s" / "report.md").read_text()
    assert "### Pareto front" in text
    assert "no trial is better in all of minimizing loss and minimizing flops" in text
    assert "| text-hrm-search-b | 0.3000 |" in text
    page = (tmp_path / "s" / "report.html").read_text()
    assert "front-0" in page
    assert page.count("text-hrm-search-d") > 1


def test_a_search_that_ran_through_its_space_says_so(tmp_path: Path) -> None:
    write_report(sweep(tmp_path / "s", exhausted=["text/hrm/search"]), tmp_path / "s")
    assert (
        "its search ended early, with every configuration of its space run once"
        in (tmp_path / "s" / "report.md").read_text()
    )


def test_a_sweep_with_one_objective_has_no_front(tmp_path: Path) -> None:
    write_sweep(tmp_path / "s")
    assert fronts(load_sweep(tmp_path / "s")) == []
    write_report(load_sweep(tmp_path / "s"), tmp_path / "s")
    assert "Pareto" not in (tmp_path / "s" / "report.html").read_text()


def test_status_shows_the_front(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep(tmp_path / "sweeps" / "s", exhausted=["text/hrm/search"])
    show_status(SweepStore(tmp_path, "s"), as_json=False)
    shown = capsys.readouterr().out
    assert "text-hrm-search-b  0.3000" in shown
    assert "text/hrm/search ended early" in shown
    show_status(SweepStore(tmp_path, "s"), as_json=True)
    assert [p["trial"][-1] for p in json.loads(capsys.readouterr().out)["fronts"][0]["points"]] == ["a", "b", "d"]
