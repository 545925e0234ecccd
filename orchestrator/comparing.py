"""The command `compare A B`: two arms, or all arms of two sweeps, held against each other."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from analysis.contrast import ContrastReport, Unit, contrast
from analysis.markdown import document_text
from analysis.page import render_document
from analysis.sections.contrast import sections
from analysis.sweep import Sweep
from analysis.writing import write_whole
from hrm.errors import Problem, SpecError
from orchestrator.commands import writing
from orchestrator.fetched import sweep_with_rows
from orchestrator.sweep_names import sweep_directory

_FORMS = "Give SWEEP, SWEEP:ARM or SWEEP:TASK:ARM"


@dataclass(frozen=True, slots=True)
class Side:
    """What a person named: a sweep, and perhaps an arm and a task in it."""

    name: str
    """Of the sweep, as it was given: a name, or a path."""
    sweep: Sweep
    task: str | None
    arm: str | None

    def units(self) -> list[Unit]:
        """All arms on all tasks that the name covers."""
        record = self.sweep.record
        return [
            Unit(self.name, task, arm)
            for task in record.tasks
            for arm in record.arms
            if record.runs_on(arm, task) and self.task in (None, task) and self.arm in (None, arm)
        ]


def compare(options: argparse.Namespace) -> int:
    """Show it, and with --output write it; gives its exit code."""
    first, second = (_side(name, options) for name in (options.first, options.second))
    _check(first.sweep, second.sweep)
    report = contrast(first.sweep, second.sweep, _pairs(first, second, options))
    title = f"{options.first} against {options.second}"
    if options.output is not None:
        _write(report, title, options.output)
    print(report.to_json() if options.json else document_text(title, sections(report)))
    return 0


def _side(name: str, options: argparse.Namespace) -> Side:
    """Raises SpecError for a sweep, a task or an arm that is not there."""
    sweep, *rest = name.split(":")
    if len(rest) > 2:
        raise SpecError(Problem(name, "has more than three parts", _FORMS))
    side = Side(sweep, sweep_with_rows(sweep_directory(options.storage, sweep, options.store)), *_task_and_arm(rest))
    record = side.sweep.record
    known = (("task", side.task, record.tasks), ("arm", side.arm, record.arms))
    problems = [
        Problem(name, f"the sweep has no {what} {value!r}", f"It has {', '.join(names)}. {_FORMS}")
        for what, value, names in known
        if value is not None and value not in names
    ]
    if problems:
        raise SpecError(*problems)
    return side


def _task_and_arm(rest: list[str]) -> tuple[str | None, str | None]:
    return (rest[0], rest[1]) if len(rest) == 2 else (None, rest[0] if rest else None)


def _check(first: Sweep, second: Sweep) -> None:
    problems = [
        Problem(
            f"{first.record.name} and {second.record.name}",
            f"must have the same objective.{what}, got {one} and {other}",
            "Only results in one metric can be compared",
        )
        for what in ("metric", "direction")
        if (one := getattr(first.record, what)) != (other := getattr(second.record, what))
    ]
    if problems:
        raise SpecError(*problems)


def _pairs(first: Side, second: Side, options: argparse.Namespace) -> list[tuple[Unit, Unit]]:
    """Every arm of the one with those of the other that it can mean: of the same name where a name is left out."""
    same_sweep = first.sweep.directory.resolve() == second.sweep.directory.resolve()
    pairs = [
        (one, other)
        for one in first.units()
        for other in second.units()
        if (one.task == other.task or (first.task and second.task))
        and (one.arm == other.arm or (first.arm and second.arm))
        and not (same_sweep and one == other)
    ]
    if pairs:
        return pairs
    names = [", ".join(f"{unit.task}:{unit.arm}" for unit in side.units()) for side in (first, second)]
    rule = f"nothing to compare: the first has {names[0]}, the second {names[1]}"
    raise SpecError(Problem(f"{options.first} {options.second}", rule, f"Name an arm on both sides. {_FORMS}"))


def _write(report: ContrastReport, title: str, output: Path) -> None:
    found = sections(report)
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        write_whole(output / "compare.json", report.to_json() + "\n")
        write_whole(output / "compare.md", document_text(title, found))
        write_whole(output / "compare.html", render_document("compare", found, lead=title))
