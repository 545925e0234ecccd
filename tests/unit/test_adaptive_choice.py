"""Thresholds are chosen by what they cost among those that keep the accuracy, and what they save is said as it is."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from analysis.adaptive import Adaptivity, Outcome, Run, accuracy_words, outcome, retried
from analysis.adaptive_choice import Choice, choose
from analysis.adaptive_page import in_short, render_adaptivity, time_words
from analysis.checkpoints.row_intervals import Estimate, Sums, difference
from hrm.adaptive import Adapted, Cost, Retry
from hrm.depth import Depth
from hrm.halting_scores import Halt

ROWS, SEGMENTS = 400, 4
COST = Cost(10.0, 0.0)


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
    found = Adapted(none, none[:, None], 1.0 - right, spent, sure, spent, none, none + 1, "q", seconds)
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
        cost=COST,
        choices=[choice],
        outcomes=[outcome("full", "full", full, groups, COST, None), outcome("q", "q", own, groups, COST, full)],
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
    assert "saves nothing" in nothing.outcomes[1].verdict(0.01)
    assert nothing.lead() == "No rule saves compute without a loss of accuracy here."
    worse = made(np.ones(ROWS, dtype=np.int64), course(True).right[0])
    assert "worse, by -60.0 points" in worse.outcomes[1].verdict(0.01)
    assert worse.lead() == nothing.lead()


def lost_and_gained(lost: int, gained: int, rows: int = 100) -> Estimate:
    full = np.repeat([1.0, 0.0], [rows - gained, gained])
    own = np.concatenate([np.zeros(lost), np.ones(rows - lost)])
    return difference(Sums(own, np.ones(rows), True), Sums(full, np.ones(rows), True), np.arange(rows))


def test_an_accuracy_is_equal_only_where_its_interval_rules_a_loss_out() -> None:
    open_ = lost_and_gained(8, 2)
    assert "no difference of accuracy is shown, but up to 12.2 points may be lost, -6.0" in accuracy_words(open_, 0.01)
    assert "equal to within 15 points" in accuracy_words(open_, 0.15)
    assert "equal to within 1 point, -0.1 points" in accuracy_words(lost_and_gained(6, 4, 2000), 0.01)
    assert "worse, by -12.0" in accuracy_words(lost_and_gained(12, 0), 0.5)
    assert "better, by +12.0" in accuracy_words(lost_and_gained(0, 12), 0.5)
    assert "no difference" in accuracy_words(Estimate(0.0, None, None, 1), 0.01)


def against(full: Run, *own: tuple[str, int, np.ndarray]) -> Adaptivity:
    """Rules by name, each with the segments that all its rows get, and what is right."""
    groups, found = np.arange(len(full.right)), made(np.full(ROWS, SEGMENTS), course(True).right[-1])
    outcomes: list[Outcome] = [outcome("full", "full", full, groups, COST, None)]
    for rule, spent, right in own:
        outcomes.append(outcome(rule, rule, run(np.full(len(right), spent), right, 3.0), groups, COST, full))
    return replace(found, outcomes=outcomes, retried=[], test_rows=len(full.right))


def test_the_lead_takes_the_largest_saving_among_those_that_are_shown_to_lose_nothing() -> None:
    whole, rows = np.ones(2000), np.arange(2000)
    full = run(np.full(2000, SEGMENTS), whole, 4.0)
    doubtful = np.where(rows < 20, 0.0, 1.0)
    clear = against(full, ("q", 3, whole), ("residual", 2, np.where(rows < 200, 0.0, 1.0)))
    assert clear.lead().startswith("q saves 25.0 %")
    broken = run(np.full(2000, SEGMENTS), np.where(rows >= 1990, 0.0, 1.0), 4.0)
    unsure = against(broken, ("q", 3, doubtful))
    assert unsure.lead().startswith("No rule that saves compute is shown to keep the accuracy. q saves 25.0 %")
    assert "up to 1.1 points may be lost" in unsure.lead()
    assert against(broken, ("fixed", 3, broken.right), ("q", 2, doubtful)).lead().startswith("fixed saves 25.0 %")
    few = run(np.full(2000, SEGMENTS), np.where(rows < 9, 1.0, 0.0), 4.0)
    assert against(few, ("q", 1, few.right)).lead() == (
        "Only 9 of 2,000 rows are right at full depth: an equal accuracy means little here."
    )


def test_where_a_fixed_depth_saves_as_much_nothing_adaptive_is_shown() -> None:
    whole = np.ones(2000)
    full = run(np.full(2000, SEGMENTS), whole, 4.0)
    said = "A fixed depth of 2 saves as much: nothing adaptive is shown"
    assert said in against(full, ("fixed", 2, whole), ("q", 2, whole)).findings()
    assert said in against(full, ("fixed", 2, whole), ("q", 1, np.zeros(2000))).findings()
    assert said not in against(full, ("fixed", 2, whole), ("q", 1, whole)).findings()
    assert said not in against(full, ("fixed", 2, whole)).findings()


def test_nothing_is_said_to_save_more_than_all_but_the_first_segment() -> None:
    some = np.ones(20)
    full = run(np.full(20, SEGMENTS), some, 4.0)
    saved = against(full, ("q", 1, some)).outcomes[1].saved
    assert saved is not None
    assert saved.value == saved.high == 0.75
    assert saved.low is not None
    assert saved.low < 0.75


def test_unsure_rows_are_those_below_whether_or_not_more_brought_anything() -> None:
    spent = np.full(ROWS, 2)
    before = run(spent, course(True).right[-1], 3.0)
    found = retried("q", Retry(0.5), before, before, np.arange(ROWS))
    assert found.rows == ROWS // 5
    assert "no row was below" not in found.verdict


def test_the_median_of_an_even_number_of_times_lies_between_the_two_in_the_middle() -> None:
    one = replace(made(np.full(ROWS, 2), np.ones(ROWS)).outcomes[1], seconds_saved=[0.4, 0.1, 0.2, 0.3])
    assert time_words(one) == "25 % (10 to 40)"


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
