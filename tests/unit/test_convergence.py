"""Convergence is judged by validation curves, and claims what they allow: checked on simulated trainings.

All numbers here are simulated; the truth behind them is known.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from sweep_fixture import replica, search_trial, write_sweep, write_trial

from analysis.autoregression import Array
from analysis.checkpoints.convergence import convergence_at
from analysis.convergence import Convergence, History, judge
from analysis.histories import Verdicts, convergence_of_checkpoint, convergence_of_trial, convergences
from analysis.learning_curve import forecast
from analysis.markdown import document_text
from analysis.report import build_report
from analysis.sections.convergence import sections
from analysis.sweep import load_sweep
from analysis.trend import trend_of


def noise(random: np.random.Generator, replicas: int, n: int, strength: float, size: float) -> Array:
    """Stationary autoregressive noise [replicas, n] of standard deviation `size`."""
    shocks = random.standard_normal((replicas, n + 60)) * size * np.sqrt(1.0 - strength**2)
    values = np.zeros_like(shocks)
    for at in range(1, n + 60):
        values[:, at] = strength * values[:, at - 1] + shocks[:, at]
    return np.asarray(values[:, 60:])


def histories(values: Array, training: Array | None = None, **about: object) -> list[History]:
    steps = np.arange(1.0, values.shape[1] + 1)
    return [
        History(f"t-{i}", steps, v, None if training is None else training[i], v, **about)  # type: ignore[arg-type]
        for i, v in enumerate(values)
    ]


def judged(values: Array, training: Array | None = None, **about: object) -> Convergence:
    return judge("hrm", histories(values, training, **about), "loss", "minimize")


@pytest.mark.parametrize(("n", "strength"), [(15, 0.0), (15, 0.5), (24, 0.6), (90, 0.6)])
def test_the_interval_of_a_single_curves_trend_covers_the_truth_under_autocorrelation(n: int, strength: float) -> None:
    random = np.random.default_rng(n)
    window = -(-n // 3)
    slope = 0.002
    line = -slope * np.arange(n)
    covered = 0
    for _ in range(150):
        trend = trend_of(line[None] + noise(random, 1, n, strength, 0.01))
        assert trend is not None
        covered += trend.low <= slope * (window - 1) <= trend.high
    assert covered / 150 >= 0.92


@pytest.mark.parametrize("replicas", [3, 5, 10])
def test_the_interval_over_replicas_covers_the_truth_at_the_stated_rate(replicas: int) -> None:
    random = np.random.default_rng(replicas)
    line = -0.002 * np.arange(9)
    trends = [trend_of(line[None] + noise(random, replicas, 9, 0.5, 0.01)) for _ in range(1500)]
    covered = np.mean([t.low <= 0.004 <= t.high for t in trends if t])
    assert 0.93 <= covered <= 0.97


@pytest.mark.parametrize("replicas", [1, 3])
def test_curves_without_a_trend_are_called_moving_in_less_than_one_of_twenty_sweeps(replicas: int) -> None:
    random = np.random.default_rng(0)
    verdicts = [judged(0.5 + noise(random, replicas, 15, 0.4, 0.01)).verdict for _ in range(60)]
    assert sum(verdict not in ("flat", "cannot tell") for verdict in verdicts) / 60 <= 0.05


CURVES: dict[str, Callable[[Array], Array]] = {
    "x^-1": lambda x: 0.2 + 0.3 / x,
    "x^-0.3": lambda x: 0.4 + 0.1 * x**-0.3,
    "x^-3": lambda x: 0.1 + x**-3.0,
    "exp(-x)": lambda x: 0.2 + np.exp(-x),
    "exp(-5x)": lambda x: 0.2 + np.exp(-5.0 * x),
}


@pytest.mark.parametrize(
    ("curve", "n", "replicas", "strength"),
    [
        ("x^-1", 6, 3, 0.0),
        ("x^-1", 40, 3, 0.3),
        ("x^-0.3", 16, 1, 0.5),
        ("x^-3", 24, 2, 0.3),
        ("exp(-x)", 16, 1, 0.3),
        ("exp(-5x)", 8, 3, 0.3),
    ],
)
def test_the_forecast_covers_what_a_longer_training_gains(curve: str, n: int, replicas: int, strength: float) -> None:
    random, true = np.random.default_rng(7), CURVES[curve]
    values = true(np.arange(1, n + 1) / n)[None]
    gain = float(true(np.ones(1))[0] - true(np.full(1, 2.0))[0])
    found = [forecast(values + noise(random, replicas, n, strength, 0.01), 0.0) for _ in range(30)]
    told = [each[0] for each in found if each]
    assert len(told) == 30
    assert np.mean([each.low <= gain <= each.high for each in told]) >= 0.9


def test_a_precise_curve_is_forecast_precisely() -> None:
    curve = 0.1 + (np.arange(1, 41) / 40) ** -3.0
    found = forecast(curve[None] + noise(np.random.default_rng(1), 3, 40, 0.0, 0.01), 0.0)
    assert found is not None
    assert found[0].gain == pytest.approx(0.875, rel=0.01)
    assert found[0].high - found[0].low < 0.02


def test_a_loss_is_never_forecast_below_zero() -> None:
    values = np.exp(-2.0 * np.arange(1, 17)[None] / 16) + noise(np.random.default_rng(1), 1, 16, 0.0, 0.02)
    found = forecast(values, 0.0)
    assert found is not None
    assert found[0].high <= 0.2
    assert found[0].ends_at >= 0.0
    assert min(found[1].low) >= 0.0


def test_a_curve_that_turns_away_from_its_power_law_is_not_trusted() -> None:
    place = np.arange(1, 41) / 40
    curve = np.where(place <= 0.75, 0.4 + 0.1 * place**-0.5, 0.8)[None]
    found = judged(curve + noise(np.random.default_rng(1), 1, 40, 0.0, 0.002))
    assert found.forecast is None or found.forecast.foresees_its_end is False
    if found.forecast is not None:
        assert any("not to be trusted" in note for note in found.notes)


def test_a_falling_curve_is_improving_and_says_by_how_much() -> None:
    curve = 0.2 + 0.3 * (np.arange(1, 13) / 12) ** -1.0
    found = judged(curve[None] + noise(np.random.default_rng(1), 3, 12, 0.0, 0.002))
    assert found.verdict == "improving"
    assert found.sentence.startswith("improving: over the last 4 of 12 reports validation loss fell by 0.0")
    assert "Student's t over 3 trainings" in found.sentence


def test_flat_needs_proof_and_noise_is_no_proof() -> None:
    random = np.random.default_rng(3)
    assert judged(0.5 + noise(random, 3, 12, 0.0, 0.0005)).verdict == "flat"
    assert judged(0.5 + noise(random, 3, 12, 0.0, 0.05)).verdict == "cannot tell"


def test_validation_that_rises_while_training_falls_is_overfitting() -> None:
    valley = 0.3 + 0.02 * np.abs(np.arange(15) - 7)
    training = np.tile(0.6 - 0.02 * np.arange(15), (3, 1))
    found = judged(valley[None] + noise(np.random.default_rng(1), 3, 15, 0.0, 0.002), training)
    assert found.verdict == "overfitting"
    assert found.best_report == 8
    assert "rose by" in found.sentence
    assert "while the training loss fell by" in found.sentence


def test_both_losses_rising_is_instability_and_without_the_training_loss_it_cannot_be_told() -> None:
    valley = 0.3 + 0.02 * np.abs(np.arange(15) - 7) + noise(np.random.default_rng(1), 3, 15, 0.0, 0.002)
    assert judged(valley, valley - 0.05).verdict == "unstable"
    unknown = judged(valley)
    assert unknown.verdict == "cannot tell"
    assert "the training loss is not known" in unknown.sentence


def test_a_jump_near_the_end_is_instability() -> None:
    values = 0.3 + 0.1 * np.exp(-np.arange(15) / 3)[None] + noise(np.random.default_rng(1), 1, 15, 0.0, 0.001)
    values[0, 12] += 0.1
    found = judged(values)
    assert (found.verdict, found.unstable) == ("unstable", ["t-0"])


@pytest.mark.parametrize("replicas", [1, 2, 3])
def test_curves_without_any_noise_are_judged_too(replicas: int) -> None:
    still = np.zeros((replicas, 12))
    assert judge("hrm", histories(still), "exact_accuracy", "maximize").verdict == "flat"
    assert judged(still + 0.5).verdict == "flat"
    exact = np.tile(0.2 + 0.3 * (np.arange(1, 13) / 12) ** -1.0, (replicas, 1))
    assert judged(exact).verdict == "improving"


def test_too_few_reports_tell_nothing_and_it_says_how_many_would() -> None:
    found = judged(np.array([[0.5, 0.4, 0.3, 0.3, 0.3]]))
    assert (found.verdict, found.forecast) == ("cannot tell", None)
    assert found.sentence == "cannot tell: 1 training of 5 reports; this many trainings need 10 reports each"


def test_an_accuracy_is_judged_upwards_and_never_forecast_above_one() -> None:
    share = 1.0 - 0.1 * (np.arange(1, 13) / 12) ** -1.0
    values = share[None] + noise(np.random.default_rng(1), 3, 12, 0.0, 0.001)
    found = judge("hrm", histories(values), "exact_accuracy", "maximize")
    assert found.verdict == "improving"
    assert "exact_accuracy rose by" in found.sentence
    assert found.forecast is not None
    assert found.forecast.high <= 1.0 - found.value + 0.01
    assert found.value < found.forecast.ends_at <= 1.0
    assert found.band is not None
    assert found.band.middle[-1] > found.band.middle[0]


def test_an_accuracy_that_holds_while_the_validation_loss_rises_says_so() -> None:
    random, steps = np.random.default_rng(1), np.arange(1.0, 13.0)
    rising = 0.3 + 0.02 * np.arange(12) + noise(random, 3, 12, 0.0, 0.002)
    share = 0.9 + noise(random, 3, 12, 0.0, 0.0003)
    used = [History(str(i), steps, share[i], 1.0 - 0.05 * steps, rising[i]) for i in range(3)]
    found = judge("hrm", used, "exact_accuracy", "maximize")
    assert found.verdict == "flat"
    assert any("the validation loss rose by 0.06" in note and "training loss fell" in note for note in found.notes)


def test_a_schedule_that_ends_with_the_budget_and_losses_of_two_kinds_are_said() -> None:
    values = 0.3 + noise(np.random.default_rng(1), 3, 12, 0.0, 0.001)
    found = judged(values, values, segments=8, dropout=True, schedule="cosine")
    assert any("ends with the budget" in note for note in found.notes)
    assert found.gap is not None
    assert not found.gap.comparable
    assert "all segments" in found.gap.why_not
    assert "dropout" in found.gap.why_not


def test_a_sweep_is_judged_by_arm_and_its_section_leads_to_the_trials(tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path / "s"))
    report = build_report(sweep)
    assert [each.name for each in report.convergence.arms] == ["transformer", "hrm", "lstm"]
    assert {len(each.keys) for each in report.convergence.arms} == {3}
    assert json.loads(report.to_json())["convergence"]["arms"][0]["verdict"] == report.convergence.arms[0].verdict
    found = sections(report, sweep, "text")
    text = document_text("s", found)
    assert "Judged by validation curves alone" in text
    assert "text-hrm-replica-0001" in text
    assert sections(replace(report, convergence=Verdicts()), sweep, "text") == []


def test_arms_without_replicas_are_judged_by_their_best_search_trial(tmp_path: Path) -> None:
    sweep = load_sweep(write_sweep(tmp_path / "s", {}, search={"hrm": 3, "empty": 0}))
    (only,) = convergences(sweep).arms
    assert only.keys == ["text-hrm-search-0000"]
    assert convergences(sweep).trainings == []


def test_a_replica_with_fewer_reports_is_left_out_and_named(tmp_path: Path) -> None:
    write_sweep(tmp_path / "s", {"hrm": [0.2, 0.21, 0.22]})
    write_trial(tmp_path / "s", replica("text", "hrm", 3, 0.2), num_reports=10)
    (only,) = convergences(load_sweep(tmp_path / "s")).arms
    assert len(only.keys) == 3
    assert any("text-hrm-replica-0003" in note for note in only.notes)


def test_a_trials_directory_and_a_checkpoint_tell_the_same(tmp_path: Path) -> None:
    trial = search_trial("text", "hrm", 0)
    write_trial(tmp_path, trial)
    place = tmp_path / "trials" / trial.key
    by_trial = convergence_of_trial(place)
    assert by_trial is not None
    lines = [json.loads(line) for line in (place / "records.jsonl").read_text().splitlines()]
    marks = [
        {
            "step": line["progress"]["step"],
            "objective": line["validation"]["loss"],
            "validation_loss": line["validation"]["loss"],
            "training_loss": line["steps"][0]["metrics"]["loss"],
        }
        for line in lines
    ]
    checkpoint = tmp_path / "step-00000480"
    checkpoint.mkdir()
    (checkpoint / "state.json").write_text(json.dumps({"history": marks}))
    (checkpoint / "manifest.json").write_text(json.dumps({"spec": trial.spec}))
    by_checkpoint = convergence_of_checkpoint(checkpoint, trial.key)
    assert by_checkpoint is not None
    assert asdict(by_checkpoint) == asdict(by_trial)


def test_where_nothing_was_reported_there_is_no_verdict(tmp_path: Path) -> None:
    assert convergence_of_trial(tmp_path) is None
    assert convergence_of_checkpoint(tmp_path, "nothing") is None


def test_checkpoints_of_a_trial_are_judged_by_its_reports_and_others_say_that_it_cannot_be_told(tmp_path: Path) -> None:
    trial = search_trial("text", "hrm", 0)
    write_trial(tmp_path, trial)
    place = tmp_path / "trials" / trial.key / "attempts" / "1"
    found = convergence_at([place / "step-00000440", place / "step-00000480"])
    assert [each.name for each in found.trainings] == [trial.key]
    assert found.answer().startswith(f"Convergence of {trial.key}: ")
    assert "late gain" in document_text("c", found.sections())
    nothing = convergence_at([tmp_path / "step_26041"])
    assert "cannot be told" in nothing.answer()
    assert nothing.sections() == []
