"""ExperimentSpec: one YAML question, resolved into one trial template per arm and task before anything starts.

Every path, type, range and kind is checked here; all problems come at once, each with its place and the way out.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, ValidationError

from hrm.errors import Problem, SpecError
from hrm.spec import Spec, parse_spec
from hrm.start import PLACES
from hrm.strict_yaml import read_yaml
from hrm.tasks import TaskSpec
from hrm.trial import BudgetSpec, ObjectiveSpec, TrialSpec
from hrm.variants import union
from orchestrator.limits import LimitSpec, PriceSpec, unpriced
from orchestrator.matching import MatchSpec, unmatched
from orchestrator.objectives import SearchObjectiveSpec
from orchestrator.overrides import with_overrides, with_smoke
from orchestrator.population import PopulationSpec, unsuitable
from orchestrator.recipes import astray, named_tasks
from orchestrator.replicas import ReplicaSpec
from orchestrator.resources import ResourceSpec
from orchestrator.schedulers import PrunerSpec
from orchestrator.schedulers.successive_halving import SuccessiveHalvingSpec
from orchestrator.search import SamplerSpec
from orchestrator.search.tpe import TPESpec
from orchestrator.search_rules import unmeasured, unsearchable
from orchestrator.space import Space, apply, merge, prove
from orchestrator.stages import with_tokenizer
from orchestrator.starts import begun_as, identified, unfit
from orchestrator.trackers import TrackerSpec
from orchestrator.trackers.mlflow import MlflowSpec

if TYPE_CHECKING:
    AnySamplerSpec = SamplerSpec
    AnyPrunerSpec = PrunerSpec
    AnyTrackerSpec = TrackerSpec
else:
    AnySamplerSpec = union("orchestrator.search", SamplerSpec)
    AnyPrunerSpec = union("orchestrator.schedulers", PrunerSpec)
    AnyTrackerSpec = union("orchestrator.trackers", TrackerSpec)


class ArmSpec(Spec):
    """One of the things compared: a patch on the base trial, and what is searched for this arm alone."""

    description: str = ""
    patch: dict[str, Any] = Field(default_factory=dict)
    space: Space = Field(default_factory=dict)
    points: list[dict[str, Any]] = Field(default_factory=list)
    """Configurations of this arm that are tried first, before those of `search`; what one leaves out is drawn."""
    tasks: list[str] | None = Field(None, min_length=1)
    """The names of the tasks that it runs on; null for all."""

    def runs_on(self, task: str) -> bool:
        """Whether the arm is compared on this task."""
        return self.tasks is None or task in self.tasks


class SearchSpec(Spec):
    """How configurations are searched, in one Optuna study per arm and task."""

    sampler: AnySamplerSpec = TPESpec()
    pruner: AnyPrunerSpec = SuccessiveHalvingSpec()
    trials: int = Field(8, ge=1)
    """Per arm and task; with `population` its members."""
    population: PopulationSpec | None = None
    """Population based training in the place of the pruner: the worst members take over the states of the best."""
    deterministic: bool = False
    """The same seed gives the same sweep, whatever finishes first or is killed: trials are asked for in generations,
    and a trial is compared with those of earlier generations only."""
    generation: int = Field(4, ge=1)
    """Trials per generation; used where `deterministic` is true."""
    seed: int = Field(0, ge=0, lt=2**31)
    objectives: list[SearchObjectiveSpec] = Field(default_factory=list)
    """Several objectives, the sweep's own first: metrics, or costs (`parameters`, `flops_per_token`, `flops`,
    `seconds`). Empty for the sweep's alone. The search then gives a Pareto front."""
    points: list[dict[str, Any]] = Field(default_factory=list)
    """Configurations that every arm tries first: path to value in `space`; what one leaves out is drawn."""
    warm_start: list[str] = Field(default_factory=list)
    """Earlier sweeps, by name in this storage or by directory: the sampler learns from their completed trials of the
    same arms and tasks."""


