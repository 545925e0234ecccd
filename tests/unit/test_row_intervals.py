"""Intervals over rows cover the truth of simulated populations at their stated rate."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from analysis.checkpoints.row_intervals import Estimate, Sums, difference, interval

TRIES = 2000
Random = np.random.Generator


def coverage(once: Callable[[Random], Estimate], truth: float) -> float:
    """The share of intervals that hold the truth."""
    random = np.random.default_rng(7)
    found = [once(random) for _ in range(TRIES)]
    return float(np.mean([e.low is not None and e.high is not None and e.low <= truth <= e.high for e in found]))


def width(estimate: Estimate) -> float:
    assert estimate.low is not None
    assert estimate.high is not None
    return estimate.high - estimate.low


@pytest.mark.parametrize(("n", "share"), [(50, 0.5), (50, 0.95), (200, 0.02)])
def test_the_interval_of_a_share_of_rows_covers_it(n: int, share: float) -> None:
    def once(random: Random) -> Estimate:
        return interval(Sums((random.random(n) < share).astype(float), np.ones(n), True), np.arange(n))

    assert 0.93 < coverage(once, share) < 0.99


def test_the_interval_of_a_loss_over_rows_of_different_lengths_covers_it() -> None:
    def once(random: Random) -> Estimate:
        tokens = random.integers(5, 60, 60).astype(float)
        return interval(Sums(tokens * random.gamma(4.0, 0.05, 60), tokens), np.arange(60))

    assert 0.93 < coverage(once, 0.2) < 0.965


def test_rows_of_one_group_are_one_witness() -> None:
    groups = np.repeat(np.arange(30), 8)

    def once(random: Random, known: np.ndarray = groups) -> Estimate:
        losses = np.repeat(random.normal(1.0, 0.3, 30), 8) + random.normal(0.0, 0.05, 240)
        return interval(Sums(losses, np.ones(240)), known)

    assert 0.93 < coverage(once, 1.0) < 0.97
    assert coverage(lambda random: once(random, np.arange(240)), 1.0) < 0.7


@pytest.mark.parametrize(("gained", "lost"), [(0.1, 0.1), (0.03, 0.0), (0.3, 0.1)])
def test_the_interval_of_a_paired_difference_of_shares_covers_it(gained: float, lost: float) -> None:
    def once(random: Random) -> Estimate:
        draw, both = random.random(100), random.random(100) < 0.5
        first = (draw < gained) | ((draw >= gained + lost) & both)
        second = ((draw >= gained) & (draw < gained + lost)) | ((draw >= gained + lost) & both)
        return difference(Sums(first * 1.0, np.ones(100), True), Sums(second * 1.0, np.ones(100), True), np.arange(100))

    assert 0.93 < coverage(once, gained - lost) <= 0.995


def test_the_interval_of_a_paired_difference_of_losses_covers_it_and_is_short() -> None:
    def pair(random: Random) -> tuple[Sums, Sums]:
        hard = random.gamma(2.0, 0.5, 80)
        return Sums(hard + random.normal(0.0, 0.05, 80), np.ones(80)), Sums(hard + 0.02, np.ones(80))

    assert 0.93 < coverage(lambda random: difference(*pair(random), np.arange(80)), -0.02) < 0.97
    first, second = pair(np.random.default_rng(0))
    paired, alone = difference(first, second, np.arange(80)), interval(first, np.arange(80))
    assert width(paired) < 0.2 * width(alone)


def test_rows_that_do_not_count_are_no_witnesses() -> None:
    some = np.arange(100) < 10
    found = interval(Sums(np.ones(100) * some, 1.0 * some, True), np.arange(100))
    assert found.n == 10
    assert found.low == pytest.approx(0.722, abs=0.001)  # Wilson's for ten of ten


def test_rows_that_all_agree_are_not_taken_for_certainty() -> None:
    same = Sums(np.full(100, 9.0), np.full(100, 9.0), True)
    assert difference(same, same, np.arange(100)) == Estimate(0.0, -0.03, 0.03, 100)
    whole = interval(Sums(np.ones(100), np.ones(100), True), np.arange(100))
    assert whole.value == whole.high == 1.0
    assert whole.low == pytest.approx(0.963, abs=0.001)
    assert interval(same, np.zeros(100)).low is None
