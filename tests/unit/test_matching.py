"""What arms cost is known before anything runs, agrees with what training does, and holds arms together if asked to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_experiment import HRM, TRANSFORMER, changed, experiment, write
from sweep_fixture import write_sweep

from analysis.records import ArmCost, read_sweep_record, write_json
from analysis.report import build_report, write_report
from analysis.sweep import load_sweep
from hrm.context import LocalContext
from hrm.data.dataset import build_dataset
from hrm.errors import Problem, SpecError
from hrm.models import ModelSpec
from hrm.models.hrm import HRMSpec
from hrm.models.transformer import TransformerSpec
from hrm.spec import parse_spec
from hrm.tasks import IGNORE, TaskShape
from hrm.train import train
from hrm.trial import BudgetSpec
from orchestrator.costs import arm_costs
from orchestrator.experiment import Experiment
from orchestrator.matching import check_match, how_well

SUDOKU = {"kind": "sudoku", "size": 4, "num_train": 16, "num_validation": 4, "num_test": 4}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("matching")


def built(root: Path, folder: Path, **changes: Any) -> tuple[Experiment, list[ArmCost]]:
    """The small experiment with changes, its data built, and its costs."""
    found = experiment(folder, **changes)
    for task in found.tasks.values():
        build_dataset(task, root)
    return found, arm_costs(found, root)


def shape_of(root: Path, found: Experiment) -> TaskShape:
    return build_dataset(next(iter(found.tasks.values())), root).shape


# --- what an arm costs -----------------------------------------------------------------------------------------------


def test_costs_are_those_of_the_models_as_built_by_hand(root: Path, tmp_path: Path) -> None:
    found, (plain, control) = built(root, tmp_path)
    shape = shape_of(root, found)
    specs: list[tuple[ModelSpec, ArmCost]] = [
        (parse_spec(HRMSpec, HRM, "here"), plain),
        (parse_spec(TransformerSpec, TRANSFORMER, "here"), control),
    ]
    for spec, cost in specs:
        assert cost.parameters == spec.build(shape).num_parameters()
        assert cost.forward_flops_per_token == spec.flops(shape).forward / shape.sequence_length
        assert cost.flops_per_token == pytest.approx(spec.flops(shape).training / shape.sequence_length)
        assert cost.flops_per_step == pytest.approx(4 * spec.flops(shape).training)
        assert (cost.table_values, cost.segments, cost.steps) == (0, 1, 4)
    assert (plain.arm, control.arm, plain.task) == ("plain", "control", "red_team")
    assert control.flops_per_token == pytest.approx(3 * control.forward_flops_per_token)


def test_puzzle_tables_are_counted_apart(root: Path, tmp_path: Path) -> None:
    model = {**HRM, "causal": False, "puzzle_embedding_size": 16, "halting": {"rule": "q", "segments": 4}}
    arms: dict[str, Any] = {"table": {}, "bare": {"patch": {"model": {"puzzle_embedding_size": 0}}}}
    found, (table, bare) = built(root, tmp_path, tasks=[SUDOKU], base__model=model, arms=arms)
    assert table.table_values == 16 * shape_of(root, found).num_puzzle_identifiers > 0
    assert (bare.table_values, table.parameters) == (0, bare.parameters)
    assert table.flops_per_token > bare.flops_per_token, "the puzzle's position costs, too"
    assert table.segments == 4


CURRICULUM = [{"until": 0.5, "share": 0.5}]


@pytest.mark.parametrize(
    ("axis", "amount"), [("steps", 7), ("examples", 30), ("tokens", 3000), ("flops", 6e9), ("seconds", 1)]
)
def test_the_budget_buys_what_training_does(root: Path, tmp_path: Path, axis: str, amount: float) -> None:
    """Two segments for each row, and fewer cycles in the first half of the budget."""
    model = {**HRM, "L_cycles": 4, "curriculum": CURRICULUM, "halting": {"rule": "none", "segments": 2}}
    found, costs = built(
        root, tmp_path, base__model=model, base__num_reports=1, budget={"axis": axis, "amount": amount}
    )
    if axis == "seconds":
        assert (costs[0].steps, costs[0].tokens) == (None, None)
        return
    steps = train(found.arms[0].trial({}, 0), LocalContext(tmp_path / "trial", root))
    progress = [report.progress for report in steps][-1]
    slack = 1 if axis in ("flops", "tokens") else 0  # a stage ends inside a step; rows are not equally long
    assert costs[0].steps == pytest.approx(progress.step, abs=slack)
    assert costs[0].flops_per_step * progress.step == pytest.approx(progress.flops, rel=0.08)
    assert costs[0].tokens == pytest.approx(progress.tokens, rel=0.2)


def test_scored_tokens_are_those_of_the_labels(root: Path, tmp_path: Path) -> None:
    recipe = {**changed()["tasks"][0], "prompt_turns": 2}
    found, (plain, _) = built(root, tmp_path, tasks=[recipe])
    rows = build_dataset(next(iter(found.tasks.values())), root).split("train")
    labels = rows.gather(np.arange(len(rows)))["labels"]
    assert plain.tokens == pytest.approx(4 * 4 * (labels != IGNORE).sum() / len(rows))
    assert plain.tokens < 4 * 4 * labels.shape[1], "prompts are not scored"


# --- over a space ----------------------------------------------------------------------------------------------------


def test_the_range_goes_from_the_cheapest_to_the_dearest_corner_of_the_space(root: Path, tmp_path: Path) -> None:
    space = {
        "model.H_cycles": {"low": 1, "high": 3},
        "model.L_cycles": {"choices": [4, 1]},
        "model.H_layers": {"choices": [2, 1]},
    }
    found, (plain, control) = built(root, tmp_path, arms__plain={"space": space})
    shape = shape_of(root, found)
    cheap = parse_spec(HRMSpec, {**HRM, "H_cycles": 1, "L_cycles": 1, "H_layers": 1}, "here")
    dear = parse_spec(HRMSpec, {**HRM, "H_cycles": 3, "L_cycles": 4, "H_layers": 2}, "here")
    ends = [spec.flops(shape).training / shape.sequence_length for spec in (cheap, dear)]
    assert plain.flops_per_token_range == pytest.approx(ends)
    assert plain.parameters_range == tuple(spec.build(shape).num_parameters() for spec in (cheap, dear))
    assert (control.parameters_range, control.flops_per_token_range) == (None, None), "a learning rate costs nothing"


def test_ends_that_do_not_go_together_leave_the_range_of_each_alone(root: Path, tmp_path: Path) -> None:
    space = {
        "model.hidden_size": {"choices": [16, 40]},
        "model.num_heads": {"choices": [8, 2]},
    }
    found, (plain, _) = built(root, tmp_path, arms__plain={"space": space})
    wide = parse_spec(HRMSpec, {**HRM, "hidden_size": 40}, "here").build(shape_of(root, found)).num_parameters()
    assert plain.parameters_range == (plain.parameters, wide)


# --- match -----------------------------------------------------------------------------------------------------------


def refused(root: Path, folder: Path, **changes: Any) -> dict[str, Problem]:
    found, costs = built(root, folder, **changes)
    with pytest.raises(SpecError) as caught:
        check_match(found, costs, root)
    return {problem.place: problem for problem in caught.value.problems}


def test_without_match_nothing_is_enforced_and_no_id_changes(root: Path, tmp_path: Path) -> None:
    found, costs = built(root, tmp_path)
    check_match(found, costs, root)
    asked = experiment(tmp_path, match={"parameters": 0.5, "flops_per_token": 0.1, "to": "control"})
    assert [a.trial({}, 0).hash() for a in asked.arms] == [a.trial({}, 0).hash() for a in found.arms]
    assert asked.spec.science() == found.spec.science(), "a sweep may be held to a match later"
    assert found.arms[0].trial({}, 0).hash() == "13614b8e74ed33ab", "the id of before there was a match"


def test_a_misfit_is_refused_with_both_values_and_the_size_that_would_match(root: Path, tmp_path: Path) -> None:
    found = refused(root, tmp_path, match={"parameters": 0.05})
    assert list(found) == ["match.parameters"]
    assert found["match.parameters"].rule == (
        "in arm control: parameters must be within 5 % of the 29,602 of plain, got 16,256, 0.549 times as many"
    )
    advice = "Set arms.control.patch.model.num_layers: 2 (0.999 times) or hidden_size: 28 (1.006 times), or raise "
    assert found["match.parameters"].way_out == f"{advice}match.parameters to 0.46"
    for field, value in (("num_layers", 2), ("hidden_size", 28)):
        change = {"model": {**TRANSFORMER, field: value}}
        check_match(*built(root, tmp_path, match={"parameters": 0.05}, arms__control__patch=change), root)
    check_match(*built(root, tmp_path, match={"parameters": 0.46}), root)


def test_the_size_that_is_advised_is_the_closest_of_all(root: Path, tmp_path: Path) -> None:
    big = {**HRM, "hidden_size": 24, "H_layers": 1, "L_layers": 2}
    found = refused(root, tmp_path, match={"parameters": 0.0}, base__model=big)
    rule, way_out = found["match.parameters"].rule, found["match.parameters"].way_out
    shape = shape_of(root, experiment(tmp_path))
    wanted = parse_spec(HRMSpec, big, "here").build(shape).num_parameters()
    assert f"{wanted:,}" in rule
    sizes = [("hidden_size", size) for size in range(8, 80, 4)] + [("num_layers", n) for n in range(1, 9)]

    def ratio(size: tuple[str, int]) -> float:
        spec = parse_spec(TransformerSpec, {**TRANSFORMER, size[0]: size[1]}, "here")
        return spec.build(shape).num_parameters() / wanted

    field, value = best = min(sizes, key=lambda size: abs(ratio(size) - 1.0))
    assert way_out.startswith(f"Set arms.control.patch.model.{field}: {value} ({ratio(best):.3f} times), or raise ")


def test_flops_are_matched_by_cycles_where_parameters_must_hold(root: Path, tmp_path: Path) -> None:
    deep = {"patch": {"model": {"H_cycles": 6, "L_cycles": 4}}}
    arms = {"deep": deep, "plain": {}}
    found = refused(root, tmp_path, arms=arms, match={"flops_per_token": 0.2})
    assert "_layers: " in found["match.flops_per_token"].way_out
    found = refused(root, tmp_path, arms=arms, match={"parameters": 0.05, "flops_per_token": 0.2})
    assert "_cycles: " in found["match.flops_per_token"].way_out
    assert "_layers: " not in found["match.flops_per_token"].way_out


def test_arms_are_compared_with_the_one_that_is_named_on_each_task(root: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.yaml", {**SUDOKU, "size": 4})
    arms = {"plain": {"patch": {"model": {**HRM, "H_layers": 2}}}, "control": {}}
    changes: dict[str, Any] = {"tasks": [*changed()["tasks"], str(other)], "arms": arms}
    found, costs = built(root, tmp_path, **changes, match={"parameters": 0.1, "to": "control"})
    with pytest.raises(SpecError) as caught:
        check_match(found, costs, root)
    rules = [problem.rule for problem in caught.value.problems]
    assert [rule.split(":")[0] for rule in rules] == ["in arm plain on red_team", "in arm plain on other"]
    assert "of control, got" in rules[0]


def test_a_sentence_says_how_well_the_arms_match(root: Path, tmp_path: Path) -> None:
    _, costs = built(root, tmp_path)
    steps = how_well(costs, "plain", BudgetSpec(axis="steps", amount=4.0))
    ratio = costs[1].flops_per_token / costs[0].flops_per_token
    assert steps == (
        f"Against plain: parameters 0.55 times, training FLOPs per token {ratio:.2f} times and training FLOPs of a "
        f"trial {ratio:.2f} times. Every trial trains for 4 steps."
    )
    spread = how_well([*costs, replace(costs[1], arm="large", parameters=60_000)], "plain", BudgetSpec(amount=4.0))
    assert "parameters 0.55 to 2.03 times" in spread
    near = replace(costs[0], arm="near", parameters=round(costs[0].parameters * 1.01))
    assert "parameters within 1 %" in how_well([costs[0], near], "plain", BudgetSpec(axis="steps", amount=4.0))
    flops = how_well(costs, "plain", BudgetSpec(axis="flops", amount=4e9))
    assert flops.endswith("Every trial trains for 4 GFLOP, so arms match in training FLOPs by construction.")
    assert how_well(costs[:1], "plain", BudgetSpec(amount=4.0)) == "Every trial trains for 4 steps."


# --- kept with the sweep, shown in the report ------------------------------------------------------------------------


def test_costs_are_read_back_and_old_sweeps_have_none(root: Path, tmp_path: Path) -> None:
    _, costs = built(root, tmp_path, arms__plain={"space": {"model.H_cycles": {"choices": [1, 2]}}})
    directory = write_sweep(tmp_path / "s", costs=costs)
    read = read_sweep_record(directory)
    assert json.loads(json.dumps(read.costs[0].flops_per_token_range)) == list(costs[0].flops_per_token_range or ())
    assert [replace(c, flops_per_token_range=None) for c in read.costs] == [
        replace(c, flops_per_token_range=None) for c in costs
    ]
    old = json.loads((directory / "sweep.json").read_text())
    del old["costs"]
    (directory / "sweep.json").write_text(json.dumps(old))
    assert read_sweep_record(directory).costs == []
    assert build_report(load_sweep(directory)).costs == []


def test_the_report_shows_what_the_arms_cost(tmp_path: Path) -> None:
    own = ArmCost("transformer", "text", 1_000_000, 0, 2e6, 6e6, 1, 6e9, 480, 1e6)
    other = replace(own, arm="hrm", parameters=1_100_000, flops_per_token=9e6, flops_per_token_range=(6e6, 12e6))
    directory = write_sweep(tmp_path / "s", {"transformer": [0.1, 0.2], "hrm": [0.2, 0.3]}, costs=[own, other])
    write_report(load_sweep(directory), directory)
    markdown, page = (directory / "report.md").read_text(), (directory / "report.html").read_text()
    assert "| hrm | 1,100,000 | 1.100 | 0 | 2 M | 9 M | 1.500 | 480 | 1 M |" in markdown
    for text in (markdown, page):
        assert "The space of hrm takes training FLOPs per token from 6 M to 12 M." in text
    write_json(directory / "sweep.json", replace(load_sweep(directory).record, costs=[]))
    write_report(load_sweep(directory), directory)
    assert "forward" not in (directory / "report.md").read_text()
