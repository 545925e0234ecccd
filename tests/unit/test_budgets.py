"""Budgets: on every axis a training ends with the step that spends the budget, also when it was stopped on the way."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from conftest import TINY_HRM, MakeTrial, run

from hrm.context import LocalContext
from hrm.records import Report, StepRecord
from hrm.train import StopRequested, train
from hrm.trial import BudgetSpec, TrialSpec

MakeContext = Callable[..., LocalContext]


def steps_of(reports: list[Report]) -> list[StepRecord]:
    return [step for report in reports for step in report.steps]


def stopped_and_resumed(trial: TrialSpec, make_context: MakeContext) -> list[Report]:
    """Its reports, with a stop in the second step after the first report."""
    context, reports = make_context("parts"), []
    generator = train(trial, context)
    reports.append(next(generator))
    context.stop.set()
    with pytest.raises(StopRequested):
        reports.extend(generator)
    return reports + run(trial, make_context("parts", attempt=2), known_reports=len(reports))[0]


def check_end(steps: list[StepRecord], budget: BudgetSpec) -> None:
    """The last step, and no step before it, spends the budget."""
    assert budget.spent(steps[-1].progress) >= 1.0
    assert budget.spent(steps[-2].progress) < 1.0


@pytest.mark.parametrize(("axis", "amount"), [("steps", 12), ("examples", 22), ("tokens", 3500), ("flops", 1.1e9)])
def test_a_budget_is_resumed_where_it_was(
    make_trial: MakeTrial, make_context: MakeContext, axis: str, amount: float
) -> None:
    model = {**TINY_HRM, "halting": {"rule": "none", "segments": 2}}
    trial = make_trial(model=model, budget={"axis": axis, "amount": amount}, num_reports=2)
    whole, _ = run(trial, make_context("whole"))
    assert len(steps_of(whole)) > 4
    check_end(steps_of(whole), trial.budget)
    parts = stopped_and_resumed(trial, make_context)
    assert [s.progress.step for s in steps_of(parts)] == [s.progress.step for s in steps_of(whole)]
    assert [s.progress.tokens for s in steps_of(parts)] == [s.progress.tokens for s in steps_of(whole)]


def test_seconds_are_those_of_training_over_all_attempts(make_trial: MakeTrial, make_context: MakeContext) -> None:
    trial = make_trial(budget={"axis": "seconds", "amount": 0.6}, num_reports=2)
    steps = steps_of(stopped_and_resumed(trial, make_context))
    check_end(steps, trial.budget)
    seconds = [step.progress.seconds for step in steps]
    assert seconds == sorted(seconds)
    clock = [step.time for step in steps]
    assert (
        clock[-1] - clock[0] > seconds[-1] - seconds[0]
    )  # what is between the attempts, and evaluations, is not counted
