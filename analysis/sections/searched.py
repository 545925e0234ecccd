"""What the search of a task found: the best configurations, every trial by its value and state, Pareto fronts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.front import POINTS_SHOWN, Front
from analysis.numbers import significant
from analysis.search_figures import MAX_DOTS, front_plot, search_plot
from analysis.section import Block, Cell, Chart, Link, Section, Table, Text
from analysis.sweep import Sweep
from analysis.tables import front_note, value_in_words

if TYPE_CHECKING:
    from analysis.report import Report


def sections(report: Report, sweep: Sweep, task: str) -> list[Section]:
    """Of the task's search."""
    number = sweep.record.tasks.index(task)
    found = []
    configurations = _configurations(report, sweep, task)
    if configurations.rows:
        found.append(Section("Best configurations", [configurations]))
    figure = search_plot(sweep, task)
    if figure.data:
        chart, note = Chart(f"search-{number}", figure), Text(_note(sweep, task), quiet=True)
        found.append(Section("The search, by arm and state", [chart, note]))
    fronts = [front for front in report.fronts if front.task == task and front.points]
    if fronts:
        chart = Chart(f"front-{number}", front_plot(sweep, fronts))
        found.append(Section("Pareto front", [chart, *(block for front in fronts for block in _front(front))]))
    return found


def _configurations(report: Report, sweep: Sweep, task: str) -> Table:
    """What was searched, the best configuration of each arm, and the trial of the search that found it."""
    arms = [arm for arm in report.arms if arm.task == task and arm.metric is not None]
    names = sorted({name for arm in arms for name in arm.best_configuration})
    rows: list[list[Cell]] = [
        [name, *(value_in_words(arm.best_configuration.get(name)) for arm in arms)] for name in names
    ]
    if rows:
        sources = {trial.key: trial.source or trial.key for trial in sweep.select(task=task)}
        found = [sources[arm.best_trial] for arm in arms]
        rows.append(["found by", *(Link(key, trial=key) for key in found)])
    return Table(["searched parameter", *(arm.name for arm in arms)], rows, frozenset(range(1, len(arms) + 1)))


def _note(sweep: Sweep, task: str) -> str:
    trials = len(sweep.select(task=task, phase="search"))
    drawn = f" Of {trials:,} trials the best and the worst of each stretch are drawn." if trials > MAX_DOTS else ""
    return f"Trials without a value, failed or waiting, stand at the upper edge.{drawn}"


def _front(front: Front) -> list[Block]:
    """The front by its first objective: the value of each, and what was searched."""
    shown = front.points[:POINTS_SHOWN]
    names = sorted({name for point in shown for name in point.parameters})
    rows: list[list[Cell]] = [
        [
            Link(point.trial, trial=point.trial),
            *map(significant, point.values),
            *(value_in_words(point.parameters.get(name)) for name in names),
        ]
        for point in shown
    ]
    table = Table(
        ["trial", *front.objectives, *names],
        rows,
        frozenset(range(1, 1 + len(front.objectives))),
        arms=[front.arm] * len(rows),
    )
    return [Text(front_note(front)), table]
