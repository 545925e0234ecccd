"""The loop: exact resume, honest endings, and nothing that leaks from trial to trial."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_HRM, TINY_TRANSFORMER, MakeTrial, run

from hrm.checkpoint import read_checkpoint
from hrm.context import LocalContext
from hrm.errors import SpecError, TrialError
from hrm.records import Report
from hrm.train import StopRequested, Training, train

MakeContext = Callable[..., LocalContext]
LANGUAGE = {**TINY_HRM, "dropout": 0.1, "convolution": 2, "L_cycles": 2, "halting": {"segments": 2}}
ADAM_ATAN2 = {"kind": "adam_atan2", "learning_rate": 0.01}


def losses(reports: list[Report]) -> list[tuple[int, dict[str, float]]]:
    return [(step.progress.step, step.metrics) for report in reports for step in report.steps]


def weights(context: LocalContext, report: Report) -> dict[str, torch.Tensor]:
    checkpoint = read_checkpoint(context.trial_directory / report.checkpoint)
    averages = {f"ema.{name}": mean for name, mean in (checkpoint.ema or {}).items()}
    return {**checkpoint.model, **checkpoint.training, **averages}


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("model", "optimizer", "ema"),
    [
        (LANGUAGE, {"kind": "adamw", "learning_rate": 0.01}, 0.9),
        (TINY_TRANSFORMER, ADAM_ATAN2, None),
        (LANGUAGE, {"kind": "muon", "adamw_learning_rate": 0.01}, 0.9),
    ],
)
def test_a_stopped_and_resumed_training_equals_one_that_was_not(
    make_trial: MakeTrial,
    make_context: MakeContext,
    model: dict[str, Any],
    optimizer: dict[str, Any],
    ema: float | None,
    precision: str,
) -> None:
    trial = make_trial(model=model, optimizer=optimizer, ema=ema, precision=precision, clip_norm=1.0)
    whole, result = run(trial, make_context("whole"))

    context = make_context("parts")
    parts, generator = [], train(trial, context)
    parts.append(next(generator))
    parts.append(next(generator))
    context.stop.set()  # in the middle between two reports
    with pytest.raises(StopRequested):
        next(generator)
    resumed = make_context("parts", attempt=2)
    rest, resumed_result = run(trial, resumed, known_reports=2)

    assert [r.index for r in [*parts, *rest]] == [1, 2, 3, 4]
    assert losses([*parts, *rest]) == losses(whole)
    assert [r.validation for r in [*parts, *rest]] == [r.validation for r in whole]
    expected, found = weights(make_context("whole"), whole[-1]), weights(resumed, rest[-1])
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert resumed_result.best_validation == result.best_validation


def test_a_report_that_the_driver_never_got_is_given_again(make_trial: MakeTrial, make_context: MakeContext) -> None:
    trial = make_trial()
    generator = train(trial, make_context())
    lost = [next(generator), next(generator)][1]
    generator.close()
    again, _ = run(trial, make_context(attempt=2), known_reports=1)
    assert [r.index for r in again] == [2, 3, 4]
    assert again[0] == lost


def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_is_used(
    make_trial: MakeTrial, make_context: MakeContext
) -> None:
    trial = make_trial()
    whole, _ = run(trial, make_context("whole"))
    context = make_context("damaged")
    generator = train(trial, context)
    first, second = next(generator), next(generator)
    generator.close()
    newest = context.trial_directory / second.checkpoint
    _flip_a_byte(newest / "training.safetensors")
    resumed = make_context("damaged", attempt=2)
    rest, _ = run(trial, resumed, known_reports=1)
    assert newest.with_name(f"{newest.name}.damaged").exists()
    assert losses(rest) == losses(whole[1:])  # from the first report on, not from the start
    assert [r.validation for r in rest] == [r.validation for r in whole[1:]]
    assert first.progress.step == whole[0].progress.step


def test_a_damaged_best_checkpoint_costs_no_result(make_trial: MakeTrial, make_context: MakeContext) -> None:
    context = make_context()
    generator = train(make_trial(), context, test=True)
    reports = [next(generator) for _ in range(4)]
    best = min(reports, key=lambda r: r.validation["loss"])
    _flip_a_byte(_written(context.trial_directory / best.checkpoint) / "model.safetensors")
    with pytest.raises(StopIteration) as end:
        next(generator)
    assert end.value.value.best_checkpoint == reports[-1].checkpoint
    assert end.value.value.test is not None


@pytest.mark.parametrize(("step", "reports"), [(4, 2), (8, 4), (5, 2)])
def test_a_checkpoint_that_cannot_be_written_ends_the_training_with_its_error(
    make_trial: MakeTrial, make_context: MakeContext, monkeypatch: pytest.MonkeyPatch, step: int, reports: int
) -> None:
    context = make_context()
    generator = train(make_trial(), context)
    next(generator)
    in_the_way = context.trial_directory / f"attempts/1/step-{step:08d}"
    in_the_way.parent.mkdir(parents=True, exist_ok=True)
    in_the_way.write_text("a file where a folder has to be")
    for _ in range(1, reports):
        next(generator)
    if step == 5:  # asked after the report of step 4, then after step 5, which saves
        monkeypatch.setattr(context, "should_stop", iter([False, True]).__next__)
    with pytest.raises(NotADirectoryError):
        next(generator)


def test_a_training_with_a_report_at_every_step_can_be_stopped(
    make_trial: MakeTrial, make_context: MakeContext
) -> None:
    whole, _ = run(make_trial(num_reports=8), make_context("whole"))
    context = make_context()
    generator = train(make_trial(num_reports=8), context)
    next(generator)
    context.stop.set()
    with pytest.raises(StopRequested):
        next(generator)
    rest, _ = run(make_trial(num_reports=8), make_context(attempt=2), known_reports=1)
    assert [report.index for report in rest] == list(range(2, 9))
    assert [report.validation for report in rest] == [report.validation for report in whole[1:]]


def test_a_training_that_is_left_waits_for_its_checkpoint(make_trial: MakeTrial, make_context: MakeContext) -> None:
    context = make_context()
    generator = train(make_trial(), context)
    report = next(generator)
    generator.close()
    read_checkpoint(context.trial_directory / report.checkpoint)


def test_the_first_report_of_an_attempt_tells_its_facts(make_trial: MakeTrial, make_context: MakeContext) -> None:
    generator = train(make_trial(), make_context())
    reports = [next(generator), next(generator)]
    generator.close()
    reports += run(make_trial(), make_context(attempt=2), known_reports=2)[0]
    assert [bool(report.facts) for report in reports] == [True, False, True, False]
    assert reports[0].facts.keys() == {"num_parameters", "resolved"}
    assert reports[0].facts == reports[2].facts


def test_a_report_tells_how_long_the_checkpoint_before_it_took(
    make_trial: MakeTrial, make_context: MakeContext
) -> None:
    reports, _ = run(make_trial(), make_context())
    assert "checkpoint_seconds" not in reports[0].system
    assert all(report.system["checkpoint_seconds"] > 0 for report in reports[2:])  # the second may be too early


def _written(checkpoint: Path) -> Path:
    """The checkpoint, once it is whole: it is written beside the training."""
    deadline = time.monotonic() + 20
    while not checkpoint.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return checkpoint


def _flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_trial_after_another_in_one_process_equals_the_same_trial_alone(
    make_trial: MakeTrial, make_context: MakeContext
) -> None:
    alone, _ = run(make_trial(model=LANGUAGE), make_context("alone"))
    run(make_trial(model=TINY_TRANSFORMER, seed=5, precision="float32"), make_context("before"))
    torch.rand(100)
    after, _ = run(make_trial(model=LANGUAGE), make_context("after"))
    assert losses(after) == losses(alone)
    expected, found = weights(make_context("alone"), alone[-1]), weights(make_context("after"), after[-1])
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_another_seed_is_another_training(make_trial: MakeTrial, make_context: MakeContext) -> None:
    one, _ = run(make_trial(seed=1), make_context("one"))
    two, _ = run(make_trial(seed=2), make_context("two"))
    assert one[0].validation != two[0].validation


def test_a_loss_that_is_not_finite_ends_the_trial_before_the_weights_move(
    make_trial: MakeTrial, make_context: MakeContext
) -> None:
    training = Training(make_trial(), make_context())
    training.step()
    with torch.no_grad():
        training.state.model.lm_head.weight[0, 0] = float("nan")
    before = {name: value.clone() for name, value in training.state.model.state_dict().items()}
    with pytest.raises(TrialError, match=r"not_finite: the loss is nan at step 2; the weights were not changed"):
        training.step()
    after = training.state.model.state_dict()
    assert all(torch.equal(before[name].nan_to_num(), after[name].nan_to_num()) for name in before)


def test_a_model_that_sees_the_future_is_refused_on_text(make_trial: MakeTrial, make_context: MakeContext) -> None:
    with pytest.raises(SpecError, match=r"model\.causal: a hrm that sees the future is refused on next-token data"):
        next(train(make_trial(model={**TINY_HRM, "causal": False}), make_context()))


def test_halting_by_q_is_refused_on_text_with_the_reason(make_trial: MakeTrial, make_context: MakeContext) -> None:
    halting = {**TINY_HRM, "halting": {"rule": "q", "segments": 4}}
    with pytest.raises(SpecError, match=r"the Q reads position 0, which sees only itself"):
        next(train(make_trial(model=halting), make_context()))


GENERATED = ("generated_strategy_accuracy", "generated_tactic_recall", "generated_goal_accuracy")


def test_the_test_split_is_measured_on_the_best_checkpoint_only_when_asked(
    make_trial: MakeTrial, make_context: MakeContext
) -> None:
    _, without = run(make_trial(), make_context("a"))
    reports, result = run(make_trial(), make_context("b"), test=True)
    assert without.test is None
    assert result.test is not None
    assert result.test.keys() == reports[0].validation.keys() | {"coherence", "well_formed", *GENERATED}
    assert result.best_validation["loss"] == min(r.validation["loss"] for r in reports)
    assert result.test["loss"] != result.best_validation["loss"]


def test_of_reports_that_the_objective_does_not_tell_apart_the_one_with_the_lowest_loss_is_best(
    make_trial: MakeTrial, make_context: MakeContext
) -> None:
    objective = {"metric": "exact_accuracy", "direction": "maximize"}
    reports, result = run(make_trial(objective=objective), make_context())
    assert {report.validation["exact_accuracy"] for report in reports} == {0.0}
    lowest = min(reports, key=lambda report: report.validation["loss"])
    assert lowest is not reports[0]
    assert result.best_step == lowest.progress.step


def test_only_the_newest_two_and_the_best_checkpoint_are_kept(make_trial: MakeTrial, make_context: MakeContext) -> None:
    context = make_context()
    _, result = run(make_trial(budget={"axis": "steps", "amount": 16}, num_reports=8), context)
    kept = {str(p.relative_to(context.trial_directory)) for p in context.trial_directory.glob("attempts/*/step-*")}
    assert kept == {result.best_checkpoint, "attempts/1/step-00000014", "attempts/1/step-00000016"}


def test_a_manifest_says_all_that_a_stranger_needs(make_trial: MakeTrial, make_context: MakeContext) -> None:
    context = make_context()
    trial = make_trial()
    reports, _ = run(trial, context)
    manifest = json.loads((context.trial_directory / reports[-1].checkpoint / "manifest.json").read_text())
    assert manifest["trial_id"] == trial.hash()
    assert manifest["spec"]["model"]["hidden_size"] == 16
    assert manifest["validation"] == reports[-1].validation
    assert manifest["progress"]["step"] == 8
    assert manifest["resolved"]["precision"] in ("float32", "bfloat16")
    assert manifest["dataset_fingerprint"]
    assert set(manifest["files"]) == {"model.safetensors", "training.safetensors", "state.json"}


@pytest.mark.parametrize(
    ("axis", "amount", "steps"), [("steps", 5, 5), ("examples", 22, 6), ("flops", 1.0, 1), ("tokens", 1, 1)]
)
def test_a_budget_ends_the_training_on_its_own_axis(
    make_trial: MakeTrial, make_context: MakeContext, axis: str, amount: float, steps: int
) -> None:
    _, result = run(make_trial(budget={"axis": axis, "amount": amount}), make_context())
    assert result.progress.step == steps


def test_segments_keep_a_row_for_several_steps_and_count_it_once(
    make_trial: MakeTrial, make_context: MakeContext
) -> None:
    model = {**TINY_HRM, "halting": {"rule": "none", "segments": 2}}
    _, result = run(make_trial(model=model), make_context())
    assert result.progress.step == 8
    assert result.progress.examples == 4 * 4


def test_training_learns(make_trial: MakeTrial, make_context: MakeContext) -> None:
    trial = make_trial(model=TINY_TRANSFORMER, budget={"axis": "steps", "amount": 60}, batch_size=8)
    reports, _ = run(trial, make_context())
    first = reports[0].steps[0].metrics["loss"]
    assert reports[-1].validation["loss"] < 0.7 * first


def test_a_trial_computes_with_the_threads_it_was_given(make_trial: MakeTrial, make_context: MakeContext) -> None:
    context = make_context()
    context.threads = 2
    try:
        Training(make_trial(), context)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
