"""How closely the arms of an experiment match in parameters and in training FLOPs per token.

`match:` in the file refuses arms that are too unlike, before anything runs, and says which size comes nearest. Nothing
is fitted in silence: every size stands in the file.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from analysis.numbers import amount, count, listing
from analysis.records import ArmCost, compared_to
from analysis.tables import references_in_words
from hrm.data.dataset import open_dataset
from hrm.errors import Problem, SpecError
from hrm.spec import Spec
from hrm.trial import BudgetSpec, TrialSpec
from orchestrator.costs import Quantity, measure

if TYPE_CHECKING:
    from orchestrator.experiment import Arm, Experiment, ExperimentSpec

_SIZES = ("num_layers", "num_layers_per_stack", "H_layers", "L_layers", "hidden_size")
"""Fields of a model that its parameters rise with, and its FLOPs."""
_CYCLES = ("cycles", "H_cycles", "L_cycles")
"""Fields that only its FLOPs rise with."""
_LARGEST = 2048
"""How often a size's step is added in search of a match."""
_WORDS: dict[Quantity, str] = {"parameters": "parameters", "flops_per_token": "training FLOPs per token"}


class MatchSpec(Spec):
    """How closely arms must match, each as the file states it, without its space. Nothing is enforced by default."""

    parameters: float | None = Field(None, ge=0.0)
    """The largest relative difference in parameters, puzzle tables left out: 0.05 is 5 %."""
    flops_per_token: float | None = Field(None, ge=0.0)
    """The same in training FLOPs per token and segment."""
    to: str | None = None
    """The arm that the others are compared with; null for the first."""


def reference_arm(spec: ExperimentSpec) -> str:
    """The arm that the others are compared with."""
    return spec.match.to or next(iter(spec.arms))


def unmatched(spec: ExperimentSpec, place: str) -> list[Problem]:
    """What is wrong with `match` itself."""
    if spec.match.to is None or spec.match.to in spec.arms:
        return []
    rule, way_out = f"there is no arm {spec.match.to!r}", f"The arms are {', '.join(spec.arms)}"
    return [Problem(f"{place}: match.to", rule, way_out)]


def check_match(experiment: Experiment, costs: list[ArmCost], data_root: Path) -> None:
    """Raises SpecError with every arm that `match` refuses. `costs` are those of the experiment's arms, in order."""
    reference = compared_to(costs, reference_arm(experiment.spec))
    problems = [
        _misfit(experiment, arm, quantity, getattr(cost, quantity), reference[arm.task], data_root)
        for quantity in _WORDS
        for arm, cost in zip(experiment.arms, costs, strict=True)
    ]
    found = [problem for problem in problems if problem is not None]
    if found:
        raise SpecError(*found)


def _misfit(
    experiment: Experiment, arm: Arm, quantity: Quantity, value: float, reference: ArmCost, data_root: Path
) -> Problem | None:
    wanted: float = getattr(reference, quantity)
    spec, ratio = experiment.spec, value / wanted
    tolerance: float | None = getattr(spec.match, quantity)
    if tolerance is None or abs(ratio - 1.0) <= tolerance:
        return None
    where = f"{arm.name} on {arm.task}" if len(experiment.tasks) > 1 else arm.name
    rule = (
        f"in arm {where}: {_WORDS[quantity]} must be within {100 * tolerance:g} % of the {_number(wanted)} of "
        f"{reference.arm}, got {_number(value)}, {ratio:.3f} times as many"
    )
    fields: tuple[str, ...] = _SIZES
    if quantity == "flops_per_token":
        fields = _CYCLES if spec.match.parameters is not None else (*_CYCLES, *_SIZES)
    shape = open_dataset(experiment.tasks[arm.task], data_root).shape
    near = _nearest(arm, fields, lambda trial: measure(quantity, trial, shape) / wanted, tolerance)
    advice = f"Set arms.{arm.name}.patch.model.{' or '.join(near)}, or raise" if near else "Raise"
    enough = math.ceil(100 * abs(ratio - 1.0)) / 100
    return Problem(f"match.{quantity}", rule, f"{advice} match.{quantity} to {enough:g}")


def _nearest(
    arm: Arm, fields: Sequence[str], ratio_of_trial: Callable[[TrialSpec], float], tolerance: float
) -> list[str]:
    """`field: value (ratio)` of fields of the arm's model that would match; else of the one that comes nearest."""
    model = arm.trial({}, 0).model
    found: list[tuple[float, str]] = []

    @cache
    def ratio_of(field: str, value: int) -> float:
        try:
            return ratio_of_trial(arm.trial({f"model.{field}": value}, 0))
        except SpecError:  # too small for this model
            return 0.0

    for field in (field for field in fields if field in type(model).model_fields):
        step = 2 * getattr(model, "num_heads", 1) if field == "hidden_size" else 1
        value = _closest(step, partial(ratio_of, field))
        ratio = ratio_of(field, value)
        if ratio and value != getattr(model, field):
            found.append((abs(ratio - 1.0), f"{field}: {value} ({ratio:.3f} times)"))
    found.sort(key=lambda pair: pair[0])
    return [words for off, words in found[:3] if off <= tolerance] or [words for _, words in found[:1]]


def _closest(step: int, ratio_of: Callable[[int], float]) -> int:
    """The multiple of `step` whose ratio is nearest to 1. Ratios rise with the value; refused ones are 0."""
    top = step
    while ratio_of(top) < 1.0 and top < _LARGEST * step:
        top *= 2
    values = range(step, top + 1, step)
    above = min(bisect_left(values, 1.0, key=ratio_of), len(values) - 1)
    return min(values[max(above - 1, 0) : above + 1], key=lambda value: abs(ratio_of(value) - 1.0))


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else count(value)


def how_well(costs: list[ArmCost], reference: str, budget: BudgetSpec) -> str:
    """In words, how far the arms are from the one that they are compared with, and what their budget matches."""
    own = compared_to(costs, reference)
    others = [cost for cost in costs if cost != own[cost.task]]

    def spread(value: Callable[[ArmCost], float]) -> str:
        ratios = [value(cost) / value(own[cost.task]) for cost in others]
        off = max(abs(ratio - 1.0) for ratio in ratios)
        ends = dict.fromkeys(f"{ratio:.2f}" for ratio in (min(ratios), max(ratios)))
        return f"within {100 * off:.2g} %" if off < 0.1 else f"{' to '.join(ends)} times"

    trains = f"Every trial trains for {amount(budget.amount, budget.axis)}"
    if not others:
        return f"{trains}."
    facts = [f"parameters {spread(lambda cost: cost.parameters)}"]
    facts.append(f"training FLOPs per token {spread(lambda cost: cost.flops_per_token)}")
    if budget.axis == "flops":
        trains += ", so arms match in training FLOPs by construction"
    elif budget.axis != "seconds":
        facts.append(f"training FLOPs of a trial {spread(lambda cost: (cost.steps or 0) * cost.flops_per_step)}")
    return f"Against {references_in_words(costs, reference)}: {listing(facts)}. {trains}."
