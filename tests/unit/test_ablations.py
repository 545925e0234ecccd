"""Each arm as a change of the reference: the effect, what was changed, and what failed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sweep_fixture import replica, write_sweep, write_trial

from analysis.ablations import Ablation, Change, differing
from analysis.markdown import document_text
from analysis.report import Report, build_report
from analysis.sections.ablation import sections
from analysis.sweep import load_sweep

BASE: dict[str, Any] = {"seed": 0, "model": {"kind": "hrm", "layers": 3}, "clip_norm": 1.0, "task": {"kind": "text"}}
ARMS = {"plain": [0.30, 0.31, 0.33], "unclipped": [0.30, 0.315, 0.325], "deep": [0.20, 0.211, 0.229], "wild": [0.3]}
PATCHES: dict[str, dict[str, Any]] = {
    "unclipped": {"clip_norm": None},
    "deep": {"model": {"kind": "hrm", "layers": 6}, "clip_norm": 2.0},
    "wild": {"model": {"kind": "transformer", "layers": 6}},
}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, str]:
    """The report of a sweep with these arms, and its section as text."""
    directory = write_sweep(
        tmp_path_factory.mktemp("ablation") / "s", ARMS, search={}, experiment={"match": {"to": "plain"}}
    )
    for arm, values in ARMS.items():
        for seed, value in enumerate(values):
            trial = replica("text", arm, seed, value)
            spec = {**BASE, **PATCHES.get(arm, {}), "seed": seed}
            write_trial(directory, replace(trial, spec=spec, parameters={"clip_norm": 2.0} if arm == "deep" else {}))
    failed = replace(replica("text", "wild", 0, 0.3), state="failed", result=None, objective=None, reason="diverged")
    write_trial(directory, replace(failed, spec={**BASE, **PATCHES["wild"]}, parameters={}))
    sweep = load_sweep(directory)
    report = build_report(sweep)
    return report, document_text("", sections(report, sweep, "text"))


@pytest.fixture
def rows(found: tuple[Report, str]) -> dict[str, Ablation]:
    return {row.arm: row for row in found[0].ablations}


def test_every_arm_is_held_against_the_reference_by_holm(rows: dict[str, Ablation]) -> None:
    assert set(rows) == {"unclipped", "deep", "wild"}
    deep = rows["deep"]
    assert deep.mean == pytest.approx(-0.1)
    assert deep.relative == pytest.approx(-0.1 / 0.31333, rel=1e-3)
    assert deep.p is not None
    assert deep.adjusted_p == pytest.approx(3 * deep.p)


def test_one_changed_field_is_one_factor_and_several_are_named(rows: dict[str, Ablation]) -> None:
    assert rows["unclipped"].one_factor
    change = rows["unclipped"].changes[0]
    assert (change.path, change.value, change.before, change.searched) == ("clip_norm", None, 1.0, False)
    assert not rows["deep"].one_factor
    assert [(c.path, c.searched) for c in rows["deep"].changes] == [("model.layers", False), ("clip_norm", True)]


def test_another_kind_of_a_part_counts_once_and_a_seed_never() -> None:
    changes = differing({**BASE, "seed": 7, "model": {"kind": "lstm", "width": 3}}, BASE)
    assert [change.path for change in changes] == ["model.kind"]


def test_an_arm_whose_replicas_all_failed_stays_in_the_table(
    rows: dict[str, Ablation], found: tuple[Report, str]
) -> None:
    assert (rows["wild"].mean, rows["wild"].failed, rows["wild"].replicas) == (None, 1, 1)
    row = next(line for line in found[1].splitlines() if line.startswith("| wild |") and "→" in line)
    assert row.endswith("| 1 of 1 replica failed | model.kind: hrm → transformer |")


def test_the_table_says_which_changes_are_not_one_factor_and_where_it_cannot_tell(found: tuple[Report, str]) -> None:
    text = found[1]
    assert "Not one factor: deep." in text
    assert "The arms were searched apart" in text
    verdicts = [line for line in text.splitlines() if "→" in line]
    assert next(line for line in verdicts if line.startswith("| unclipped |")).endswith(
        "| cannot tell | clip_norm: 1 → – |"
    )
    assert "| better | model.layers: 3 → 6; clip_norm" in next(line for line in verdicts if line.startswith("| deep |"))


def test_where_the_reference_was_not_measured_the_first_arm_stands_in(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path / "s", search={}, experiment={"match": {"to": "gone"}})
    assert {row.reference for row in build_report(load_sweep(directory)).ablations} == {"transformer"}


def test_a_sweep_without_replicas_has_no_ablation(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path / "s", {}, search={"transformer": 4, "hrm": 4})
    assert build_report(load_sweep(directory)).ablations == []


def test_one_arm_of_another_budget_is_enough_for_the_doubt(found: tuple[Report, str], tmp_path: Path) -> None:
    change = Change("budget.amount", 900, 440, searched=False)
    deep = next(row for row in found[0].ablations if row.arm == "deep")
    report = replace(found[0], ablations=[replace(deep, changes=(change,))])
    sweep = load_sweep(write_sweep(tmp_path / "s", ARMS, search={}))
    assert "The budgets of the arms differ" in document_text("", sections(report, sweep, "text"))
    assert "The budgets of the arms differ" not in found[1]