class ExperimentSpec(Spec):
    """What a file in `experiments/` says."""

    question: str = ""
    tasks: list[str | dict[str, Any]] = Field(min_length=1)
    """Recipes: names of files in `datasets/`, paths of YAML files, or recipes written out."""
    base: dict[str, Any] = Field(default_factory=dict)
    """The trial that every arm starts from: fields of TrialSpec without `task`, `budget`, `objective`."""
    arms: dict[str, ArmSpec] = Field(min_length=1)
    space: Space = Field(default_factory=dict)
    """What is searched for every arm."""
    search: SearchSpec = SearchSpec()
    objective: ObjectiveSpec = ObjectiveSpec()
    budget: BudgetSpec = BudgetSpec()
    """Of every trial: arms are matched by it."""
    match: MatchSpec = MatchSpec()
    replicas: ReplicaSpec = ReplicaSpec()
    resources: ResourceSpec = ResourceSpec()
    limits: LimitSpec = LimitSpec()
    prices: PriceSpec = PriceSpec()
    trackers: Sequence[AnyTrackerSpec] = (MlflowSpec(),)
    smoke: dict[str, Any] = Field(default_factory=dict)
    """Laid over this file by `--smoke`: the same question in seconds."""

    def science(self) -> dict[str, Any]:
        """The part that changes the numbers: what a sweep directory may not change under its name."""
        place = {"question", "match", "resources", "limits", "prices", "trackers", "smoke"}
        data = self.model_dump(mode="json", exclude=place)
        for arm in data["arms"].values():
            arm.pop("description")
        for holder in (data["base"], *(arm["patch"] for arm in data["arms"].values())):
            if isinstance(start := holder.get("initialize_from"), dict):
                for name in PLACES:  # the digest is the start, wherever it lies
                    start.pop(name, None)
        return data


@dataclass(frozen=True, slots=True)
class Arm:
    """An arm on one task: the trial it starts from, and what is searched."""

    name: str
    task: str
    template: dict[str, Any]
    """A whole TrialSpec as data."""
    space: Space
    points: list[dict[str, Any]] = field(default_factory=list)
    """Configurations that are tried first."""

    def trial(self, parameters: dict[str, Any], seed: int) -> TrialSpec:
        """The trial of a configuration. Raises SpecError where values that are each allowed do not go together."""
        return parse_spec(TrialSpec, {**apply(self.template, parameters), "seed": seed}, f"arms.{self.name}")


@dataclass(frozen=True, slots=True)
class Experiment:
    """A checked experiment."""

    name: str
    spec: ExperimentSpec
    tasks: dict[str, TaskSpec]
    arms: list[Arm]
    """Every arm on each of its tasks, task by task."""


def load_experiment(
    path: Path,
    overrides: list[str] | None = None,
    smoke: bool = False,
    name: str | None = None,
    storage: Path = Path("runs"),
) -> Experiment:
    """Read, override (`path=value`), check. Raises SpecError with every problem.

    `storage`: where the sweeps are that it names, and itself, if it was begun.
    """
    data = read_yaml(path)
    if smoke:
        data = with_smoke(data, path)
    name = name or path.stem + ("-smoke" if smoke else "")
    data, unfound = identified(with_overrides(data, overrides or []), str(path), storage, begun_as(storage, name))
    spec, problems = _parse(data, str(path))
    problems += unfound
    tasks, task_problems = named_tasks(spec.tasks, path, partial(with_tokenizer, storage=storage))
    problems += task_problems + _reserved(spec, path)
    arms = [
        _arm(spec, arm_name, arm, task_name, task)
        for task_name, task in tasks.items()
        for arm_name, arm in spec.arms.items()
        if arm.runs_on(task_name)
    ]
    homeless = spec.arms.keys() - {arm.name for arm in arms}
    stand_ins = [_arm(spec, name, arm, "", None) for name, arm in spec.arms.items() if name in homeless]
    problems += _proved(spec, arms + stand_ins, path)
    if not task_problems:
        problems += astray({name: arm.tasks for name, arm in spec.arms.items()}, list(tasks), path)
    problems += _misnamed({"--name": [name], f"{path}: arms": spec.arms, f"{path}: tasks": tasks})
    problems += unpriced(spec.limits, spec.prices, str(path)) + unsuitable(spec, arms, str(path))
    problems += unmeasured(spec, tasks, str(path)) + unmatched(spec, str(path)) + unfit(spec, arms, str(path))
    if not problems:  # only then are spaces and templates what they say
        problems = unsearchable(spec, arms, tasks, str(path))
    if problems:
        raise SpecError(*dict.fromkeys(problems))
    return Experiment(name, spec, tasks, arms)


def _misnamed(names: dict[str, Iterable[str]]) -> list[Problem]:
    """Names become folders and keys."""
    rule = "must be letters, digits, `_`, `.` and `-`, got"
    return [
        Problem(place, f"{rule} {name!r}", "Rename it")
        for place, given in names.items()
        for name in given
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name)
    ]


