"""Calibration, agreement and the way between weights, against known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analysis.checkpoints.agreement import Barrier, agreement, barrier_of, linear_cka, mixed, pairs_to_compare
from analysis.checkpoints.calibration import calibration
from analysis.checkpoints.candidate_pool import Candidate, Chooser, RunningMean
from analysis.checkpoints.measuring import Measured
from analysis.checkpoints.recommendation import recommend
from analysis.checkpoints.row_intervals import Estimate

Random = np.random.Generator


def probabilities(random: Random, shift: float, n: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Confidences, and outcomes that are as likely as these minus `shift`."""
    confidence = 0.22 + 0.65 * random.random(n)
    return confidence, (random.random(n) < confidence - shift).astype(float)


def test_a_calibrated_q_is_called_miscalibrated_in_one_of_twenty_samples() -> None:
    random = np.random.default_rng(1)
    found = [calibration(*probabilities(random, 0.0), np.arange(300), seed) for seed in range(50)]
    assert np.mean([one.p < 0.05 for one in found]) <= 0.12
    assert np.mean([one.error.low == 0.0 for one in found]) >= 0.88


@pytest.mark.parametrize("shift", [0.1, -0.1, 0.2])
def test_the_interval_of_the_calibration_error_covers_it(shift: float) -> None:
    random = np.random.default_rng(2)
    found = [calibration(*probabilities(random, shift), np.arange(300), seed).error for seed in range(50)]
    inside = [(one.low or 0.0) <= abs(shift) <= (one.high or 0.0) for one in found]
    assert np.mean(inside) >= 0.88
    assert np.mean([one.value for one in found]) == pytest.approx(abs(shift), abs=0.03)


def test_a_q_that_promises_too_much_is_told_from_one_that_promises_too_little() -> None:
    random = np.random.default_rng(3)
    everyone = np.arange(300)
    assert "overconfident" in calibration(*probabilities(random, 0.15), everyone).verdict
    assert "underconfident" in calibration(*probabilities(random, -0.2), everyone).verdict
    rare = calibration(np.full(300, 0.01), (everyone < 2).astype(float), everyone)
    assert rare.verdict == "cannot tell: of 300 rows only 2 are solved"


def test_bins_hold_all_rows_and_equal_confidences_lie_in_one() -> None:
    confidence = np.repeat([0.1, 0.5, 0.9], [150, 30, 120])
    found = calibration(confidence, (np.arange(300) % 2).astype(float), np.arange(300))
    assert [inside.rows for inside in found.bins] == [150, 30, 120]
    assert found.error.value == pytest.approx((150 * 0.4 + 0 + 120 * 0.4) / 300)


def test_cka_is_one_for_rotated_states_and_about_zero_for_unrelated_ones() -> None:
    random = np.random.default_rng(4)
    states = random.normal(size=(60, 100)) * np.linspace(0.1, 2.0, 100) + 3.0
    rotation, _ = np.linalg.qr(random.normal(size=(100, 100)))
    assert linear_cka(states, 5.0 * states @ rotation - 1.0) == pytest.approx(1.0, abs=1e-6)
    unrelated = [linear_cka(states, random.normal(size=(60, 100))) for _ in range(20)]
    assert np.mean(unrelated) == pytest.approx(0.0, abs=0.05)
    noisy = linear_cka(states, states + random.normal(size=states.shape))
    assert 0.2 < noisy < 0.95
    assert np.isnan(linear_cka(np.ones((60, 3)), states))


def measured(exact: np.ndarray, losses: np.ndarray | None = None, predictions: np.ndarray | None = None) -> Measured:
    """Rows of one scored position, after one segment or several [T, N]."""
    exact = np.atleast_2d(exact).astype(float)
    n = exact.shape[1]
    return Measured(
        losses=np.atleast_2d(1.0 - exact if losses is None else losses),
        tokens=np.ones(n),
        correct=exact,
        exact=exact,
        changed=np.zeros_like(exact),
        predictions=exact[-1][:, None] if predictions is None else predictions,
        scored=np.ones((n, 1), dtype=bool),
    )


def test_agreement_counts_who_solves_what() -> None:
    first, second = measured(np.array([1, 1, 0, 0, 1])), measured(np.array([1, 0, 1, 0, 1]))
    pair = agreement(("a", "b"), first, second, np.arange(5))
    assert pair.solved == {"both": 2, "first": 1, "second": 1, "neither": 1}
    assert pair.same_tokens.value == pair.same_rows.value == pytest.approx(0.6)


def way(middle: float, noise: float = 0.02) -> Barrier:
    random = np.random.default_rng(5)
    hard, hill = random.gamma(2.0, 0.5, 200), np.array([0.0, 0.6, 1.0, 0.6, 0.0])
    return barrier_of(
        hard + middle * hill[:, None] + noise * random.normal(size=(5, 200)), np.ones(200), np.arange(200)
    )


