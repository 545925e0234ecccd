"""Synthetic sweeps whose search has a known truth, and what a report says of them; the objectives are formulas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from sweep_fixture import NUM_REPORTS, replica, search_trial, write_sweep, write_trial

from analysis.records import TrialRecord
from analysis.report import build_report
from analysis.section import Notes, Section, Table
from analysis.sections.search import sections
from analysis.sweep import Sweep, load_sweep
from hrm.records import Progress, Report
from orchestrator.importance import search_findings

SPACE = {
    "optimizer.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "model.num_layers": {"low": 1, "high": 6},
    "schedule.kind": {"choices": ["constant", "cosine", "linear"]},
    "model.dropout": {"choices": [0.0, 0.1, 0.2]},
    "fixed": {"choices": [1]},
}
Objective = Callable[[Mapping[str, float]], float]


def places(random: np.random.Generator) -> dict[str, Any]:
    """A configuration of SPACE."""
    return {
        "optimizer.learning_rate": float(10 ** random.uniform(-4, -2)),
        "model.num_layers": int(random.integers(1, 7)),
        "schedule.kind": str(random.choice(["constant", "cosine", "linear"])),
        "model.dropout": float(random.choice([0.0, 0.1, 0.2])),
        "fixed": 1,
    }


def searched(
    directory: Path, objective: Callable[[dict[str, Any], np.random.Generator], float], trials: int, **changes: Any
) -> Sweep:
    """A sweep whose arm `hrm` was searched at random, without replicas."""
    experiment = {"space": SPACE, "arms": {"hrm": {"space": {}}}}
    write_sweep(directory, {}, search={"hrm": 0}, experiment=experiment, **changes)
    random = np.random.default_rng(5)
    for number in range(trials):
        parameters = places(random)
        trial = search_trial("text", "hrm", number, changes.get("metric", "loss"))
        value = objective(parameters, random)
        trial = replace(trial, state="completed", reason="", error="", parameters=parameters, objective=value)
        write_trial(directory, trial, num_reports=2)
    return load_sweep(directory)


def by_learning_rate(parameters: dict[str, Any], random: np.random.Generator) -> float:
    """Best in the middle of the axis; all else is noise."""
    return 1.0 + float(np.log10(parameters["optimizer.learning_rate"] / 1e-3) ** 2 + random.normal(0, 0.05))


def by_nothing(parameters: dict[str, Any], random: np.random.Generator) -> float:
    return float(random.normal(1.0, 0.1))


def pruned_sweep(directory: Path, at_the_rung: float, completed: int = 8) -> Sweep:
    """Completed trials whose end is 0.2 of what they had at report 8; one was pruned there."""
    experiment = {"space": SPACE, "arms": {"hrm": {"space": {}}}}
    write_sweep(directory, {}, search={"hrm": 0}, experiment=experiment)
    random = np.random.default_rng(7)
    for number in range(completed):
        early = 1.0 + 0.1 * number
        end = 0.2 * early * float(np.exp(random.normal(0, 0.01)))
        trial = replace(search_trial("text", "hrm", number + 3), number=number, objective=end)
        with_curve(directory, replace(trial, parameters=places(random)), early, end)
    stopped = replace(search_trial("text", "hrm", 1), number=completed, objective=at_the_rung)
    with_curve(directory, replace(stopped, parameters=places(random)), at_the_rung, None)
    return load_sweep(directory)


def with_curve(directory: Path, trial: TrialRecord, early: float, end: float | None) -> None:
    """The trial with 8 reports at `early`, and the rest, if any, at `end`."""
    write_trial(directory, trial)
    values = [early] * 8 + ([] if end is None else [end] * (NUM_REPORTS - 8))
    progress = [Progress(step=20 * i, tokens=81_920 * i) for i in range(1, len(values) + 1)]
    lines = [
        Report(i, at, 0.0, {"loss": value}).to_json() + "\n"
        for i, (value, at) in enumerate(zip(values, progress, strict=True), start=1)
    ]
    (directory / "trials" / trial.key / "records.jsonl").write_text("".join(lines))


def with_replicas(directory: Path, values: list[float], seeds: list[float]) -> Sweep:
    write_sweep(directory, {}, search={"hrm": 0})
    for number, value in enumerate(values):
        trial = search_trial("text", "hrm", 3)
        trial = replace(trial, key=f"text-hrm-search-{number:04d}", number=number, objective=value)
        write_trial(directory, replace(trial, parameters={"lr": 0.1 * (number + 1)}))
    for seed, value in enumerate(seeds):
        write_trial(directory, replace(replica("text", "hrm", seed, value), objective=value))
    return load_sweep(directory)


def reported(sweep: Sweep) -> list[Section]:
    return sections(build_report(sweep, search_findings(sweep)), sweep, "text")


def section(found: list[Section], title: str) -> Section:
    return next(each for each in found if each.title.startswith(title))


def noted(found: list[Section], title: str) -> list[str]:
    return [line for block in section(found, title).blocks if isinstance(block, Notes) for line in block.lines]


def rows(found: list[Section], title: str) -> list[list[str]]:
    blocks = section(found, title).blocks
    return [[str(cell) for cell in row] for block in blocks if isinstance(block, Table) for row in block.rows]
