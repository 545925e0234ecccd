"""Guards: what ends a training early, and that a resumed training decides what an unbroken one would."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from conftest import TINY_TRANSFORMER, MakeTrial, run

from hrm.checkpoint import newest_checkpoint
from hrm.context import LocalContext
from hrm.errors import SpecError, TrialError
from hrm.guards import DivergedSpec, GapSpec, GuardsSpec, Mark, PlateauSpec, verdict
from hrm.train import StopRequested, train
from hrm.trial import ObjectiveSpec

MakeContext = Callable[..., LocalContext]
BLOWS_UP = {"optimizer": {"kind": "adamw", "learning_rate": 1.0}, "num_reports": 8}
STANDS_STILL = {
    "optimizer": {"kind": "adamw", "learning_rate": 1e-9},
    "budget": {"axis": "steps", "amount": 16},
    "num_reports": 8,
}
OVERFITS = {
    "model": TINY_TRANSFORMER,
    "optimizer": {"kind": "adamw", "learning_rate": 0.03},
    "budget": {"axis": "steps", "amount": 160},
    "batch_size": 8,
    "num_reports": 20,
}


def history(validation: list[float], training: list[float] | None = None) -> list[Mark]:
    pairs = zip(validation, training or validation, strict=True)
    return [Mark(10 * (n + 1), value, value, trained) for n, (value, trained) in enumerate(pairs)]


def judged(guards: GuardsSpec, marks: list[Mark], direction: Any = "minimize") -> list[str]:
    """The first word of the verdict at every report until one ends the training."""
    found = []
    for count in range(1, len(marks) + 1):
        found.append(verdict(guards, ObjectiveSpec(direction=direction), marks[:count]).split(":")[0])
        if found[-1]:
            break
    return found


def test_without_guards_nothing_ends_a_training() -> None:
    assert judged(GuardsSpec(), history([1.0, 9.0, 9.0, 9.0])) == [""] * 4


def test_a_loss_far_above_its_best_has_diverged_and_the_sentence_has_the_numbers() -> None:
    guards = GuardsSpec(diverged=DivergedSpec(factor=2.0))
    assert judged(guards, history([1.0, 1.9, 2.0])) == [""] * 3
    with pytest.raises(TrialError) as caught:
        judged(guards, history([1.5, 1.0, 2.5]))
    assert str(caught.value) == (
        "diverged: the validation loss is 2.5 at step 30, more than 2 times its best so far, 1"
    )
    with pytest.raises(TrialError, match="the training loss is 4"):
        judged(guards, history([1.0, 1.0], [1.0, 4.0]))


def test_the_grace_of_a_diverging_trial_ends() -> None:
    guards = GuardsSpec(diverged=DivergedSpec(factor=2.0, grace=3))
    assert judged(guards, history([1.0, 5.0, 9.0])) == [""] * 3
    with pytest.raises(TrialError, match="diverged"):
        judged(guards, history([1.0, 5.0, 9.0, 9.0]))


def test_a_plateau_is_so_many_reports_without_an_improvement() -> None:
    guards = GuardsSpec(plateau=PlateauSpec(reports=2))
    assert judged(guards, history([3.0, 2.0, 2.5, 1.9, 1.95, 1.91, 1.0])) == ["", "", "", "", "", "plateau"]
    assert judged(guards, history([3.0, 4.0, 2.9, 3.0, 2.8])) == [""] * 5


def test_an_improvement_below_the_least_is_none() -> None:
    guards = GuardsSpec(plateau=PlateauSpec(reports=2, min_improvement=0.1))
    assert judged(guards, history([1.0, 0.95, 0.91])) == ["", "", "plateau"]
    assert judged(guards, history([1.0, 0.95, 0.89])) == [""] * 3


def test_a_plateau_of_an_objective_to_maximize() -> None:
    guards = GuardsSpec(plateau=PlateauSpec(reports=2))
    assert judged(guards, history([0.1, 0.2, 0.3, 0.4]), "maximize") == [""] * 4
    assert judged(guards, history([0.4, 0.3, 0.35]), "maximize") == ["", "", "plateau"]


def test_a_growing_gap_needs_a_falling_and_a_rising_loss() -> None:
    guards = GuardsSpec(gap=GapSpec(reports=2))
    assert judged(guards, history([1.0, 1.1, 1.2], [1.0, 0.8, 0.6])) == ["", "", "gap"]
    assert judged(guards, history([1.0, 0.95, 0.9], [1.0, 0.8, 0.6])) == [""] * 3  # both fall
    assert judged(guards, history([1.0, 1.1, 1.2], [1.0, 1.0, 1.0])) == [""] * 3  # one stands
    assert judged(guards, history([1.0, 1.3, 1.2], [1.0, 0.8, 0.9])) == [""] * 3  # the gap has shrunk again


def test_a_guard_that_could_never_act_is_refused(make_trial: MakeTrial) -> None:
    with pytest.raises(SpecError, match=r"guards.plateau.reports must be below num_reports, which is 4, got 4"):
        make_trial(guards={"plateau": {"reports": 4}})
    with pytest.raises(SpecError, match=r"guards.plateau: there is no such field|guards.plateau.report"):
        make_trial(guards={"plateau": {"report": 2}})


def test_guards_are_part_of_the_trial_only_where_they_are_set(make_trial: MakeTrial) -> None:
    assert "guards" not in make_trial().canonical()
    assert make_trial(guards={"gap": {"reports": 2}}).hash() != make_trial().hash()


def test_a_diverged_training_fails_after_its_report(make_trial: MakeTrial, make_context: MakeContext) -> None:
    trial, reports = make_trial(**BLOWS_UP, guards={"diverged": {"factor": 1.5}}), []
    with pytest.raises(TrialError) as caught:
        reports.extend(train(trial, make_context()))
    assert caught.value.reason == "diverged"
    assert 1 < len(reports) < 8
    with pytest.raises(TrialError) as again:  # killed between the report and the end of the trial
        list(train(trial, make_context(attempt=2), known_reports=len(reports)))
    assert str(again.value) == str(caught.value)


@pytest.mark.parametrize(
    ("fields", "guards", "word"),
    [
        (STANDS_STILL, {"plateau": {"reports": 2, "min_improvement": 0.01}}, "plateau"),
        (OVERFITS, {"gap": {"reports": 1}}, "gap"),
    ],
)
def test_a_training_that_ends_early_is_a_result_with_its_sentence_also_when_it_was_stopped_on_the_way(
    make_trial: MakeTrial, make_context: MakeContext, fields: dict[str, Any], guards: dict[str, Any], word: str
) -> None:
    trial = make_trial(**fields, guards=guards)
    whole, result = run(trial, make_context("whole"), test=True)
    assert 2 <= len(whole) < trial.num_reports
    assert result.ended_early.startswith(f"{word}: ")
    assert result.test

    parts, context = [], make_context("parts")
    generator = train(trial, context)
    parts.append(next(generator))
    context.stop.set()
    with pytest.raises(StopRequested):
        parts.extend(generator)
    rest, resumed = run(trial, make_context("parts", attempt=2), known_reports=len(parts), test=True)
    assert [r.validation for r in [*parts, *rest]] == [r.validation for r in whole]
    untimed = [replace(r.progress, seconds=0.0) for r in (result, resumed)]
    assert untimed[0] == untimed[1]
    assert (resumed.ended_early, resumed.test, resumed.best_step) == (result.ended_early, result.test, result.best_step)

    none, again = run(trial, make_context("parts", attempt=3), known_reports=len(whole), test=True)
    assert not none  # killed after the last report: nothing is trained again
    assert (again.ended_early, again.test) == (result.ended_early, result.test)


def test_a_training_without_guards_remembers_its_reports_too(make_trial: MakeTrial, make_context: MakeContext) -> None:
    context = make_context()
    reports, result = run(make_trial(), context)
    assert result.ended_early == ""
    found = newest_checkpoint(context.trial_directory, 1)
    assert found is not None
    marks = found[1].state["history"]
    assert [m["validation_loss"] for m in marks] == [r.validation["loss"] for r in reports]
    first = [step.metrics["loss"] for step in reports[0].steps]
    assert marks[0]["training_loss"] == pytest.approx(sum(first) / len(first))
