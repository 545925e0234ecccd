"""The statistics against known numbers, and by simulation against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis.compare import compare, probability_best
from analysis.effects import holm
from analysis.intervals import bootstrap_interval, mean_interval, t_interval


def paired(**arms: list[float]) -> dict[str, dict[int, float]]:
    return {name: dict(enumerate(values)) for name, values in arms.items()}


def test_three_seeds_use_the_t_of_two_degrees_of_freedom() -> None:
    mean = mean_interval([1.0, 2.0, 3.0])
    assert mean.mean == 2.0
    assert mean.high is not None
    assert mean.high - 2.0 == pytest.approx(4.302653 * 1.0 / np.sqrt(3), rel=1e-6)


def test_the_interval_agrees_with_scipy() -> None:
    values = [0.31, 0.28, 0.35, 0.30, 0.29]
    expected = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    mean = mean_interval(values)
    assert (mean.low, mean.high) == pytest.approx(expected)


def test_one_seed_has_no_interval() -> None:
    mean = mean_interval([0.5])
    assert (mean.mean, mean.low, mean.high, mean.n) == (0.5, None, None, 1)


def test_the_t_interval_of_three_seeds_covers_the_truth_95_times_in_100() -> None:
    low, high = t_interval(np.random.default_rng(1).normal(size=(40_000, 3)))
    assert np.mean((low < 0.0) & (high > 0.0)) == pytest.approx(0.95, abs=0.005)


def test_the_bootstrap_of_ten_seeds_covers_the_truth_about_95_times_in_100() -> None:
    random = np.random.default_rng(2)
    intervals = [bootstrap_interval(random.normal(size=10), resamples=1000) for _ in range(2000)]
    assert np.mean([low < 0.0 < high for low, high in intervals]) == pytest.approx(0.95, abs=0.015)


def test_ten_seeds_are_bootstrapped_and_twice_alike() -> None:
    values = list(np.random.default_rng(3).exponential(size=10))
    first, again = mean_interval(values), mean_interval(values)
    assert first == again
    assert first.low is not None
    assert first.low != pytest.approx(float(t_interval(np.array(values))[0]))


def test_holm_is_holms_and_keeps_the_order_given() -> None:
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_a_difference_is_the_paired_t_test_of_scipy() -> None:
    arms = paired(a=[0.10, 0.20, 0.30, 0.42], b=[0.15, 0.24, 0.37, 0.45])
    difference = compare(arms, "minimize").differences[0]
    expected = stats.ttest_rel(list(arms["a"].values()), list(arms["b"].values()))
    assert difference.p == pytest.approx(expected.pvalue)
    interval = expected.confidence_interval(0.95)
    assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high))


def test_pairing_finds_what_the_seeds_would_hide() -> None:
    arms = paired(a=[0.10, 0.30, 0.50], b=[0.12, 0.321, 0.519])
    assert compare(arms, "minimize").decided
    assert stats.ttest_ind(list(arms["a"].values()), list(arms["b"].values())).pvalue > 0.9


def test_only_common_seeds_are_paired() -> None:
    comparison = compare({"a": {0: 1.0, 1: 1.1, 2: 0.9}, "b": {1: 2.1, 2: 1.95, 9: 50.0}}, "minimize")
    assert comparison.differences[0].n == 2
    assert comparison.differences[0].mean == pytest.approx(-1.025)


def test_arms_without_two_common_seeds_are_not_decided() -> None:
    comparison = compare({"a": {0: 1.0, 1: 1.1}, "b": {1: 9.0, 2: 9.1}}, "minimize")
    assert not comparison.decided
    assert comparison.differences[0].adjusted_p is None


def test_every_rival_must_be_beaten() -> None:
    clear = paired(a=[0.10, 0.11, 0.12], b=[0.30, 0.311, 0.321], c=[0.40, 0.411, 0.419])
    assert compare(clear, "minimize").decided
    close = {**clear, "d": dict(enumerate([0.11, 0.10, 0.13]))}
    assert compare(close, "minimize").best == "a"
    assert not compare(close, "minimize").decided


def test_the_direction_turns_the_order() -> None:
    arms = paired(a=[0.10, 0.11, 0.12], b=[0.30, 0.311, 0.321])
    best = compare(arms, "maximize")
    assert (best.best, best.decided) == ("b", True)
    assert best.differences[0].mean == pytest.approx(0.2006667)


def test_one_arm_alone_wins_nothing() -> None:
    assert not compare(paired(a=[0.1, 0.1, 0.1]), "minimize").decided


def test_equal_values_at_every_seed_are_no_difference_and_equal_differences_are() -> None:
    assert not compare(paired(a=[1.0, 1.0, 1.0], b=[1.0, 1.0, 1.0]), "maximize").decided
    assert compare(paired(a=[1.0, 1.0, 1.0], b=[0.0, 0.0, 0.0]), "maximize").decided


@pytest.mark.parametrize("num_arms", [2, 4])
def test_without_an_effect_a_winner_is_declared_in_at_most_5_of_100_sweeps(num_arms: int) -> None:
    random = np.random.default_rng(4)
    sweeps = 3000
    noise = random.normal(size=(sweeps, num_arms, 3)) + random.normal(size=(sweeps, 1, 3))
    decided = [
        compare({str(arm): dict(enumerate(values)) for arm, values in enumerate(sweep)}, "minimize").decided
        for sweep in noise
    ]
    assert np.mean(decided) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / sweeps)
    assert num_arms > 2 or np.mean(decided) > 0.035


def test_the_detectable_difference_is_found_about_four_times_in_five() -> None:
    random = np.random.default_rng(5)
    a, b = random.normal(size=(2, 2000, 8))
    typical = np.median(
        [compare(paired(a=x, b=y), "minimize").differences[0].detectable for x, y in zip(a, b, strict=True)]
    )
    found = [compare(paired(a=x, b=y + typical), "minimize").decided for x, y in zip(a, b, strict=True)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.1)


def test_the_probability_of_two_arms_agrees_with_the_t_distribution() -> None:
    # One arm is all but fixed, so the probability is that of one t with two degrees of freedom.
    shares = probability_best({"a": [1.0, 2.0, 3.0], "b": [2.5, 2.5, 2.5 + 1e-9]}, "minimize")
    assert shares is not None
    assert shares["a"] == pytest.approx(stats.t.cdf(0.5 / (1 / np.sqrt(3)), 2), abs=0.01)
    assert sum(shares.values()) == pytest.approx(1.0)


def test_the_probability_is_shared_between_equal_arms_and_turns_with_the_direction() -> None:
    assert probability_best({"a": [1.0, 1.0], "b": [1.0, 1.0]}, "minimize") == {"a": 0.5, "b": 0.5}
    shares = probability_best({"a": [1.0, 1.1, 0.9], "b": [9.0, 9.1, 8.9]}, "maximize")
    assert shares is not None
    assert shares["b"] > 0.99


def test_one_seed_gives_no_probability() -> None:
    assert probability_best({"a": [1.0], "b": [2.0, 2.1]}, "minimize") is None
