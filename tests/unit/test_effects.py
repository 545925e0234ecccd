"""Effects against known answers, and by simulation: intervals cover what they state, and nothing wins by chance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from analysis.compare import compare
from analysis.effects import Effect, adjusted, effect, holm, is_better

Arm = dict[int, float]


def arm(values: np.ndarray) -> Arm:
    return dict(enumerate(map(float, values)))


def covered(low: float | None, high: float | None, truth: float) -> bool:
    assert low is not None
    assert high is not None
    return low < truth < high


@pytest.mark.parametrize("n", [3, 5, 10, 30])
@pytest.mark.parametrize("paired", [True, False])
def test_every_interval_covers_a_known_effect_95_times_in_100(n: int, paired: bool) -> None:
    """A true difference of -0.8 at a level of 40; the second arm is noisier where the seeds are independent."""
    random, repetitions = np.random.default_rng(n), 300
    shared = random.normal(size=(repetitions, n)) if paired else np.zeros((repetitions, n))
    noise = (1.0, 1.0) if paired else (1.0, 1.5)
    first = 40.0 + shared + noise[0] * random.normal(size=(repetitions, n))
    second = 40.8 + shared + noise[1] * random.normal(size=(repetitions, n))
    size = -0.8 / math.hypot(*noise)
    hits = []
    for a, b in zip(first, second, strict=True):
        found = effect(arm(a), arm(b), "minimize", paired)
        hits.append(
            [
                covered(found.low, found.high, -0.8),
                covered(found.relative_low, found.relative_high, 40.0 / 40.8 - 1.0),
                covered(found.size_low, found.size_high, size),
                covered(found.probability_low, found.probability_high, float(stats.norm.cdf(-size))),
            ]
        )
        assert found.p is not None
        assert (found.p < 0.05) == (not covered(found.low, found.high, 0.0))
    assert np.all(np.abs(np.mean(hits, axis=0) - 0.95) < 0.04)


@pytest.mark.parametrize("n", [5, 10, 30])
@pytest.mark.parametrize("skewed", [False, True])
def test_without_an_effect_fewer_than_5_of_100_sweeps_have_a_winner(n: int, skewed: bool) -> None:
    """Two arms, of which the better one wins where p is below 0.05; for more arms and three seeds see test_compare."""
    random, sweeps = np.random.default_rng(n), 400
    noise = random.exponential(size=(sweeps, 2, n)) if skewed else random.normal(size=(sweeps, 2, n))
    decided = [(effect(arm(a), arm(b), "minimize").p or 0.0) < 0.05 for a, b in noise]
    assert np.mean(decided) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / sweeps)


def test_pairs_and_independent_runs_are_tested_as_scipy_does() -> None:
    a, b = np.array([0.31, 0.28, 0.35, 0.30]), np.array([0.36, 0.30, 0.41, 0.33])
    assert effect(arm(a), arm(b), "minimize").p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    welch = effect(arm(a), arm(b[:3]), "minimize", paired=False)
    expected = stats.ttest_ind(a, b[:3], equal_var=False)
    interval = expected.confidence_interval()
    assert (welch.p, welch.low, welch.high) == pytest.approx((expected.pvalue, interval.low, interval.high))
    assert (welch.n, welch.better_at) == (3, None)


def test_the_size_is_hedges_and_its_interval_is_the_noncentral_t() -> None:
    difference = np.array([-0.05, -0.02, -0.06, -0.03, -0.01])
    found = effect(arm(difference), arm(np.zeros(5)), "minimize")
    raw = difference.mean() / difference.std(ddof=1)
    assert found.size == pytest.approx(raw * (1 - 3 / (4 * 4 - 1)), rel=0.01)  # the usual approximation of the factor
    t = raw * math.sqrt(5)
    assert found.size_low is not None
    assert found.size_high is not None
    assert stats.nct.cdf(t, 4, found.size_low * math.sqrt(5)) == pytest.approx(0.975, abs=1e-6)
    assert stats.nct.cdf(t, 4, found.size_high * math.sqrt(5)) == pytest.approx(0.025, abs=1e-6)
    assert found.probability == pytest.approx(stats.norm.sf(found.size))
    assert found.better_at == 5


def test_a_quotient_is_given_only_where_the_other_mean_is_clearly_above_zero() -> None:
    assert effect(arm(np.array([1.0, 1.2, 1.1])), arm(np.array([2.0, 2.4, 2.2])), "minimize").relative == pytest.approx(
        -0.5
    )
    assert effect(arm(np.array([1.0, 1.2, 1.1])), arm(np.array([0.1, -0.2, 0.15])), "minimize").relative is None


def test_the_direction_turns_the_chance_and_the_verdict_but_not_the_difference() -> None:
    a, b = arm(np.array([0.9, 0.91, 0.93])), arm(np.array([0.7, 0.74, 0.71]))
    up, down = (adjusted([effect(a, b, direction)])[0] for direction in ("maximize", "minimize"))
    assert up.mean == down.mean
    assert up.probability is not None
    assert up.probability + (down.probability or 0.0) == pytest.approx(1.0)
    assert (up.better_at, down.better_at) == (3, 0)
    assert is_better(up, "maximize")
    assert not is_better(down, "minimize")


def test_a_clear_effect_of_many_seeds_survives_the_correction_for_many_arms() -> None:
    random = np.random.default_rng(0)
    arms = {str(number): arm(random.normal(size=12)) for number in range(25)}
    best = {"best": arm(random.normal(-9.0, 1.0, size=12))}
    assert compare({**best, **arms}, "minimize").decided


def test_one_common_seed_and_none_tell_nothing() -> None:
    one = effect({1: 0.2, 2: 0.3}, {2: 0.5}, "minimize")
    assert one == Effect(mean=0.3 - 0.5, n=1)
    assert effect({1: 0.2}, {2: 0.5}, "minimize") == Effect()


def test_equal_values_show_no_spread_and_claim_none() -> None:
    found = effect({1: 1.0, 2: 1.0}, {1: 1.0, 2: 1.0}, "maximize")
    assert (found.p, found.size, found.probability, found.detectable) == (1.0, None, None, None)


def test_what_could_not_be_tested_counts_as_a_comparison() -> None:
    found = adjusted([Effect(mean=-1.0, p=0.02), Effect(mean=-1.0), Effect(mean=-1.0, p=0.3)])
    assert [item.adjusted_p for item in found] == [pytest.approx(0.06), None, pytest.approx(0.6)]
    assert holm([0.02, 1.0, 0.3]) == pytest.approx([0.06, 1.0, 0.6])
