"""What a search has to keep to before anything runs: its sampler fits the spaces, objectives and points are real."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hrm.errors import Problem, SpecError
from hrm.evaluate import METRICS
from orchestrator.objectives import COSTS
from orchestrator.space import Space

if TYPE_CHECKING:
    from hrm.tasks import TaskSpec
    from orchestrator.experiment import Arm, ExperimentSpec


def unsearchable(spec: ExperimentSpec, arms: list[Arm], tasks: Mapping[str, TaskSpec], place: str) -> list[Problem]:
    """Every problem of the search; `place` is the file."""
    return [
        replace(problem, place=f"{place}: {problem.place}")
        for problem in [*_objectives(spec, tasks), *_sampler(spec, arms), *_points(spec, arms)]
    ]


def unmeasured(spec: ExperimentSpec, tasks: Mapping[str, TaskSpec], place: str) -> list[Problem]:
    """An objective that a task does not measure."""
    metric, where = spec.objective.metric, f"{place}: objective.metric"
    return [
        Problem(where, f"must be one of {', '.join(known)} on {name}, got {metric!r}", "Correct it")
        for name, task in tasks.items()
        if metric not in (known := (*METRICS, *task.metrics))
    ]


def _objectives(spec: ExperimentSpec, tasks: Mapping[str, TaskSpec]) -> Iterator[Problem]:
    search, first = spec.search, spec.objective
    if not search.objectives:
        return
    names = [each.metric for each in search.objectives]
    if (names[0], search.objectives[0].direction) != (first.metric, first.direction):
        rule = f"must begin with the objective, {first.direction} {first.metric}, got {names[0]!r}"
        yield Problem("search.objectives", rule, "Put it first: it chooses checkpoints and ranks the front")
    if len(names) < 2 or len(set(names)) < len(names):
        rule = f"must be several different metrics, got {', '.join(names)}"
        yield Problem("search.objectives", rule, "Add another, or remove search.objectives")
    for name, task in tasks.items():
        known = (*METRICS, *task.metrics, *COSTS)
        for index, metric in enumerate(names):
            if metric not in known:
                rule = f"must be one of {', '.join(known)} on {name}, got {metric!r}"
                yield Problem(f"search.objectives[{index}].metric", rule, "Correct it")
    if search.pruner.kind != "none":
        rule = f"must be none with several objectives, got {search.pruner.kind}: no single number says which is worse"
        yield Problem("search.pruner", rule, "Set search.pruner: {kind: none}")


def _sampler(spec: ExperimentSpec, arms: list[Arm]) -> Iterator[Problem]:
    for arm in {arm.name: arm for arm in arms}.values():
        problem = spec.search.sampler.problem(arm.space, max(1, len(spec.search.objectives)))
        if problem is not None:
            yield Problem(f"search.{problem.place}", f"in arm {arm.name}: {problem.rule}", problem.way_out)
            return


def _points(spec: ExperimentSpec, arms: list[Arm]) -> Iterator[Problem]:
    for index, point in enumerate(spec.search.points):
        yield from _outside(point, spec.space, f"search.points[{index}]")
    for name, arm in spec.arms.items():
        for index, point in enumerate(arm.points):
            yield from _outside(point, {**spec.space, **arm.space}, f"arms.{name}.points[{index}]")
    for found in {arm.name: arm for arm in arms}.values():
        yield from _refused(found)


def _outside(point: Mapping[str, Any], space: Space, place: str) -> Iterator[Problem]:
    for path, value in point.items():
        if path not in space:
            known = ", ".join(space) or "nothing"
            yield Problem(f"{place}.{path}", "is not searched here", f"The space has {known}; add it there")
        elif refusal := space[path].refusal(value):
            yield Problem(f"{place}.{path}", refusal, "Correct it, or widen the space")


def _refused(arm: Arm) -> Iterator[Problem]:
    """Whole points whose values are each allowed and do not go together."""
    for point in arm.points:
        if point.keys() == arm.space.keys():
            try:
                arm.trial(point, 0)
            except SpecError as error:
                yield from (replace(p, rule=f"with the point {point}: {p.rule}") for p in error.problems)