def test_a_hill_between_two_weights_is_a_barrier_and_a_valley_is_none() -> None:
    hill, valley, flat = way(0.5), way(-0.5), way(0.0, 1e-4)
    assert hill.verdict == "barrier"
    assert hill.height.value == pytest.approx(0.5, abs=0.01)
    assert (hill.height.low or 0.0) <= 0.5 <= (hill.height.high or 0.0)
    assert valley.verdict == flat.verdict == "none"
    assert way(0.015, 0.3).verdict == "cannot tell"
    assert barrier_of(np.ones((5, 1)), np.ones(1), np.zeros(1)).verdict == "cannot tell"


def test_weights_are_mixed_and_averaged_value_by_value() -> None:
    first, second = {"a": torch.tensor([0.0, 2.0])}, {"a": torch.tensor([4.0, 2.0])}
    assert mixed(first, second, 0.25)["a"].tolist() == [1.0, 2.0]
    mean = RunningMean()
    for value in (1.0, 2.0, 6.0):
        mean.add({"a": torch.tensor([value])})
    assert mean.weights["a"].tolist() == pytest.approx([3.0])
    assert mean.with_one_more({"a": torch.tensor([7.0])})["a"].tolist() == pytest.approx([4.0])


def test_the_pairs_that_matter_most_come_first() -> None:
    assert pairs_to_compare(["a", "b", "c", "d"], 9) == [("a", "d"), ("c", "d"), ("b", "c"), ("a", "b"), ("b", "d")]
    assert pairs_to_compare(["a"], 9) == []


def candidate(name: str, family: str, share: float, seed: int, flops: float = 4.0, size: int = 4) -> Candidate:
    """Solves this share of 400 rows, the same for each name: rows are solved in one order of difficulty, with noise."""
    random = np.random.default_rng(seed)
    exact = np.random.default_rng(0).permutation(400) + random.normal(0.0, 20.0, 400) < 400 * share
    return Candidate(name, family, measured(exact), -1, flops, size)


def chooser() -> Chooser:
    return Chooser("exact_accuracy", True, np.arange(400) < 200)


def verdicts(*pool: Candidate) -> dict[str, tuple[str, str]]:
    return {one.use: (one.verdict, one.choice) for one in recommend(pool, chooser(), np.arange(400))}


def test_a_candidate_that_is_better_on_both_halves_is_recommended() -> None:
    last, soup = candidate("last", "checkpoint", 0.5, 1), candidate("soup", "average", 0.7, 2)
    assert verdicts(last, soup)["accuracy"] == ("better", "soup")
    assert verdicts(last, candidate("soup", "average", 0.3, 2))["accuracy"] == ("no other is better", "last")


def test_of_equal_candidates_the_best_by_chance_is_rarely_called_better() -> None:
    named = []
    for trial in range(100):
        pool = [candidate(str(number), "checkpoint", 0.5, 20 * trial + number) for number in range(8)]
        named.append(verdicts(*pool)["accuracy"][0])
    assert named.count("better") <= 6
    assert "cannot tell" in named


def test_what_is_cheaper_is_recommended_only_where_it_surely_loses_no_more_than_the_margin() -> None:
    last = candidate("last", "checkpoint", 0.5, 1)
    same = Candidate("shallow", "depth", last.found, -1, 1.0, 4)
    half = Candidate("half", "precision", last.found, -1, 4.0, 2)
    found = verdicts(last, same, half)
    assert found["speed"] == ("as good", "shallow")
    assert found["size"] == ("as good", "half")
    worse = candidate("shallow", "depth", 0.3, 2, flops=1.0)
    assert verdicts(last, worse)["speed"] == ("none as good", "last")


def test_a_lucky_checkpoint_is_not_recommended_for_speed_where_it_is_not_for_accuracy() -> None:
    last, lucky = candidate("last", "checkpoint", 0.5, 1), candidate("lucky", "checkpoint", 0.505, 4)
    found = verdicts(last, lucky, candidate("shallow", "depth", 0.3, 2, flops=1.0))
    assert found["accuracy"] == ("cannot tell", "last")
    assert found["speed"] == ("none as good", "last")


def test_what_is_broken_is_never_recommended() -> None:
    broken = Candidate("last", "checkpoint", measured(np.ones(400), np.full(400, np.nan)), -1, 4.0, 4)
    assert not broken.works
    assert verdicts(broken, candidate("before", "checkpoint", 0.2, 1))["accuracy"] == ("nothing to try", "before")
    assert recommend([broken], chooser(), np.arange(400)) == []


def test_an_estimate_shows_two_digits_of_its_width() -> None:
    assert str(Estimate(0.00333, -0.01504, 0.02166, 9)) == "0.003 (-0.015 to 0.022)"
    assert str(Estimate(0.5, None, None, 1)) == "0.500"
    assert str(Estimate(0.5, float("nan"), float("nan"), 1)) == "–"
