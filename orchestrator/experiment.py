"""ExperimentSpec: one YAML question, resolved into one trial template per arm and task before anything starts.

Every path, type, range and kind is checked here; all problems come at once, each with its place and the way out.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from hrm.errors import Problem, SpecError
from hrm.spec import Spec, parse_spec
from hrm.strict_yaml import parse_yaml, read_yaml
from hrm.tasks import TaskSpec
from hrm.trial import AnyTaskSpec, BudgetSpec, ObjectiveSpec, TrialSpec
from hrm.variants import union
from orchestrator.resources import ResourceSpec
from orchestrator.schedulers import PrunerSpec
from orchestrator.schedulers.successive_halving import SuccessiveHalvingSpec
from orchestrator.search import SamplerSpec
from orchestrator.search.tpe import TPESpec
from orchestrator.space import Space, apply, assign, merge, prove
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


class SearchSpec(Spec):
    """How configurations are searched, in one Optuna study per arm and task."""

    sampler: AnySamplerSpec = TPESpec()
    pruner: AnyPrunerSpec = SuccessiveHalvingSpec()
    trials: int = Field(8, ge=1)
    """Per arm and task."""
    deterministic: bool = False
    """The same seed gives the same sweep, whatever finishes first or is killed: trials are asked for in generations,
    and a trial is compared with those of earlier generations only."""
    generation: int = Field(4, ge=1)
    """Trials per generation; used where `deterministic` is true."""
    seed: int = Field(0, ge=0, lt=2**31)


class ReplicaSpec(Spec):
    """The best configurations of each arm, run again; only these decide the comparison, on the test split."""

    seeds: int = Field(3, ge=0)
    """Runs of each configuration, with seeds that every arm shares; 0 for a search without a decision."""
    configurations: int = Field(1, ge=1)
    first_seed: int = Field(1000, ge=0, lt=2**30)


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
    replicas: ReplicaSpec = ReplicaSpec()
    resources: ResourceSpec = ResourceSpec()
    trackers: Sequence[AnyTrackerSpec] = (MlflowSpec(),)
    smoke: dict[str, Any] = Field(default_factory=dict)
    """Laid over this file by `--smoke`: the same question in seconds."""

    def science(self) -> dict[str, Any]:
        """The part that changes the numbers: what a sweep directory may not change under its name."""
        return self.model_dump(mode="json", exclude={"question", "resources", "trackers", "smoke"})


@dataclass(frozen=True, slots=True)
class Arm:
    """An arm on one task: the trial it starts from, and what is searched."""

    name: str
    task: str
    template: dict[str, Any]
    """A whole TrialSpec as data."""
    space: Space

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
    """Every arm on every task, task by task."""


def load_experiment(
    path: Path, overrides: list[str] | None = None, smoke: bool = False, name: str | None = None
) -> Experiment:
    """Read, override (`path=value`), check. Raises SpecError with every problem."""
    data = read_yaml(path)
    for override in overrides or []:
        data = _overridden(data, override)
    if smoke:
        if "smoke" not in data:
            raise SpecError(Problem(f"{path}: smoke", "is missing, and --smoke needs it", "Add a `smoke:` mapping"))
        data = merge(data, data["smoke"])
    spec = parse_spec(ExperimentSpec, data, str(path))
    tasks, problems = _tasks(spec, path)
    arms = []
    for task_name, task in tasks.items():
        for arm_name, arm in spec.arms.items():
            resolved = _arm(spec, arm_name, arm, task_name, task)
            here = f"{path}: arms.{arm_name}"
            reserved = sorted({"task", "budget", "objective", "seed"} & (set(arm.patch) | set(spec.base)))
            if reserved:
                problems.append(Problem(here, f"sets {', '.join(reserved)}", "Set these at the top of the file"))
            problems += prove(resolved.template, resolved.space, here, f"{here}.space")
            arms.append(resolved)
    if problems:
        raise SpecError(*dict.fromkeys(problems))
    return Experiment(name or path.stem + ("-smoke" if smoke else ""), spec, tasks, arms)


def _arm(spec: ExperimentSpec, name: str, arm: ArmSpec, task_name: str, task: TaskSpec) -> Arm:
    template = {
        **merge(spec.base, arm.patch),
        "task": task.model_dump(mode="json"),
        "budget": spec.budget.model_dump(mode="json"),
        "objective": spec.objective.model_dump(mode="json"),
    }
    return Arm(name, task_name, template, {**spec.space, **arm.space})


def _overridden(data: dict[str, Any], override: str) -> dict[str, Any]:
    path, separator, text = override.partition("=")
    if not separator or not path:
        raise SpecError(Problem(f"--set {override}", "must have the form path=value", "Write --set search.trials=4"))
    return assign(data, path, parse_yaml(text, f"--set {path}"))


def _tasks(spec: ExperimentSpec, path: Path) -> tuple[dict[str, TaskSpec], list[Problem]]:
    tasks: dict[str, TaskSpec] = {}
    problems: list[Problem] = []
    for number, entry in enumerate(spec.tasks):
        place = f"{path}: tasks[{number}]"
        try:
            name, data, source = _recipe(entry, path, place)
            tasks[name] = parse_spec(_TaskHolder, {"task": data}, source).task
        except SpecError as error:
            problems += [Problem(p.place.replace(": task.", ": "), p.rule, p.way_out) for p in error.problems]
    return tasks, problems


class _TaskHolder(Spec):
    """Lets one recipe be parsed as any kind of task."""

    task: AnyTaskSpec


def _recipe(entry: str | dict[str, Any], path: Path, place: str) -> tuple[str, dict[str, Any], str]:
    """The name, the data and the place of a recipe."""
    if isinstance(entry, dict):
        return str(entry.get("kind", "task")), entry, place
    folders = [path.parent, path.parent.parent / "datasets", Path("datasets")]
    candidates = [Path(entry)] if entry.endswith((".yaml", ".yml")) else [f / f"{entry}.yaml" for f in folders[1:]]
    for candidate in candidates:
        if candidate.exists():
            return candidate.stem, read_yaml(candidate), str(candidate)
    known = sorted({file.stem for folder in folders[1:] for file in folder.glob("*.yaml")})
    near = difflib.get_close_matches(entry, known, n=1)
    hint = f"Did you mean `{near[0]}`? " if near else ""
    way_out = f"{hint}The recipes in datasets/ are {', '.join(known) or 'none'}"
    raise SpecError(Problem(place, f"there is no dataset recipe {entry!r}", way_out))
