"""Population based training (Jaderberg et al. 2017) whose state is in the study, so that no kill changes a decision.

All members train to a report and leave; then those of the worst quantile go on from the state of a member of the best
quantile, with parameters perturbed by Ray Tune's own rule, and the others from their own. A decision is a function of
what is in the study before it and is noted there before anybody acts on it.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial
from pydantic import Field

from hrm.changes import unchangeable
from hrm.errors import Problem, SpecError
from hrm.legs import Leg
from hrm.spec import Spec, parse_spec
from hrm.trial import TrialSpec
from orchestrator.space import Dimension, Parameters, Space

if TYPE_CHECKING:
    from orchestrator.experiment import Arm, ExperimentSpec
    from orchestrator.studies import SearchStudy

FACTORS = (1.2, 0.8)
"""Ray Tune's perturbation factors."""


class PopulationSpec(Spec):
    """Population based training in the place of a pruner: the search's trials are the members."""

    quantile_fraction: float = Field(0.25, gt=0.0, le=0.5)
    """The share of the members that take over a state, and the share whose states are taken over."""
    resample_probability: float = Field(0.25, ge=0.0, le=1.0)
    """Of drawing a parameter anew from its range; otherwise it is multiplied by 0.8 or 1.2, or moved to a neighbouring
    choice."""
    every: int = Field(1, ge=1)
    """Reports between two decisions."""


