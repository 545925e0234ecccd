"""Parameters that change in mid-training, and a training in legs: another trial's state is taken over, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from conftest import TINY_HRM, TINY_TRANSFORMER, MakeTrial, run

from hrm.checkpoint import checkpoints_of, read_checkpoint
from hrm.context import LocalContext
from hrm.errors import InfrastructureError, SpecError
from hrm.legs import Leg
from hrm.records import Report
from hrm.train import LegEnded, Training, train
from hrm.trial import TrialSpec

MakeContext = Callable[..., LocalContext]
DROPPING = {**TINY_HRM, "dropout": 0.1}
ADAMW = {"kind": "adamw", "learning_rate": 0.01}
CHANGES = [
    {"report": 1, "parameters": {"optimizer.learning_rate": 0.003}},
    {"report": 2, "parameters": {"model.dropout": 0.3, "optimizer.weight_decay": 0.5, "clip_norm": 0.7}},
]


def leave(trial: TrialSpec, context: LocalContext, **options: Any) -> list[Report]:
    """A leg that ends with leaving: its reports."""
    reports, generator = [], train(trial, context, **options)
    while True:
        try:
            reports.append(next(generator))
        except LegEnded:
            return reports


def steps(reports: list[Report]) -> list[tuple[int, dict[str, float]]]:
    return [(step.progress.step, step.metrics) for report in reports for step in report.steps]


def state_at(context: LocalContext, report: Report) -> dict[str, torch.Tensor]:
    checkpoint = read_checkpoint(context.trial_directory / report.checkpoint)
    return {**checkpoint.model, **checkpoint.training, **(checkpoint.ema or {})}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_parameters_change_where_the_trial_says_and_nothing_changes_before(
    make_trial: MakeTrial, make_context: MakeContext
) -> None:
    plain, _ = run(make_trial(model=DROPPING), make_context("plain"))
    changed, _ = run(make_trial(model=DROPPING, changes=CHANGES), make_context("changed"))
    rates = [metrics["learning_rate"] for _, metrics in steps(changed)]
    assert rates == [0.01, 0.01, *[0.003] * 6]
    assert steps(changed)[:2] == steps(plain)[:2]
    assert steps(changed)[2][1]["loss"] == steps(plain)[2][1]["loss"]  # the first step at the other rate shows after it
    assert steps(changed)[3][1]["loss"] != steps(plain)[3][1]["loss"]


@pytest.mark.parametrize(
    ("after", "optimizer"),
    [(1, {"kind": "muon"}), (2, {"kind": "adamw", "learning_rate": 0.01}), (3, {"kind": "muon"})],
)
def test_a_training_with_changes_resumes_bit_for_bit(
    make_trial: MakeTrial, make_context: MakeContext, after: int, optimizer: dict[str, Any]
) -> None:
    trial = make_trial(model=DROPPING, optimizer=optimizer, changes=CHANGES, ema=0.9)
    whole, result = run(trial, make_context("whole"))
    parts = leave(trial, make_context("parts"), leg=Leg(until_report=after))
    assert [report.index for report in parts] == list(range(1, after + 1))
    rest, resumed = run(trial, make_context("parts", attempt=2), known_reports=after)
    assert steps([*parts, *rest]) == steps(whole)
    assert same(state_at(make_context("parts"), rest[-1]), state_at(make_context("whole"), whole[-1]))
    assert resumed.best_validation == result.best_validation


def test_a_trial_that_has_come_to_the_end_of_its_leg_does_not_train_again(
    make_trial: MakeTrial, make_context: MakeContext
) -> None:
    leave(make_trial(), make_context(), leg=Leg(until_report=2))
    again = leave(make_trial(), make_context(attempt=2), leg=Leg(until_report=2), known_reports=1)
    assert [report.index for report in again] == [2]


def take_over(make_trial: MakeTrial, make_context: MakeContext) -> tuple[TrialSpec, list[Report], list[Report]]:
    """Two members train to report 2; the bad one goes on from the good one's state with another rate. Gives the
    schedule of its weights, the good one's reports and those after the takeover."""
    good = make_trial(model=DROPPING)
    bad = make_trial(model=DROPPING, optimizer={"kind": "adamw", "learning_rate": 1.0})
    schedule = make_trial(model=DROPPING, changes=[{"report": 2, "parameters": {"optimizer.learning_rate": 0.012}}])
    first = leave(good, make_context("good"), leg=Leg(until_report=2))
    leave(bad, make_context("bad"), leg=Leg(until_report=2))
    leg = Leg(first_attempt=2, source="good", source_attempts=(1, 1), after_report=2)
    second, result = run(schedule, make_context("bad", attempt=2), leg=leg, known_reports=2)
    assert result.best_checkpoint.startswith("attempts/2/")
    assert [report.index for report in second] == [3, 4]
    return schedule, first, second


def test_a_state_that_is_taken_over_goes_on_as_if_one_trial_had_had_the_schedule_of_parameters(
    make_trial: MakeTrial, make_context: MakeContext
) -> None:
    """So a replica that trains with the schedule alone repeats what the population did."""
    schedule, first, second = take_over(make_trial, make_context)
    whole, _ = run(schedule, make_context("alone"))
    assert steps([*first, *second]) == steps(whole)
    assert [r.validation for r in [*first, *second]] == [r.validation for r in whole]
    assert same(state_at(make_context("bad"), second[-1]), state_at(make_context("alone"), whole[-1]))


def test_the_checkpoints_after_a_takeover_say_whose_weights_they_go_on_from(
    make_trial: MakeTrial, make_context: MakeContext
) -> None:
    _, first, second = take_over(make_trial, make_context)
    lineage = read_checkpoint(make_context("bad").trial_directory / second[-1].checkpoint).manifest["lineage"]
    assert lineage["path"] == str(make_context("good").trial_directory / first[-1].checkpoint)
    assert lineage["step"] == first[-1].progress.step


