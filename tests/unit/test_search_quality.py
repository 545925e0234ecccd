"""Whether a search was long enough and what its pruner cut is told from its trials, where they can tell.

The sweeps are synthetic: directories as the orchestrator writes them, with objectives made by a formula.
"""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from searched_sweep import (
    by_learning_rate,
    by_nothing,
    noted,
    pruned_sweep,
    reported,
    searched,
    with_replicas,
)
from sweep_fixture import NUM_REPORTS

from analysis import foretelling
from analysis.foretelling import foretell, predict
from analysis.search_quality import best_of, search_qualities
from analysis.sensitivity import sensitivities
from analysis.sweep import load_sweep
from orchestrator import importance
from orchestrator.importance import importances


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for what is tested, and four times as fast."""
    monkeypatch.setattr(importance, "TREES", 16)


def test_what_is_foretold_of_a_pruned_trial_holds_what_it_would_have_reached() -> None:
    random, held = np.random.default_rng(3), []
    for trials in (5, 8, 20):
        for _ in range(150):
            early = random.normal(0, 1, trials + 1)
            ends = 0.5 * early - 3.0 + 0.2 * random.normal(size=trials + 1)
            drawn = predict(early[:-1], ends[:-1], early[-1:], random, draws=400)
            low, high = np.quantile(drawn, [0.025, 0.975])
            held.append(low <= ends[-1] <= high)
    assert 0.93 <= np.mean(held) <= 0.975


def test_nothing_is_foretold_to_get_worse_than_it_was() -> None:
    random = np.random.default_rng(0)
    drawn = predict(random.normal(size=6), random.normal(size=6), np.array([-1.0, 2.0]), random)
    assert (drawn <= np.array([-1.0, 2.0])).all()


def test_a_promising_trial_that_was_cut_is_found_and_a_hopeless_one_is_not(tmp_path: Path) -> None:
    (promising,) = search_qualities(pruned_sweep(tmp_path / "promising", 0.7))
    assert promising.cut is not None
    assert promising.cut.probability > 0.9
    assert promising.cut.gain == pytest.approx(0.2 * 0.3, rel=0.3)
    assert promising.cut.likeliest == "text-hrm-search-0001"
    (hopeless,) = search_qualities(pruned_sweep(tmp_path / "hopeless", 3.0))
    assert hopeless.cut is not None
    assert hopeless.cut.probability < 0.01
    assert hopeless.saved == pytest.approx((1 - 8 / NUM_REPORTS) / 9)
    notes = noted(reported(pruned_sweep(tmp_path / "again", 0.7)), "Would fewer")
    assert "it looks as if it cut a better trial" in notes[0]


def test_a_pruned_trial_counts_with_what_was_foretold_of_it(tmp_path: Path) -> None:
    sweep = pruned_sweep(tmp_path / "s", 3.0)
    (found,) = sensitivities(sweep)
    assert found.expected["text-hrm-search-0001"] == pytest.approx(0.6, rel=0.15)
    assert (found.trials, found.foretold) == (9, 1)
    assert {(each.trials, each.foretold) for each in importances(sweep)} == {(9, 1)}


def test_four_completed_trials_foretell_nothing(tmp_path: Path) -> None:
    (found,) = search_qualities(pruned_sweep(tmp_path / "s", 0.7, completed=4))
    assert found.cut is None
    assert "cannot be told from so few that completed" in noted(reported(load_sweep(tmp_path / "s")), "Would fewer")[0]


def test_of_very_many_trials_a_sample_is_foretold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foretelling, "MOST_TRIALS", 6)
    assert foretell(pruned_sweep(tmp_path / "s", 0.7), "text", "hrm").completed <= 6


def test_the_expected_best_of_k_is_that_of_all_choices() -> None:
    values = np.random.default_rng(0).normal(size=9)
    for found in best_of(values, range(1, 10)):
        every = [min(chosen) for chosen in combinations(values, found.k)]
        assert found.mean == pytest.approx(np.mean(every))
        assert np.mean(np.array(every) <= found.low) >= 0.05
        assert np.mean(np.array(every) < found.low) < 0.05
        assert np.mean(np.array(every) <= found.high) >= 0.95


def test_a_search_that_went_on_for_long_needed_fewer_trials(tmp_path: Path) -> None:
    sweep = with_replicas(tmp_path / "s", [0.2, *np.linspace(0.2, 0.21, 19)], [0.2, 0.22, 0.24])
    (found,) = search_qualities(sweep)
    assert found.seed_spread == pytest.approx(0.02)
    assert found.enough == 1
    assert found.again == pytest.approx(0.22)
    assert (
        "1 of the 20 trials that it ran would have come within one seed spread (0.020)"
        in noted(reported(sweep), "Would")[0]
    )


def test_a_search_that_was_still_finding_better_says_so(tmp_path: Path) -> None:
    sweep = with_replicas(tmp_path / "s", [1.0] * 7 + [0.2], [0.2, 0.201, 0.202])
    assert search_qualities(sweep)[0].enough == 8
    assert "half of its 8 trials would not have been enough" in noted(reported(sweep), "Would fewer")[0]


def test_a_sampler_that_learnt_is_said_to_and_one_that_did_not_is_not(tmp_path: Path) -> None:
    falling = [1.0 - 0.05 * i for i in range(12)]
    learnt = reported(with_replicas(tmp_path / "learnt", falling, []))
    assert "so its sampler learnt" in noted(learnt, "Would fewer")[0]
    other = reported(with_replicas(tmp_path / "other", falling[::-1], []))
    assert "learnt" not in noted(other, "Would fewer")[0]


def test_without_replicas_nobody_says_how_many_trials_were_needed(tmp_path: Path) -> None:
    sweep = searched(tmp_path / "s", by_learning_rate, 10)
    assert search_qualities(sweep)[0].enough is None
    assert "cannot be told without two replicas" in noted(reported(sweep), "Would fewer")[0]


def test_choices_that_no_trial_finished_are_named(tmp_path: Path) -> None:
    def never_linear(parameters: dict[str, Any], random: np.random.Generator) -> float:
        parameters["schedule.kind"] = "cosine"
        return by_nothing(parameters, random)

    report = reported(searched(tmp_path / "s", never_linear, 10))
    assert "no trial with schedule.kind constant or linear trained to the end" in noted(report, "Would fewer")[0]


def test_more_is_better_where_the_objective_is_maximized(tmp_path: Path) -> None:
    def hump(parameters: dict[str, Any], random: np.random.Generator) -> float:
        return 3.0 - by_learning_rate(parameters, random)

    sweep = searched(tmp_path / "s", hump, 30, metric="exact_accuracy", direction="maximize")
    (quality,), (found,) = search_qualities(sweep), sensitivities(sweep)
    means = [point.mean for point in quality.expected]
    assert means == sorted(means)
    assert means[-1] == pytest.approx(quality.best) == pytest.approx(max(t.objective or 0 for t in sweep.trials))
    rate = next(around for around in found.around if around.parameter == "optimizer.learning_rate")
    assert rate.worse[0]
    assert rate.worse[-1]
    assert rate.expected[len(rate.expected) // 2] > rate.expected[0]
