"""`checkpoint report`: the health of checkpoints, ours or of the original code, and what they do on data."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from analysis.checkpoints.convergence import convergence_at
from analysis.checkpoints.health import examine
from analysis.checkpoints.report import CheckpointReport, write_checkpoint_report
from analysis.checkpoints.weights import Weights, open_weights
from hrm.errors import Problem, SpecError
from orchestrator.checkpoint_behaviour import measure_checkpoints
from orchestrator.checkpoint_places import checkpoints_at
from orchestrator.commands import writing


def report_checkpoints(options: argparse.Namespace) -> int:
    """Examine, measure where a task is known, write the five files, say the findings; gives the exit code."""
    places = checkpoints_at(options.paths)
    found = _opened(places)
    name = _name(options.paths, found)
    measured, convergence = measure_checkpoints(found, options), convergence_at(places)
    report = CheckpointReport(
        name,
        examine(found),
        measured.behaviour,
        measured.candidates,
        convergence,
        measured.notes,
        command=_command(options),
    )
    output: Path = options.output or options.storage / "reports" / name
    with writing(output):
        write_checkpoint_report(report, output)
    print(report.to_json() if options.json else _said(report, output))
    return 0


def _opened(paths: Sequence[Path]) -> list[Weights]:
    """All of them. Raises SpecError with every one that cannot be read."""
    found: list[Weights] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            found.append(open_weights(path))
        except SpecError as error:
            problems += error.problems
    if problems:
        raise SpecError(*problems)
    return found


def _name(named: Sequence[str], found: Sequence[Weights]) -> str:
    """Of the training where all are of one, else of what was named first; safe as a folder's name."""
    trainings = {weights.training for weights in found}
    if len(trainings) > 1:
        name = Path(named[0].split("?")[0]).stem
    else:
        trial = Path(trainings.pop())
        sweep = [trial.parent.parent.name] if trial.parent.name == "trials" else []
        name = "-".join([*sweep, trial.name, *([Path(found[0].path).name] if len(found) == 1 else [])])
    return re.sub(r"[^\w.-]+", "-", name).strip(".-") or "checkpoints"


def _command(options: argparse.Namespace) -> str:
    """That makes the same report again, with every option that matters to it."""
    words = ["python", "-m", "orchestrator", "checkpoint", "report", *options.paths, "--storage", str(options.storage)]
    words += ["--output", str(options.output)] if options.output else []
    words += ["--config", str(options.config)] if options.config else []
    words += [word for field in options.fields for word in ("--set", field)]
    if options.no_behaviour:
        return shlex.join([*words, "--no-behaviour"])
    words += ["--task", options.task] if options.task else []
    words += ["--rows", str(options.rows)] if options.rows else []
    return shlex.join([*words, "--split", options.split])


def _said(report: CheckpointReport, output: Path) -> str:
    lines = [*report.answers(), *report.notes, ""]
    for finding in report.health.findings:
        of = f"{finding.checkpoint}: " if finding.checkpoint else ""
        lines.append(f"{finding.level:>8}  {of}{finding.text}")
    return "\n".join([*lines, "", f"The full report: {output / 'report.html'}"])