def test_a_leg_that_died_after_the_takeover_goes_on_from_its_own_checkpoint(
    make_trial: MakeTrial, make_context: MakeContext
) -> None:
    schedule, first, _ = take_over(make_trial, make_context)
    whole, _ = run(schedule, make_context("alone"))
    bad = make_context("again")
    leave(make_trial(optimizer={"kind": "adamw", "learning_rate": 1.0}), bad, leg=Leg(until_report=2))
    leg = Leg(first_attempt=2, source="good", after_report=2)
    reports = train(schedule, make_context("again", attempt=2), leg=leg, known_reports=2)
    third = next(reports)
    reports.close()
    for path in make_context("good").trial_directory.glob("attempts/*/step-*/model.safetensors"):
        path.unlink()  # the source is needed no more
    rest, _ = run(schedule, make_context("again", attempt=3), leg=leg, known_reports=3)
    assert steps([*first, third, *rest]) == steps(whole)


def test_a_state_that_cannot_be_read_is_the_clusters_failure(make_trial: MakeTrial, make_context: MakeContext) -> None:
    leave(make_trial(), make_context("good"), leg=Leg(until_report=2))
    newest = checkpoints_of(make_context("good").trial_directory, 1)[-1]
    (newest / "model.safetensors").write_bytes(b"torn")
    leg = Leg(first_attempt=1, source="good", after_report=2)
    with pytest.raises(InfrastructureError, match="the state of good after its report 2 cannot be read"):
        next(train(make_trial(), make_context("bad"), leg=leg))


def test_a_checkpoint_that_others_may_take_over_stays(make_trial: MakeTrial, make_context: MakeContext) -> None:
    trial = make_trial(budget={"axis": "steps", "amount": 8}, num_reports=8)
    leave(trial, make_context("good"), leg=Leg(until_report=2))
    wanted = checkpoints_of(make_context("good").trial_directory, 1)[-1]
    leave(trial, make_context("good", attempt=2), leg=Leg(until_report=7, kept_attempt=1), known_reports=2)
    assert wanted.exists()
    leave(trial, make_context("free"), leg=Leg(until_report=2))
    loser = checkpoints_of(make_context("free").trial_directory, 1)[-1]
    leave(trial, make_context("free", attempt=2), leg=Leg(until_report=7), known_reports=2)
    assert not loser.exists()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ([{"report": 4, "parameters": {"clip_norm": 1.0}}], "at most 3, got [4]"),
        ([{"report": 2, "parameters": {"clip_norm": 1.0}}] * 2, "must rise"),
        ([{"report": 1, "parameters": {"model.hidden_size": 32}}], "the weights' shapes"),
        ([{"report": 1, "parameters": {"batch_size": 2}}], "the rows under way"),
        ([{"report": 1, "parameters": {"optimizer.kind": "muon"}}], "other moments"),
        ([{"report": 1, "parameters": {"optimizer.learning_rate": -1.0}}], "must be > 0, got -1"),
        ([{"report": 1, "parameters": {"optimizer.learning_rat": 1.0}}], "no such field"),
    ],
)
def test_a_change_that_cannot_be_made_is_refused(make_trial: MakeTrial, changes: Any, problem: str) -> None:
    with pytest.raises(SpecError) as refused:
        make_trial(changes=changes)
    assert problem in str(refused.value)


def test_a_trial_with_changes_is_another_trial_and_survives_json(make_trial: MakeTrial) -> None:
    trial = make_trial(changes=CHANGES)
    assert TrialSpec.model_validate_json(trial.model_dump_json()) == trial
    assert make_trial(changes=[]).hash() == make_trial().hash() != trial.hash()


# --- the order of rows, paired across arms ---------------------------------------------------------------------------


def rows_in_order(trial: TrialSpec, context: LocalContext) -> list[list[int]]:
    """The rows (their tokens) that entered the carry, slot by slot and step by step."""
    training, seen = Training(trial, context), []
    while not training.done:
        free = training.state.carry.halted.clone()
        training.step()
        seen += training.state.carry.rows["inputs"][free].tolist()
    return seen


@pytest.mark.parametrize("sampling", ["sequential", "original"])
def test_replicas_of_two_arms_with_one_seed_see_the_same_rows_in_the_same_order(
    make_trial: MakeTrial, make_context: MakeContext, sampling: str
) -> None:
    common = {"sampling": sampling, "budget": {"axis": "steps", "amount": 10}}
    transformer = {"model": TINY_TRANSFORMER, "optimizer": {"kind": "adam_atan2"}}
    hrm = rows_in_order(make_trial(**common, seed=1000), make_context("hrm"))
    control = rows_in_order(make_trial(**common, **transformer, seed=1000), make_context("control"))
    assert hrm == control
    assert len(hrm) == 10 * 4
    assert hrm != rows_in_order(make_trial(**common, seed=1001), make_context("other"))


@pytest.mark.parametrize("fields", [{"batch_size": 6}, {"model": {**TINY_HRM, "halting": {"segments": 2}}}])
def test_the_order_is_the_same_also_where_an_arm_takes_other_batches_or_works_longer_on_a_row(
    make_trial: MakeTrial, make_context: MakeContext, fields: dict[str, Any]
) -> None:
    common = {"budget": {"axis": "steps", "amount": 12}, "seed": 1000}
    one = rows_in_order(make_trial(**common), make_context("one"))
    other = rows_in_order(make_trial(**common, **fields), make_context("other"))
    shared = min(len(one), len(other))
    assert shared >= 24
    assert one[:shared] == other[:shared]
