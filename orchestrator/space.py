"""Search spaces: dotted paths in a TrialSpec, each with a range or choices, proved against TrialSpec at load.

A path names a field (`optimizer.learning_rate`, `model.L_cycles`). Both ends of a range and every choice are tried in
the arm's trial before anything starts, so that a bad bound is an error of the file and not of a trial.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Self

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import model_validator

from hrm.errors import Problem, SpecError
from hrm.spec import Spec, parse_spec
from hrm.trial import TrialSpec, refusals

Scalar = bool | int | float | str | None


class Dimension(Spec):
    """`{low, high}` (whole numbers if both are), `log: true` for a logarithmic scale, or `{choices: [...]}`."""

    low: int | float | None = None
    high: int | float | None = None
    log: bool = False
    step: int | float | None = None
    choices: list[Scalar] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.choices is not None:
            if self.low is not None or self.high is not None or self.log or self.step is not None:
                raise ValueError("choices and low/high/log/step exclude each other; keep one of them")
            if not self.choices:
                raise ValueError("choices must hold at least one value, got []; add values or remove the line")
            return self
        if self.low is None or self.high is None:
            raise ValueError("a dimension needs low and high, or choices; add them")
        if self.low > self.high:
            raise ValueError(f"low must be <= high, got low {self.low} and high {self.high}; swap them")
        if self.step is not None and self.step <= 0:
            raise ValueError(f"step must be > 0, got {self.step}; raise it or leave it out")
        if self.log and self.low <= 0:
            raise ValueError(f"low must be > 0 on a logarithmic scale, got {self.low}; raise it or set log: false")
        if self.log and self.step is not None:
            raise ValueError("step and log exclude each other; remove one")
        return self

    @property
    def is_whole(self) -> bool:
        """True for a range of whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int) and not isinstance(self.step, float)

    def distribution(self) -> BaseDistribution:
        """As Optuna says it."""
        if self.choices is not None:
            return CategoricalDistribution(self.choices)
        assert self.low is not None
        assert self.high is not None
        if self.is_whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(float(self.low), float(self.high), log=self.log, step=self.step)

    def refusal(self, value: Any) -> str:
        """Why it is not one of the dimension's values; empty if it is."""
        if self.choices is not None:
            known = any(value == choice and type(value) is type(choice) for choice in self.choices)
            return "" if known else f"must be one of {', '.join(map(repr, self.choices))}, got {value!r}"
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return f"must be a number, got {value!r}"
        if self.is_whole and not isinstance(value, int):
            return f"must be a whole number, got {value!r}"
        assert self.low is not None
        assert self.high is not None
        if not self.low <= value <= self.high:
            return f"must be between {self.low} and {self.high}, got {value!r}"
        on_step = self.distribution()._contains(float(value))
        return "" if on_step else f"must be {self.low} plus a multiple of the step {self.step}, got {value!r}"

    def probes(self) -> list[tuple[str, Scalar]]:
        """The values to prove, each with its name: both ends, or every choice."""
        if self.choices is not None:
            return [("choice", choice) for choice in self.choices]
        return [("low", self.low), ("high", self.high)]


Space = dict[str, Dimension]
Parameters = dict[str, Any]
"""A configuration: a value for each path of a space."""


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The space as Optuna says it."""
    return {path: dimension.distribution() for path, dimension in space.items()}


def merge(base: Any, patch: Any) -> Any:
    """`patch` laid over `base`, mapping by mapping. Another `kind` replaces the mapping: its fields are others."""
    if not (isinstance(base, dict) and isinstance(patch, dict)):
        return copy.deepcopy(patch)
    if "kind" in patch and patch["kind"] != base.get("kind"):
        return copy.deepcopy(patch)
    merged = copy.deepcopy(base)
    for key, value in patch.items():
        merged[key] = merge(merged[key], value) if key in merged else copy.deepcopy(value)
    return merged


def assign(data: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of `data` with the dotted `path` set."""
    *parents, last = _fields(path)
    result = copy.deepcopy(data)
    place = result
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise SpecError(Problem(path, f"`{parent}` holds no fields", "Name a field that is there"))
    place[last] = value
    return result


def _fields(path: str) -> list[str]:
    """The keys that a dotted path goes through. In a `space` the name of a dimension is a path itself and one key."""
    parts = path.split(".")
    if "space" not in parts[:-1]:
        return parts
    start = parts.index("space") + 1
    end = len(parts) - (parts[-1] in Dimension.model_fields)
    return [*parts[:start], ".".join(parts[start:end]), *parts[end:]]


def apply(data: dict[str, Any], parameters: dict[str, Any]) -> dict[str, Any]:
    """A copy of `data` with every searched parameter set."""
    for path, value in parameters.items():
        data = assign(data, path, value)
    return data


def prove(
    trial: dict[str, Any], space: Space, place: Callable[[str], str], space_place: Callable[[str], str]
) -> list[Problem]:
    """Every problem of an arm's trial and of its space.

    `place` gives the place in the file of a field of the trial ("" for the whole), `space_place` that of a dimension.
    """
    own = _problems(trial)
    problems = [Problem(place(p.place), p.rule, p.way_out) for p in own]
    absent = {p.place for p in own if p.rule == "is required and missing"}
    for path, dimension in space.items():
        if any(path.startswith(f"{field}.") for field in absent):
            continue
        for name, value in dimension.probes():
            new = [p for p in _problems_with(trial, path, value) if p not in own]
            problems += [_of_dimension(p, path, name, value, space_place(path)) for p in new]
    return list(dict.fromkeys(problems))


def _of_dimension(problem: Problem, path: str, name: str, value: Scalar, place: str) -> Problem:
    """The problem that a probe of a dimension showed, in the words of the space."""
    if problem.place == path and problem.rule.startswith("must "):
        way_out = problem.way_out.replace(" it", f" {name}" if name != "choice" else " this choice", 1)
        return Problem(place, f"{name} {problem.rule}", way_out)
    if path.startswith(f"{problem.place}.") and problem.rule.startswith("must "):
        return Problem(place, f"`{problem.place}` holds no fields", f"Search {problem.place} itself")
    inside = path.startswith(f"{problem.place}.") and problem.rule == "there is no such field"
    if path == problem.place or inside:
        return Problem(place, problem.rule, problem.way_out)
    return Problem(place, f"with {value!r}, {problem.place}: {problem.rule}", problem.way_out)


def _problems_with(trial: dict[str, Any], path: str, value: Scalar) -> list[Problem]:
    try:
        return _problems(assign(trial, path, value))
    except SpecError as error:
        return list(error.problems)


def _problems(trial: dict[str, Any]) -> list[Problem]:
    """The problems of a trial; the place of each is its field."""
    try:
        found = refusals(parse_spec(TrialSpec, trial, "trial"), "trial")
    except SpecError as error:
        found = list(error.problems)
    return [Problem(p.place.partition(": ")[2], p.rule, p.way_out) for p in found]
