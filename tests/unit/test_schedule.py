"""Schedules: warm-up, constant, cosine, restarts, as functions of the step and the spent share of the budget."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from hrm.schedule import ScheduleSpec


def test_a_constant_is_one_from_the_first_step() -> None:
    assert [ScheduleSpec().factor(step, step / 10) for step in (1, 5, 10)] == [1.0, 1.0, 1.0]


def test_warmup_in_steps_rises_linearly_to_one() -> None:
    spec = ScheduleSpec(warmup_steps=4)
    assert [spec.factor(step, step / 100) for step in range(1, 7)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_warmup_as_a_share_means_the_same_on_every_axis() -> None:
    spec = ScheduleSpec(warmup_fraction=0.2)
    assert spec.factor(1, 0.05) == pytest.approx(0.25)
    assert spec.factor(1000, 0.05) == spec.factor(1, 0.05)
    assert spec.factor(9, 0.2) == 1.0


def test_a_cosine_falls_from_one_after_the_warmup_to_its_floor() -> None:
    spec = ScheduleSpec(kind="cosine", warmup_fraction=0.5, floor_fraction=0.1)
    assert spec.factor(1, 0.5) == pytest.approx(1.0)
    assert spec.factor(1, 0.75) == pytest.approx(0.55)
    assert spec.factor(1, 1.0) == pytest.approx(0.1)
    assert spec.factor(1, 1.2) == pytest.approx(0.1)  # the last step may overshoot the budget
    values = [spec.factor(1, s / 100) for s in range(50, 101)]
    assert values == sorted(values, reverse=True)


@pytest.mark.parametrize("kind", ["cosine", "cosine_restarts"])
def test_warmup_in_steps_is_followed_by_the_curve_that_the_same_share_is(kind: str) -> None:
    data = {"kind": kind, "floor_fraction": 0.1}
    steps, share = ScheduleSpec(**data, warmup_steps=300), ScheduleSpec(**data, warmup_fraction=0.3)  # type: ignore[arg-type]
    every = range(1, 1001)
    assert [steps.factor(n, n / 1000) for n in every] == pytest.approx([share.factor(n, n / 1000) for n in every])
    assert ScheduleSpec(**data, warmup_steps=8).factor(8, 1.0) == 1.0  # type: ignore[arg-type]


def test_restarts_begin_anew_after_every_period() -> None:
    spec = ScheduleSpec(kind="cosine_restarts", period_fraction=0.25)
    half = 0.5 * (1 + math.cos(math.pi / 2))
    assert [spec.factor(1, s) for s in (0.125, 0.375, 0.875)] == pytest.approx([half] * 3)
    assert [spec.factor(1, s) for s in (0.25, 0.5, 0.75)] == pytest.approx([1.0] * 3)
    assert spec.factor(1, 0.249) < 0.001


def test_periods_may_grow() -> None:
    spec = ScheduleSpec(kind="cosine_restarts", period_fraction=0.25, period_growth=2.0)
    assert spec.factor(1, 0.25) == pytest.approx(1.0)
    assert spec.factor(1, 0.5) == pytest.approx(0.5)
    assert spec.factor(1, 0.749) < 0.001


def test_two_warmups_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"must not both be given, got 3 and 0\.1; set one of them to 0"):
        ScheduleSpec(warmup_steps=3, warmup_fraction=0.1)


@pytest.mark.parametrize(("period", "growth"), [(0.25, 1.0), (1 / 3, 2.0)])
def test_a_period_that_ends_with_the_budget_is_not_restarted(period: float, growth: float) -> None:
    settings = {"kind": "cosine_restarts", "period_fraction": period, "period_growth": growth, "floor_fraction": 0.1}
    spec = ScheduleSpec.model_validate(settings)
    assert spec.factor(100, period) == 1.0  # a restart
    for spent in (1.0, 1.003):
        assert spec.factor(400, spent) == pytest.approx(0.1, abs=0.01)
