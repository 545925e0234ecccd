"""What a stage takes from an earlier sweep: the best checkpoint of one of its arms, and the tokenizer of its data.

Which checkpoint is best is the sweep's own choice, as its report says it: by validation, of the replicas where there
are any.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.records import read_sweep_record, read_trial_record
from analysis.sweep import Sweep, load_sweep
from hrm.data.dataset import fetch_dataset, open_dataset
from hrm.data.tokenizing import TOKENIZER_FILE
from hrm.errors import Problem, SpecError
from hrm.remote import Archive, node_cache
from orchestrator.fetched import checkpoint_folder
from orchestrator.recipes import task_of
from orchestrator.sweep_names import sweep_directory

if TYPE_CHECKING:
    from analysis.arms import ArmResult


def best_checkpoint(storage: Path, start: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The folder, as `path`, of what `sweep`, `arm`, `task` and `store` of a start mean, and where it is from.

    Raises SpecError where there is no such sweep or arm, several, or no checkpoint yet; `place` starts each problem.
    """
    sweep = _finished(storage, start, place)
    arm = _the_arm(sweep, start, place)
    if not arm.best_checkpoint:
        rule = f"no trial of {arm.name} has completed in {start['sweep']}"
        raise SpecError(Problem(f"{place}.arm", rule, "Look at its report, and give another arm"))
    named = arm.best_checkpoint if sweep.record.store else str(sweep.directory.absolute() / arm.best_checkpoint)
    origin = {"sweep": start["sweep"], "store": start.get("store"), "arm": arm.name, "task": arm.task}
    return {**origin, "trial": arm.best_trial, "path": str(checkpoint_folder(named))}


def origin_of(checkpoint: Path) -> dict[str, Any]:
    """The sweep, arm, task and trial of a checkpoint in a sweep's directory; nothing of one that lies elsewhere."""
    for trial in checkpoint.parents:
        if (trial / "trial.json").exists() and trial.parent.name == "trials":
            record = read_trial_record(trial)
            return {"sweep": trial.parent.parent.name, "arm": record.arm, "task": record.task, "trial": record.key}
    return {}


def with_tokenizer(recipe: dict[str, Any], place: str, storage: Path) -> dict[str, Any]:
    """A recipe whose `tokenizer: {sweep: NAME}` is the tokenizer that this sweep's data were built with.

    Raises SpecError where there is none; `place` starts each problem.
    """
    tokenizer = recipe.get("tokenizer")
    if not isinstance(tokenizer, dict) or not isinstance(tokenizer.get("sweep"), str):
        return recipe
    where = f"{place}: task.tokenizer"
    if set(tokenizer) - {"kind", "sweep", "task", "store"} or tokenizer.get("kind", "pretrained") != "pretrained":
        rule = f"with sweep there may be task, store and kind: pretrained, got {tokenizer}"
        raise SpecError(Problem(where, rule, "Leave the rest out"))
    return {**recipe, "tokenizer": {"kind": "pretrained", "path": str(_tokenizer_folder(storage, tokenizer, where))}}


def _tokenizer_folder(storage: Path, tokenizer: Mapping[str, Any], place: str) -> Path:
    directory = _directory(storage, tokenizer, place)
    datasets = read_sweep_record(directory).datasets
    task = tokenizer.get("task") or _only(list(datasets), "task", f"{place}.task", str(tokenizer["sweep"]))
    if task not in datasets:
        raise SpecError(_unknown("task", str(task), list(datasets), f"{place}.task", str(tokenizer["sweep"])))
    recipe, root = task_of(datasets[task]["recipe"], place), directory.absolute().parent.parent / "data"
    if tokenizer.get("store"):
        root = node_cache() / "data"
        fetch_dataset(recipe, root, Archive(tokenizer["store"]).at("data"))
    built = open_dataset(recipe, root)
    if not (built.directory / TOKENIZER_FILE).exists():
        rule = f"the data of {task} in {tokenizer['sweep']} have no tokenizer"
        raise SpecError(Problem(place, rule, "Name a task of text, or give the tokenizer's path"))
    return built.directory


def _directory(storage: Path, named: Mapping[str, Any], place: str) -> Path:
    try:
        return sweep_directory(storage, named["sweep"], named.get("store"))
    except SpecError as error:
        problems = [Problem(f"{place}.sweep", f"{p.rule} ({p.place})", p.way_out) for p in error.problems]
        raise SpecError(*problems) from error


def _finished(storage: Path, start: Mapping[str, Any], place: str) -> Sweep:
    """The sweep, with its store where this command sees it."""
    sweep = load_sweep(_directory(storage, start, place))
    if not sweep.record.finished:
        ended = sum(trial.state in ("completed", "pruned", "failed") for trial in sweep.trials)
        rule = f"{start['sweep']} has not finished: {ended} of {sweep.record.planned_trials} planned trials have ended"
        way_out = f"Let it finish ({sweep.record.command} goes on with it), or give the path of one of its checkpoints"
        raise SpecError(Problem(f"{place}.sweep", rule, way_out))
    if start.get("store"):
        sweep.record = replace(sweep.record, store=start["store"])
    return sweep


def _the_arm(sweep: Sweep, start: Mapping[str, Any], place: str) -> ArmResult:
    from analysis.arms import measure_arms  # scipy, which commands that name no sweep do without

    arms, name = measure_arms(sweep), str(start["sweep"])
    for field in ("task", "arm"):
        known = list(dict.fromkeys(arm.task if field == "task" else arm.name for arm in arms))
        wanted = start.get(field) or _only(known, field, f"{place}.{field}", name)
        if wanted not in known:
            raise SpecError(_unknown(field, wanted, known, f"{place}.{field}", name))
        arms = [arm for arm in arms if wanted == (arm.task if field == "task" else arm.name)]
    return arms[0]


def _only(known: Sequence[str], what: str, place: str, sweep: str) -> str:
    if len(known) != 1:
        rule = f"{sweep} has {len(known)} {what}s"
        raise SpecError(Problem(place, rule, f"Give one of {', '.join(known)}"))
    return known[0]


def _unknown(what: str, name: str, known: Sequence[str], place: str, sweep: str) -> Problem:
    return Problem(place, f"{sweep} has no {what} {name!r}", f"Give one of {', '.join(known)}")
