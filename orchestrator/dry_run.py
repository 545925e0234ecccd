"""`sweep FILE --dry-run`: what a sweep will take, from a measured calibration of every arm. Runs no trial.

Trials are measured as Ray tasks with the resources of a worker, as many at once as the sweep would run, and scaled up
by the budget. Nothing is written into the sweep's directory; the data are built where they are not.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
import ray
from ray.exceptions import RayError, RayTaskError

from hrm.errors import InfrastructureError, Problem, SpecError
from hrm.remote import Archive
from hrm.trial import TrialSpec
from orchestrator.calibration import Bench, Calibration, calibrate
from orchestrator.cluster.connect import Where, connect
from orchestrator.experiment import Arm, Experiment, ExperimentSpec
from orchestrator.forecast import ArmForecast, Forecast, Start, assemble, in_words
from orchestrator.resources import Resources
from orchestrator.space import distributions
from orchestrator.store import SweepStore, publish
from orchestrator.validation import check_built, with_data

CONFIGURATIONS = 3
"""How many configurations of an arm with a search space are measured, drawn at random from it."""


def dry_run(experiment: Experiment, where: Where, options: argparse.Namespace) -> int:
    """The command; gives its exit code."""
    data_root = options.storage.resolve() / "data"
    experiment = with_data(experiment, data_root)
    check_built(experiment, data_root)
    if options.store:
        publish(experiment, SweepStore(options.storage, experiment.name, Archive(options.store)))
    found = forecast(experiment, data_root, where, options.store or "")
    print(json.dumps(asdict(found)) if options.json else "\n".join(in_words(found, experiment.spec)))
    return 0


def forecast(experiment: Experiment, data_root: Path, where: Where, store: str) -> Forecast:
    """Measure every arm. Raises SpecError for an arm that does not train, InfrastructureError where Ray fails."""
    began = time.monotonic()
    try:
        with connect(where) as cluster:
            connected = time.monotonic() - began
            resources = experiment.spec.resources.resolved(cluster.nodes)
            concurrency = resources.concurrency(cluster.nodes)
            arms, process = _measured(experiment, data_root, resources, store)
    except (ConnectionError, RayError) as error:
        raise InfrastructureError(f"the Ray cluster failed: {error}") from error
    return assemble(experiment.spec, arms, resources, concurrency, Start(connected, process))


def _measured(
    experiment: Experiment, data_root: Path, resources: Resources, store: str
) -> tuple[list[ArmForecast], float]:
    """Every arm, as many configurations at once as the cluster takes; and how long the first process took to come."""
    spec = experiment.spec
    bench = Bench(
        str(data_root),
        resources.cpus_per_worker,
        resources.compile,
        resources.workers_per_trial,
        resources.gpus_per_worker,
        store,
    )
    task = ray.remote(calibrate).options(
        num_cpus=resources.cpus_per_worker, num_gpus=resources.gpus_per_worker, max_retries=0
    )
    test, submitted = bool(spec.replicas.seeds), time.time()
    asked = [
        (arm, [task.remote(trial.model_dump(mode="json"), bench, test) for trial in _drawn(arm, spec)])
        for arm in experiment.arms
    ]
    answered = [(arm, *_answers(tasks)) for arm, tasks in asked]
    arms = [_arm_forecast(arm, spec, found, refused) for arm, found, refused in answered]
    first = min(calibration.began for _, found, _ in answered for calibration in found)
    return arms, max(first - submitted, 0.0)


def _drawn(arm: Arm, spec: ExperimentSpec) -> list[TrialSpec]:
    """The arm as it stands; where it has a space, configurations drawn from it."""
    if not arm.space:
        return [arm.trial({}, spec.search.seed)]
    sampler = optuna.samplers.RandomSampler(seed=spec.search.seed)
    study, found = optuna.create_study(sampler=sampler), []
    for _ in range(4 * CONFIGURATIONS):
        try:
            found.append(arm.trial(study.ask(distributions(arm.space)).params, spec.search.seed))
        except SpecError:  # values that do not go together
            continue
        if len(found) == CONFIGURATIONS:
            break
    return found or [arm.trial({}, spec.search.seed)]


def _answers(tasks: Sequence[Any]) -> tuple[list[Calibration], list[str]]:
    """What the tasks measured, and why others could not."""
    found: list[Calibration] = []
    refused: list[str] = []
    for task in tasks:
        try:
            found.append(ray.get(task))
        except RayTaskError as error:
            refused.append(f"{error.cause}".strip().split("\n")[-1])
    return found, refused


def _arm_forecast(
    arm: Arm, spec: ExperimentSpec, measured: Sequence[Calibration], refused: Sequence[str]
) -> ArmForecast:
    if not measured:
        rule = f"none of its configurations takes a step: {'; '.join(dict.fromkeys(refused))}"
        raise SpecError(Problem(f"arms.{arm.name}", rule, "Correct it before the sweep meets it"))
    watts = [each.watts for each in measured if each.watts is not None]
    first = getattr(spec.search.pruner, "first_rung", 1)
    share = min(first / min(each.num_reports for each in measured), 1.0)
    return ArmForecast(
        task=arm.task,
        arm=arm.name,
        configurations=len(measured),
        step_seconds=fmean(each.step_seconds for each in measured),
        steps=fmean(each.steps for each in measured),
        search_seconds=fmean(each.seconds() for each in measured),
        pruned_share=share,
        pruned_seconds=fmean(each.seconds(share) for each in measured),
        replica_seconds=fmean(each.seconds(test=True) for each in measured),
        flops=fmean(each.flops for each in measured),
        checkpoint_bytes=max(each.checkpoint_bytes for each in measured),
        watts=fmean(watts) if len(watts) == len(measured) else None,
        refused=tuple(refused),
    )
