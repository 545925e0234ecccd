"""`validate`: everything about an experiment file that can be wrong, and what its arms cost, without running a trial.

It builds the data, since a recipe that cannot be built is wrong too, and only the data tell the size of a model.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table as Grid

from analysis.numbers import plural
from analysis.records import ArmCost
from analysis.section import Table, text_of
from analysis.tables import costs_notes, costs_table
from hrm.accumulation import too_many_parts
from hrm.data.dataset import build_dataset, open_dataset
from hrm.errors import Problem, SpecError
from hrm.tasks import Answers, TaskSpec
from orchestrator.build_progress import build_progress
from orchestrator.costs import arm_costs
from orchestrator.experiment import Experiment, load_experiment
from orchestrator.matching import check_match, how_well, reference_arm
from orchestrator.space import Parameters
from orchestrator.starts import check_starts


def with_data(experiment: Experiment, root: Path) -> Experiment:
    """The experiment with its data built, where every task and trial names the rows by their fingerprint.

    Raises SpecError with all recipes that cannot be built.
    """
    problems: list[Problem] = []
    tasks: dict[str, TaskSpec] = {}
    for name, task in experiment.tasks.items():
        try:
            with build_progress() as progress:
                tasks[name] = build_dataset(task, root, progress).task
        except SpecError as error:
            problems += error.problems
        except OSError as error:
            rule = f"cannot be written: {error.strerror}"
            problems.append(Problem(str(root), rule, "Give another --storage, or change its rights"))
    if problems:
        raise SpecError(*dict.fromkeys(problems))
    arms = [
        replace(arm, template={**arm.template, "task": tasks[arm.task].model_dump(mode="json")})
        for arm in experiment.arms
    ]
    return replace(experiment, tasks=tasks, arms=arms)


def check_built(experiment: Experiment, data_root: Path) -> list[ArmCost]:
    """What the arms cost. Raises SpecError for what only the built data can tell is wrong."""
    check_starts(experiment.arms, data_root)
    _check_parts(experiment)
    _check_tables(experiment, data_root)
    _check_documents(experiment, data_root)
    _check_objective(experiment, data_root)
    costs = arm_costs(experiment, data_root)
    check_match(experiment, costs, data_root)
    return costs


def _check_parts(experiment: Experiment) -> None:
    """Raises SpecError for a batch that a trial's workers cannot compute in as many parts as are asked for."""
    problems = []
    for arm in experiment.arms:
        searched: list[str] = [path for path in ("accumulation", "batch_size") if path in arm.space]
        choices: list[Parameters] = [{path: value} for path in searched for _, value in arm.space[path].probes()]
        for chosen in [{}, *choices]:
            trial, workers = arm.trial(chosen, 0), experiment.spec.resources.workers_per_trial
            problems += too_many_parts(trial, workers, f"arms.{arm.name}")
    if problems:
        raise SpecError(*dict.fromkeys(problems))


def _check_tables(experiment: Experiment, data_root: Path) -> None:
    """Raises SpecError for a puzzle table on rows without identifiers, where it would be nothing."""
    problems = [
        Problem(
            f"arms.{arm.name}: model.puzzle_embedding_size",
            f"must be 0 on {arm.task}, whose rows have no puzzle identifiers, got {size}",
            "Set it to 0",
        )
        for arm in experiment.arms
        if (size := arm.template["model"].get("puzzle_embedding_size", 0))
        and not open_dataset(experiment.tasks[arm.task], data_root).shape.num_puzzle_identifiers
    ]
    if problems:
        raise SpecError(*problems)


def _check_documents(experiment: Experiment, data_root: Path) -> None:
    """Raises SpecError for models that cannot part the documents of a packed row."""
    problems = []
    for arm in experiment.arms:
        dataset = open_dataset(experiment.tasks[arm.task], data_root)
        if "documents" in dataset.split("train").columns:
            problem = arm.trial({}, 0).model.packing_problem(dataset.shape)
            problems += [] if problem is None else [replace(problem, place=f"arms.{arm.name}: {problem.place}")]
    if problems:
        raise SpecError(*dict.fromkeys(problems))


def _check_objective(experiment: Experiment, data_root: Path) -> None:
    """Raises SpecError for an objective that nothing in a validation split measures."""
    metric, problems = experiment.spec.objective.metric, []
    for name, task in experiment.tasks.items():
        if metric in task.metrics:
            dataset = open_dataset(task, data_root)
            rows = dataset.split("validation")
            columns = rows.gather(np.arange(len(rows)))
            answers = Answers(columns, columns["labels"], np.zeros(len(rows)), None)
            if not task.score(answers, dataset.manifest.vocabulary)[metric][1]:
                rule = f"is measured on no row of the validation split of {name}, got {metric!r}"
                problems.append(Problem("objective.metric", rule, "Take another metric"))
    if problems:
        raise SpecError(*problems)


def validate(options: argparse.Namespace) -> int:
    """The `validate` command; gives its exit code."""
    root = options.storage.resolve() / "data"
    loaded = load_experiment(options.experiment, options.overrides, options.smoke, storage=options.storage)
    experiment = with_data(loaded, root)
    costs = check_built(experiment, root)
    spec, lines = experiment.spec, len(experiment.arms)
    searches, replicas = lines * spec.search.trials, lines * spec.replicas.seeds * spec.replicas.configurations
    reference = reference_arm(spec)
    comparison = how_well(costs, reference, spec.budget)
    if options.json:
        facts = {"arms": list(spec.arms), "tasks": list(experiment.tasks), "search_trials": searches}
        facts |= {"replicas": replicas, "compared_to": reference, "comparison": comparison}
        print(json.dumps({**facts, "costs": [asdict(cost) for cost in costs]}))
        return 0
    console = Console()
    sizes = f"{plural(len(spec.arms), 'arm')} on {plural(len(experiment.tasks), 'task')}"
    trials = f"{plural(searches, 'search trial')} and {plural(replicas, 'replica')}"
    console.print(f"{options.experiment}: good. {sizes}: {trials}.\n", soft_wrap=True, highlight=False)
    console.print(_grid(costs_table(costs, reference)))
    for note in [*costs_notes(costs, reference), comparison]:
        console.print(note, highlight=False)
    return 0


def _grid(table: Table) -> Grid:
    """For a terminal."""
    grid = Grid(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for column, title in enumerate(table.header):
        number = column in table.numeric
        grid.add_column(title, justify="right" if number else "left", no_wrap=number, overflow="fold")
    for row in table.rows:
        grid.add_row(*map(text_of, row))
    return grid