def _parse(data: dict[str, Any], place: str) -> tuple[ExperimentSpec, list[Problem]]:
    """The spec and what is wrong with it: what is wrong is left out, so that the rest can be checked too."""
    try:
        return parse_spec(ExperimentSpec, data, place), []
    except SpecError as error:
        problems, cause = list(error.problems), error.__cause__
    rest = copy.deepcopy(data)
    locations = [details["loc"] for details in cause.errors()] if isinstance(cause, ValidationError) else []
    for container, key in [found for location in locations for found in _wrong_part(rest, location)]:
        container.pop(key, None)
    try:
        return parse_spec(ExperimentSpec, rest, place), problems
    except SpecError:
        raise SpecError(*problems) from None


def _wrong_part(data: Any, location: tuple[str | int, ...]) -> list[tuple[dict[str, Any], str]]:
    """The field, the dimension or the section that an error is in: its mapping and its key, if it is there."""
    trail: list[tuple[dict[str, Any], str]] = []
    for part in location:
        if isinstance(data, dict) and part in data:
            trail.append((data, str(part)))
            data = data[part]
    keys = [key for _, key in trail]
    if "space" in keys:
        trail = trail[: keys.index("space") + 2]
    elif keys[:1] != ["arms"]:
        trail = trail[:1]
    return trail[-1:]


_AT_THE_TOP = {"task": "tasks", "budget": "budget", "objective": "objective", "seed": "search.seed"}
"""Fields of a trial that an experiment sets for all arms, and where."""


def _reserved(spec: ExperimentSpec, path: Path) -> list[Problem]:
    """Fields that all arms share, set or searched for one."""
    places = [(f"base.{field}", field) for field in spec.base]
    places += [(f"space.{field}", field) for field in spec.space]
    for name, arm in spec.arms.items():
        places += [(f"arms.{name}.patch.{field}", field) for field in arm.patch]
        places += [(f"arms.{name}.space.{field}", field) for field in arm.space]
    return [
        Problem(f"{path}: {place}", "is the same for all arms", f"Set {_AT_THE_TOP[top]} at the top of the file")
        for place, field in places
        if (top := field.split(".")[0]) in _AT_THE_TOP
    ]


def _proved(spec: ExperimentSpec, arms: list[Arm], path: Path) -> list[Problem]:
    """The problems of all arms, each where the file says it; what not all arms share names those that have it."""
    found: dict[Problem, list[str]] = {}
    for arm in arms:

        def place(field: str, arm: Arm = arm) -> str:
            if _holds(spec.arms[arm.name].patch, field):
                return f"{path}: arms.{arm.name}.patch.{field}"
            return f"{path}: base.{field}" if _holds(spec.base, field) else f"{path}: arms.{arm.name}: {field}"

        def space_place(field: str, arm: Arm = arm) -> str:
            return (
                f"{path}: arms.{arm.name}.space.{field}"
                if field in spec.arms[arm.name].space
                else f"{path}: space.{field}"
            )

        template = {key: value for key, value in arm.template.items() if key != "task" or arm.task}
        space = {field: d for field, d in arm.space.items() if field.split(".")[0] not in _AT_THE_TOP}
        for problem in prove(template, space, place, space_place):
            if not problem.place.endswith((": task", ".task")):
                found.setdefault(problem, []).append(arm.name)
    return [_naming(problem, list(dict.fromkeys(names)), len(spec.arms)) for problem, names in found.items()]


def _naming(problem: Problem, arms: list[str], of: int) -> Problem:
    if len(arms) == of or ": arms." in problem.place:
        return problem
    return Problem(problem.place, f"in arm {', '.join(arms)}: {problem.rule}", problem.way_out)


def _holds(data: Any, path: str) -> bool:
    for part in path.split("."):
        if not (isinstance(data, dict) and part in data):
            return False
        data = data[part]
    return True


def _arm(spec: ExperimentSpec, name: str, arm: ArmSpec, task_name: str, task: TaskSpec | None) -> Arm:
    template = {
        **merge(spec.base, arm.patch),
        "task": None if task is None else task.model_dump(mode="json"),
        "budget": spec.budget.model_dump(mode="json"),
        "objective": spec.objective.model_dump(mode="json"),
    }
    return Arm(name, task_name, template, {**spec.space, **arm.space}, [*arm.points, *spec.search.points])
