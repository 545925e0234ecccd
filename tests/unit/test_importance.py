"""Which parameters mattered is said where they did, and nothing is where nothing did.

The sweeps are synthetic: directories as the orchestrator writes them, with objectives made by a formula.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from searched_sweep import (
    SPACE,
    by_learning_rate,
    by_nothing,
    noted,
    reported,
    rows,
    searched,
)

from analysis.association import main_effects, pair_effects
from analysis.search_space import Axis
from orchestrator import importance
from orchestrator.importance import importances, search_findings


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for what is tested, and four times as fast."""
    monkeypatch.setattr(importance, "TREES", 16)


def test_the_parameter_that_decides_is_named_and_the_others_are_not(tmp_path: Path) -> None:
    found = importances(searched(tmp_path / "s", by_learning_rate, 30))
    assert found[0].parameter == "optimizer.learning_rate"
    assert {each.parameter for each in found} == SPACE.keys() - {"fixed"}
    assert [each.p < 0.05 for each in found] == [True, False, False, False]
    assert found[0].low > 0.3
    assert found[0].low <= found[0].share <= found[0].high <= 1.0
    assert found[0].trials == 30


def test_no_parameter_stands_out_where_none_matters(tmp_path: Path) -> None:
    report = reported(searched(tmp_path / "s", by_nothing, 12))
    notes = noted(report, "What mattered in the search")
    assert notes == ["hrm: no parameter stands out from chance (12 trials)."]
    assert {row[-1] for row in rows(report, "What mattered in the search")} == {"cannot tell"}


def test_chance_is_called_an_effect_in_at_most_5_percent_of_searches() -> None:
    random, axes = np.random.default_rng(1), [Axis(f"x{i}") for i in range(5)] + [Axis("kind", choices=("a", "b"))]
    for trials in (8, 30):
        wrong = 0
        for seed in range(200):
            points = np.concatenate([random.random((trials, 5)), random.integers(0, 2, (trials, 1))], axis=1)
            wrong += min(main_effects(axes, points, random.standard_t(3, size=trials), seed)) < 0.05
        assert wrong <= 18  # 5 % of 200 are 10, two standard deviations more 16


def test_what_two_parameters_do_together_is_told_from_what_each_does_alone() -> None:
    random, axes = np.random.default_rng(2), [Axis(f"x{i}") for i in range(3)]
    found, wrong = 0, 0
    for seed in range(60):
        points = random.random((40, 3))
        alone = points[:, 0] + 2 * (points[:, 1] - 0.5) ** 2 + 0.1 * random.normal(size=40)
        tested = pair_effects(axes, points, alone, seed)
        wrong += min(tested.values()) < 0.05
        together = alone + 3 * (points[:, 0] - 0.5) * (points[:, 1] - 0.5)
        found += pair_effects(axes, points, together, seed)[0, 1] < 0.05
    assert wrong <= 8
    assert found >= 55


def test_pairs_are_not_tested_where_the_trials_are_too_few() -> None:
    points = np.random.default_rng(0).random((8, 5))
    assert pair_effects([Axis(f"x{i}") for i in range(5)], points, points[:, 0]) == {}


def test_very_many_trials_are_looked_at_by_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importance, "MOST_TRIALS", 10)
    monkeypatch.setattr(importance, "TREES", 4)
    found = importances(searched(tmp_path / "s", by_learning_rate, 30))
    assert {each.trials for each in found} == {10}


def test_members_of_a_population_tell_nothing_of_the_parameters_that_they_began_with(tmp_path: Path) -> None:
    sweep = searched(tmp_path / "s", by_learning_rate, 12)
    taken = {"report": 1, "from": sweep.trials[1].key, "value": 1.0, "parameters": {}}
    sweep.trials[0] = replace(sweep.trials[0], lineage=[taken])
    findings = search_findings(sweep)
    assert [*findings.importances, *findings.qualities, *findings.sensitivities] == []


def test_a_search_of_three_trials_says_nothing_of_importance(tmp_path: Path) -> None:
    assert importances(searched(tmp_path / "s", by_learning_rate, 3)) == []