class Population:
    """The members of one search study; `prefix` starts their keys."""

    def __init__(self, spec: PopulationSpec, study: SearchStudy, arm: Arm, prefix: str) -> None:
        self._spec, self._study, self._arm, self._prefix = spec, study, arm, prefix

    def leg(self, number: int) -> Leg:
        """What the member does now."""
        trial = self._study.trial(number)
        noted = trial.user_attrs.get("leg")
        return Leg(**{**noted, "source_attempts": tuple(noted["source_attempts"])}) if noted else self._leg(trial, 0)

    def _leg(self, trial: FrozenTrial, after: int, **facts: Any) -> Leg:
        until = after + self._spec.every
        last = until >= trial.user_attrs["spec"]["num_reports"]
        return Leg(after_report=after, until_report=None if last else until, **facts)

    def arrive(self, number: int) -> None:
        """The member has come to the end of its leg; its state is saved."""
        self._study.note(number, "arrived", self.leg(number).until_report)

    def is_waiting(self, number: int) -> bool:
        """True for a member at the end of its leg: it goes on when all have come that far."""
        arrived = self._study.trial(number).user_attrs.get("arrived")
        return arrived is not None and arrived == self.leg(number).until_report

    def is_over(self) -> bool:
        """True when no member needs the state of another any more."""
        return all(t.state.is_finished() for t in self._study.trials())

    def decide(self) -> list[int]:
        """Where all members have come to the end of their legs: note what each does next. Gives those that go on.

        A decision that a kill cut short is made again, the same, as nobody has moved since.
        """
        members = [t for t in self._study.trials() if not t.state.is_finished()]
        arrived = [int(t.user_attrs.get("arrived", 0)) for t in members]
        report = max(arrived, default=0)
        if report == 0 or min(arrived) < report or all(self.leg(t.number).after_report == report for t in members):
            return []
        sources = self._sources(members, report)
        for trial in members:
            if trial.number in sources:
                self._take_over(trial, sources[trial.number], report)
            else:
                taken = any(trial.number == source.number for source in sources.values())
                facts = {"first_attempt": self.leg(trial.number).first_attempt}
                kept = {"kept_attempt": trial.user_attrs["attempts"]} if taken else {}
                self._note_leg(trial, self._leg(trial, report, **facts, **kept))
        return [t.number for t in members]

    def _sources(self, members: Sequence[FrozenTrial], report: int) -> dict[int, FrozenTrial]:
        """Whose state each member of the worst quantile takes over; quantiles as Ray Tune counts them."""
        sign = -1.0 if self._study.study.direction.name == "MINIMIZE" else 1.0
        order = sorted(members, key=lambda t: sign * t.intermediate_values[report])
        share = min(math.ceil(len(order) * self._spec.quantile_fraction), len(order) // 2)
        return {
            bad.number: random.Random(self._seed(bad, report)).choice(order[-share:])
            for bad in (order[:share] if len(order) > 1 else [])
        }

    def _take_over(self, trial: FrozenTrial, source: FrozenTrial, report: int) -> None:
        schedule, new = self._explored(source, report, self._seed(trial, report))
        attempt = int(trial.user_attrs["attempts"]) + 1
        before = [entry for entry in trial.user_attrs.get("lineage", []) if entry["report"] < report]
        key, value = f"{self._prefix}{source.number:04d}", source.intermediate_values[report]
        entry = {"report": report, "from": key, "value": value, "parameters": new}
        self._study.note(trial.number, "lineage", [*before, entry])
        self._study.note(trial.number, "trial_id", schedule.hash())
        self._study.note(trial.number, "spec", schedule.model_dump(mode="json"))
        attempts = (self.leg(source.number).first_attempt, int(source.user_attrs["attempts"]))
        leg = self._leg(trial, report, first_attempt=attempt, source=key, source_attempts=attempts)
        self._note_leg(trial, leg)

    def _note_leg(self, trial: FrozenTrial, leg: Leg) -> None:
        """The last note of a decision about a member: with it the decision stands."""
        self._study.note(trial.number, "leg", asdict(leg))

    def _explored(self, source: FrozenTrial, report: int, seed: int) -> tuple[TrialSpec, Parameters]:
        """The source's schedule of parameters with a change at this report, and what changes; as it was, where the
        perturbed values do not go together."""
        schedule: dict[str, Any] = source.user_attrs["spec"]
        now = parse_spec(TrialSpec, schedule, self._arm.name).at(report).model_dump(mode="json")
        present = {path: value_at(now, path) for path in self._arm.space}
        explored = explore(present, self._arm.space, self._spec.resample_probability, seed)
        new = {path: value for path, value in explored.items() if value != present[path]}
        change = [{"report": report, "parameters": new}] if new else []
        try:
            return parse_spec(TrialSpec, {**schedule, "changes": [*schedule["changes"], *change]}, self._arm.name), new
        except SpecError:
            return parse_spec(TrialSpec, schedule, self._arm.name), {}

    def _seed(self, trial: FrozenTrial, report: int) -> int:
        text = f"{self._study.seed}/{trial.number}/{report}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def explore(present: Parameters, space: Space, resample_probability: float, seed: int) -> Parameters:
    """New values by Ray Tune's rule, kept within their ranges; a function of the arguments."""
    from ray.tune.schedulers.pbt import _explore  # here, since only populations need Ray in the ledger

    mutations = {path: d.choices if d.choices is not None else _drawing(d) for path, d in space.items()}
    state = random.getstate()  # Ray Tune draws from the global generator
    random.seed(seed)
    try:
        new, _ = _explore(present, mutations, resample_probability, FACTORS, None)  # type: ignore[arg-type]
    finally:
        random.setstate(state)
    return {path: _within(space[path], value) for path, value in new.items()}


def _drawing(dimension: Dimension) -> Callable[[], float]:
    """Draws from the dimension's range, as a search does at first."""
    low, high = dimension.low, dimension.high
    assert low is not None
    assert high is not None

    def draw() -> float:
        if dimension.log:
            return math.exp(random.uniform(math.log(low), math.log(high)))
        return random.uniform(low, high)

    return draw


def _within(dimension: Dimension, value: Any) -> Any:
    """The nearest value that the dimension has."""
    if dimension.choices is not None:
        return value
    low, high = dimension.low, dimension.high
    assert low is not None
    assert high is not None
    if dimension.step is not None:
        value = low + round((value - low) / dimension.step) * dimension.step
    whole = isinstance(low, int) and isinstance(high, int) and not isinstance(dimension.step, float)
    return min(max(round(value) if whole else float(value), low), high)


def value_at(data: dict[str, Any], path: str) -> Any:
    """The value at a dotted path."""
    for part in path.split("."):
        data = data[part]
    return data


def unsuitable(spec: ExperimentSpec, arms: Sequence[Arm], path: str) -> list[Problem]:
    """Why this search cannot be a population's."""
    population = spec.search.population
    if population is None:
        return []
    place = f"{path}: search"
    problems = []
    if spec.search.trials < 2:
        problems.append(
            Problem(f"{place}.trials", f"must be >= 2 for a population, got {spec.search.trials}", "Raise it")
        )
    if spec.search.objectives:
        rule = f"must be empty for a population, got {len(spec.search.objectives)}: its members need one order"
        problems.append(Problem(f"{place}.objectives", rule, "Leave it out"))
    if spec.search.pruner.kind not in ("none", type(spec.search).model_fields["pruner"].default.kind):
        rule = f"must be left out for a population, got {spec.search.pruner.kind}: its worst members are replaced"
        problems.append(Problem(f"{place}.pruner", rule, "Leave it out"))
    for arm in arms:
        reports = arm.template.get("num_reports", TrialSpec.model_fields["num_reports"].default)
        if isinstance(reports, int) and population.every >= reports:
            rule = f"must be < num_reports, which is {reports} in arm {arm.name}, got {population.every}"
            problems.append(Problem(f"{place}.population.every", rule, "Lower it, or raise num_reports"))
        if arm.template.get("changes"):
            rule = "must be left out where a population finds them"
            problems.append(Problem(f"{path}: arms.{arm.name}: changes", rule, "Leave it out"))
        if not arm.space:
            rule = f"arm {arm.name} has an empty space: there is nothing to perturb"
            problems.append(Problem(f"{place}.population", rule, "Give it a space, or leave the population out"))
        for name in arm.space:
            own = name in spec.arms[arm.name].space
            problem = unchangeable(name, f"{path}: arms.{arm.name}.space.{name}" if own else f"{path}: space.{name}")
            problems += [problem] if problem else []
    return list(dict.fromkeys(problems))
