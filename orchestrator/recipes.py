"""From what an experiment says of its tasks to recipes: names of files in `datasets/`, paths, or written out."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hrm.errors import Problem, SpecError
from hrm.spec import Spec, parse_spec
from hrm.strict_yaml import read_yaml
from hrm.tasks import TaskSpec
from hrm.trial import AnyTaskSpec

Completed = Callable[[dict[str, Any], str], dict[str, Any]]
"""A recipe and its place to the recipe as it is meant. May raise SpecError."""


def named_tasks(
    entries: Sequence[str | dict[str, Any]], path: Path, completed: Completed = lambda recipe, place: recipe
) -> tuple[dict[str, TaskSpec], list[Problem]]:
    """The tasks of the experiment file `path` by name, and what is wrong with them.

    completed: fills in what a recipe leaves to where it is used.
    """
    tasks: dict[str, TaskSpec] = {}
    problems: list[Problem] = []
    for number, entry in enumerate(entries):
        place = f"{path}: tasks[{number}]"
        try:
            name, data, source = _recipe(entry, path, place)
            if name in tasks:
                raise SpecError(
                    Problem(place, f"a second task is named {name!r}", "Put it in a recipe of another name")
                )
            tasks[name] = task_of(completed(data, source), source)
        except SpecError as error:
            for p in error.problems:
                where = p.place.replace(f"{place}: task.", f"{place}.").replace(": task.", ": ")
                problems.append(Problem(where, p.rule, p.way_out))
    return tasks, problems


def astray(of_arms: Mapping[str, list[str] | None], tasks: Sequence[str], path: Path) -> list[Problem]:
    """Arms on tasks that there are not, and tasks without an arm. By arm the tasks that it names; None is all."""
    unknown = [
        Problem(f"{path}: arms.{arm}.tasks", f"there is no task {task!r}", f"The tasks are {', '.join(tasks)}")
        for arm, named in of_arms.items()
        for task in named or []
        if task not in tasks
    ]
    idle = [
        Problem(f"{path}: tasks[{number}]", f"no arm runs on {task!r}", "Remove it, or name it in an arm's `tasks`")
        for number, task in enumerate(tasks)
        if not any(named is None or task in named for named in of_arms.values())
    ]
    return unknown + idle


class _TaskHolder(Spec):
    """Lets one recipe be parsed as any kind of task."""

    task: AnyTaskSpec


def task_of(recipe: dict[str, Any], place: str) -> TaskSpec:
    """A recipe as the kind of task that it names. Raises SpecError; `place` starts each problem."""
    return parse_spec(_TaskHolder, {"task": recipe}, place).task


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
