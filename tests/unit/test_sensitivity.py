"""Around the best configuration a surrogate says what is true, with a doubt that holds it, or that it cannot tell.

The sweeps are synthetic: directories as the orchestrator writes them, with objectives made by a formula.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import special
from searched_sweep import (
    SPACE,
    by_learning_rate,
    by_nothing,
    noted,
    pruned_sweep,
    reported,
    searched,
    section,
)
from sweep_fixture import write_sweep

from analysis.foretelling import Array, Scale
from analysis.search_space import Axis, points_of, space_of
from analysis.section import Chart
from analysis.sensitivity import sensitivities
from analysis.surrogate import fit
from analysis.sweep import load_sweep
from orchestrator import importance
from orchestrator.importance import search_findings


@pytest.fixture(autouse=True)
def few_trees(monkeypatch: pytest.MonkeyPatch) -> None:
    """Enough for what is tested, and four times as fast."""
    monkeypatch.setattr(importance, "TREES", 16)


@pytest.mark.parametrize("trials", [8, 20, 60])
def test_the_band_around_the_best_holds_the_truth(trials: int) -> None:
    random, axes = np.random.default_rng(trials), [Axis(f"x{i}") for i in range(4)] + [Axis("k", choices=tuple("abc"))]

    def truth(points: Array) -> Array:
        return np.asarray(4 * (points[:, 0] - 0.3) ** 2 + 0.5 * points[:, 1] + 0.3 * (points[:, 4] == 1))

    held = []
    for _ in range(25):
        points = np.concatenate([random.random((trials, 4)), random.integers(0, 3, (trials, 1))], axis=1)
        values = truth(points) + 0.1 * random.normal(size=trials)
        surrogate = fit(axes, points, values, np.zeros(trials))
        line = np.repeat(points[values.argmin()][None], 10, axis=0)
        line[:, random.integers(4)] = np.linspace(0, 1, 10)
        mean, covariance = surrogate.joint(line)
        held.append(np.abs(mean - truth(line)) < special.stdtrit(trials - 2, 0.975) * np.sqrt(np.diag(covariance)))
    assert np.mean(held) >= 0.95


def test_the_surrogate_finds_the_pair_that_acts_together(tmp_path: Path) -> None:
    def together(parameters: dict[str, Any], random: np.random.Generator) -> float:
        rate = np.log10(parameters["optimizer.learning_rate"] / 1e-3)
        return 2.0 + float(rate * (parameters["model.num_layers"] - 3.5) / 2 + random.normal(0, 0.05))

    (found,) = sensitivities(searched(tmp_path / "s", together, 60))
    assert {found.pairs[0].one, found.pairs[0].other} == {"optimizer.learning_rate", "model.num_layers"}
    assert found.pairs[0].share > 0.7
    assert found.pairs[0].p is not None
    assert found.pairs[0].p < 0.05
    assert (found.foretells or 0.0) > 0.8
    assert found.plane is not None
    low, high = np.array(found.plane.expected)[[0, -1]]
    assert (np.argmin(low) == 0) != (np.argmin(high) == 0)  # what is best of one hangs on the other


def test_values_that_are_worse_are_named_and_the_best_is_not_among_them(tmp_path: Path) -> None:
    (found,) = sensitivities(searched(tmp_path / "s", by_learning_rate, 30))
    rate = next(around for around in found.around if around.parameter == "optimizer.learning_rate")
    assert rate.worse[0]
    assert rate.worse[-1]
    assert not rate.worse[len(rate.worse) // 2]
    assert rate.low[0] < 2.0 < rate.high[0]
    others = [around for around in found.around if around is not rate]
    assert sum(map(any, (around.worse for around in others))) <= 1


def test_a_best_at_the_end_of_its_range_is_said(tmp_path: Path) -> None:
    def more_is_better(parameters: dict[str, Any], random: np.random.Generator) -> float:
        return float(3.0 - 0.3 * parameters["model.num_layers"] + random.normal(0, 0.01))

    report = reported(searched(tmp_path / "s", more_is_better, 30))
    assert "model.num_layers (upper end): a wider one may hold a better" in noted(report, "Around the best")[0]


def test_a_surrogate_that_foretells_nothing_draws_no_line_and_says_so(tmp_path: Path) -> None:
    report = reported(searched(tmp_path / "s", by_nothing, 12))
    (figure,) = [block.figure for block in section(report, "Around the best").blocks if isinstance(block, Chart)]
    lines = [trace for trace in figure.data if trace.mode == "lines"]
    assert "nothing can be told from it" in noted(report, "Around the best")[0]
    assert not any(len(trace.x) for trace in lines)


def test_a_space_that_was_not_recorded_is_that_of_its_trials(tmp_path: Path) -> None:
    sweep = searched(tmp_path / "s", by_nothing, 12)
    known = {axis.path: axis for axis in space_of(sweep.record, "hrm", sweep.trials)}
    unknown = {axis.path: axis for axis in space_of(replace(sweep.record, experiment={}), "hrm", sweep.trials)}
    assert known.keys() == unknown.keys() == SPACE.keys() - {"fixed"}
    assert unknown["optimizer.learning_rate"].log
    assert unknown["schedule.kind"].named
    assert len(points_of(list(unknown.values()), sweep.trials)[0]) == 12


def test_trials_outside_a_space_that_moved_are_left_out(tmp_path: Path) -> None:
    sweep = searched(tmp_path / "s", by_nothing, 12)
    moved = {**SPACE, "model.num_layers": {"low": 2, "high": 3}}
    axes = space_of(replace(sweep.record, experiment={"space": moved}), "hrm", sweep.trials)
    kept, points = points_of(axes, sweep.trials)
    assert {trial.parameters["model.num_layers"] for trial in kept} == {2, 3}
    assert points.shape == (len(kept), 4)


def test_values_on_a_logarithmic_scale_come_back(tmp_path: Path) -> None:
    values = np.array([0.1, 0.5, 3.0])
    for direction in ("minimize", "maximize"):
        scale = Scale.of(values, direction)
        assert scale.log
        assert scale.back(scale.to(values)) == pytest.approx(values)


def test_a_search_that_has_only_begun_has_no_sections(tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path / "s", {}, search={"hrm": 0}))
    findings = search_findings(sweep)
    assert not [*findings.importances, *findings.qualities, *findings.sensitivities]
    assert reported(sweep) == []


def test_points_of_a_slice_lead_to_their_trials_and_their_values_follow_the_chosen_parameter(tmp_path: Path) -> None:
    sweep = pruned_sweep(tmp_path / "s", 3.0)
    (chart,) = [b for b in section(reported(sweep), "Around the best").blocks if isinstance(b, Chart)]
    menu = {button.label: button.args[0]["x"] for button in chart.figure.layout.updatemenus[0].buttons}
    assert menu.keys() == {f"over {path}" for path in SPACE.keys() - {"fixed"}}
    dots = [(i, trace) for i, trace in enumerate(chart.figure.data) if trace.mode == "markers"]
    assert {trace.legendgroup for _, trace in dots} == {"hrm"}
    for path in SPACE.keys() - {"fixed"}:
        for i, trace in dots:
            trials = [next(t for t in sweep.trials if t.key == key) for key in trace.customdata]
            assert list(menu[f"over {path}"][i]) == [trial.parameters[path] for trial in trials]
