"""Thresholds are chosen by what they cost among those that keep the accuracy, and what they save is said as it is."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from analysis.adaptive import Adaptivity, Run, outcome, retried
from analysis.adaptive_choice import Choice, choose
from analysis.adaptive_page import in_short, render_adaptivity
from hrm.adaptive import Adapted, Retry
from hrm.depth import Depth
from hrm.halting_scores import Halt

ROWS, SEGMENTS = 400, 4


def course(knows: bool) -> Depth:
    """Rows that are solved at segment 1, 2, 3, or 4 and later; a Q that knows it, or one that says the opposite."""
    solved_at = np.arange(ROWS) % 5 + 1
    right = (np.arange(1, SEGMENTS + 1)[:, None] >= solved_at).astype(np.float64)
    sure = np.where(right > 0, 0.9, 0.1) + np.linspace(0.0, 0.05, ROWS)
    return Depth(
        right=right,
        losses=1.0 - right,
        scored=np.ones(ROWS),
        confidence=sure,
        scores={"q": sure if knows else 1.0 - sure, "residual": 1.0 - sure},
    )


def test_the_cheapest_threshold_that_loses_nothing_is_chosen() -> None:
    found = choose(course(knows=True), "q", np.arange(ROWS))
    assert found.halts
    assert found.accuracy == 0.8
    assert found.segments == pytest.approx((1 + 2 + 3 + 4 + 4) / 5)
    assert 0.15 < found.halt.threshold <= 0.9
    assert found.difference.value == 0.0
    by_movement = choose(course(knows=True), "residual", np.arange(ROWS))
    assert (by_movement.segments, by_movement.accuracy) == (found.segments, found.accuracy)


def test_with_a_margin_the_interval_of_the_difference_must_rule_out_a_larger_loss() -> None:
    groups = np.arange(ROWS)
    sure = choose(course(knows=True), "q", groups, margin=0.006)
    assert (sure.segments, sure.accuracy) == (2.8, 0.8)
    assert choose(course(knows=True), "q", groups, margin=1e-4).segments == SEGMENTS, "400 rows cannot tell as much"
    loose = choose(course(knows=True), "q", groups, margin=0.3)
    assert loose.accuracy < 0.8
    assert loose.difference.low is not None
    assert loose.difference.low >= -0.3
    assert loose.segments < sure.segments


def test_a_q_that_knows_nothing_and_a_depth_that_is_needed_save_nothing() -> None:
    for rule in ("q", "fixed"):
        found = choose(course(knows=False), rule, np.arange(ROWS))  # type: ignore[arg-type]
        assert not found.halts
        assert found.segments == SEGMENTS
        assert found.accuracy == 0.8


def test_a_fixed_depth_is_chosen_where_further_segments_bring_nothing() -> None:
    early = course(knows=True)
    flat = replace(early, right=np.broadcast_to(early.right[1], early.right.shape).copy())
    assert choose(flat, "fixed", np.arange(ROWS)).halt == Halt("fixed", 1)


def run(spent: np.ndarray, right: np.ndarray, seconds: float) -> Run:
    count = len(spent)
    none = np.zeros(count, dtype=np.int64)
    sure = np.where(right > 0, 0.9, 0.2)
    found = Adapted(none, none[:, None], 1.0 - right, spent, sure, spent, none, "q", seconds)
    return Run(found, right, np.ones(count), [seconds, 2 * seconds, seconds])


def made(spent: np.ndarray, right: np.ndarray) -> Adaptivity:
    """One rule against a full depth that solves four of five rows."""
    depth, groups = course(knows=True), np.arange(ROWS)
    choice: Choice = choose(depth, "q", groups)
    full = run(np.full(ROWS, SEGMENTS), depth.right[-1], 4.0)
    own = run(spent, right, 3.0)
    more = run(spent + 2, np.ones(ROWS), 5.0)
    return Adaptivity(
        checkpoint="trm <b>",
        task="sudoku",
        metric="exact_accuracy",
        segments=SEGMENTS,
        confidence="q",
        validation_rows=ROWS,
        test_rows=ROWS,
        flops_per_segment=10.0,
        choices=[choice],
        outcomes=[outcome("full", "full", full, groups, 10.0, None), outcome("q", "q", own, groups, 10.0, full)],
        retried=[retried("q", Retry(0.5, segments=2), more, own, groups)],
        device="1 CPU thread",
        command="python -m orchestrator checkpoint adapt x",
    )


def test_savings_are_those_of_segments_and_of_measured_time_each_with_its_spread() -> None:
    spent = np.arange(ROWS) % 4 + 1
    found = made(spent, course(True).right[-1])
    one = found.outcomes[1]
    assert one.saved is not None
    assert one.saved.value == pytest.approx(1 - 2.5 / 4)
    assert one.saved.low is not None
    assert one.saved.low < one.saved.value < (one.saved.high or 0.0)
    assert one.flops == 10.0 * spent.sum()
    assert one.histogram == [100] * 4
    assert one.seconds_saved == pytest.approx([0.25] * 3)
    assert one.difference is not None
    assert one.difference.value == 0.0
    assert "saves 37.5 %" in found.lead()
    assert found.retried[0].cost.value == 2.0
    assert (found.retried[0].gained, found.retried[0].lost) == (ROWS // 5, 0)


def test_a_rule_that_saves_nothing_or_loses_accuracy_is_named_so() -> None:
    nothing = made(np.full(ROWS, SEGMENTS), course(True).right[-1])
    assert "saves nothing" in nothing.outcomes[1].verdict
    assert nothing.lead() == "No rule saves compute without a loss of accuracy here."
    worse = made(np.ones(ROWS, dtype=np.int64), course(True).right[0])
    assert "worse, by -60.0 points" in worse.outcomes[1].verdict
    assert worse.lead() == nothing.lead()


def test_the_page_and_the_json_hold_every_number_and_escape_what_comes_from_data() -> None:
    found = made(np.arange(ROWS) % 4 + 1, course(True).right[-1])
    page, data = render_adaptivity(found), json.loads(found.to_json())
    assert "trm &lt;b&gt;" in page
    assert "trm <b>" not in page
    for part in ("curve", "segments", "reliability", "More for unsure rows", "checkpoint adapt x"):
        assert part in page
    assert data["outcomes"][1]["saved"]["value"] == pytest.approx(0.375)
    assert data["choices"][0]["halt"]["rule"] == "q"
    assert data["outcomes"][1]["calibration"]["bins"]
    assert len(in_short(found)) == 3
