"""What each arm achieved on a task: the comparison, and every seed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.answer import Answer
from analysis.arms import ArmResult, ranked
from analysis.effect_words import EQUAL, ONE_SEED
from analysis.figures import replica_dots
from analysis.numbers import count, duration, flop, metric_unit, plural, significant, together
from analysis.section import Block, Cell, Chart, Link, Notes, Section, Table
from analysis.sweep import Sweep

if TYPE_CHECKING:
    from analysis.report import Report


def sections(report: Report, sweep: Sweep, task: str) -> list[Section]:
    """Of the task's arms."""
    arms = [arm for arm in report.arms if arm.task == task]
    answer = next(answer for answer in report.answers if answer.task == task)
    number = sweep.record.tasks.index(task)
    unit = metric_unit(report.metric)
    title = f"Comparison, {report.metric} in {unit}" if unit else "Comparison"
    found = [
        Section(title, [_arms_table(report, arms), Notes(_notes(report, arms))]),
        Section("Each seed, the mean and its 95 % interval", _seeds(arms, sweep, answer, number)),
    ]
    return [section for section in found if section.blocks]


def _arms_table(report: Report, arms: list[ArmResult]) -> Table:
    """The comparison: best first, arms without a value last."""
    order = ranked([arm for arm in arms if arm.metric and arm.metric.decides], report.direction)
    order += ranked([arm for arm in arms if arm.metric and not arm.metric.decides], report.direction)
    order += [arm for arm in arms if arm.metric is None]
    header = ["arm", f"test {report.metric}", "95 % interval", "n", "parameters"]
    header += ["steps", "training FLOPs", "seconds", "best checkpoint"]
    values = [arm.metric.mean for arm in order if arm.metric]
    leader = 0 if values and values.count(values[0]) == 1 else None
    rows = [_arm_row(arm) for arm in order]
    return Table(header, rows, frozenset(range(1, 8)), leader, [arm.name for arm in order])


def _arm_row(arm: ArmResult) -> list[Cell]:
    cost: list[Cell] = [count(arm.parameters), count(arm.steps), flop(arm.flops), duration(arm.seconds)]
    cost.append(Link(arm.best_checkpoint, trial=arm.best_trial) if arm.best_checkpoint else "–")
    metric = arm.metric
    if metric is None:
        return [arm.name, "–", "–", "0", *cost]
    mean, low, high = together(metric.mean, metric.low, metric.high)
    if not metric.decides:
        return [arm.name, f"{mean} (validation)", "search only", "1", *cost]
    interval = ONE_SEED if metric.low is None else EQUAL if metric.low == metric.high else f"{low} to {high}"
    return [arm.name, mean, interval, str(metric.n), *cost]


def _seeds(arms: list[ArmResult], sweep: Sweep, answer: Answer, number: int) -> list[Block]:
    """A figure, and the same as a table whose values lead to their trials."""
    dots = replica_dots(arms, sweep.record.arms, answer.reference)
    if not dots.data:
        return []
    measured = [arm for arm in arms if arm.metric is not None and arm.metric.decides]
    seeds = sorted({int(seed) for arm in measured if arm.metric for seed in arm.metric.seeds})
    rows = [[arm.name, *(_seed_cell(arm, str(seed)) for seed in seeds)] for arm in measured]
    header = ["arm", *(f"seed {seed}" for seed in seeds)]
    table = Table(header, rows, frozenset(range(1, len(header))), arms=[arm.name for arm in measured])
    return [Chart(f"dots-{number}", dots), *([table] if rows else [])]


def _seed_cell(arm: ArmResult, seed: str) -> Cell:
    if arm.metric is None or seed not in arm.metric.seeds:
        return "–"
    return Link(significant(arm.metric.seeds[seed]), trial=arm.trials.get(seed, ""))


def _notes(report: Report, arms: list[ArmResult]) -> list[str]:
    """What a reader of the comparison must know about single arms."""
    lines = []
    for arm in arms:
        if arm.metric is None:
            lines.append(f"{arm.name}: no trial has completed.")
        elif not arm.metric.decides:
            lines.append(f"{arm.name}: {arm.metric.evidence}.")
        elif arm.metric.note:
            lines.append(f"{arm.name}: {arm.metric.note}, so there is no interval.")
        if arm.replicas_failed:
            failed = f"{arm.replicas_failed} of {plural(arm.replicas, 'replica')}"
            lines.append(f"{arm.name}: {failed} failed; the mean is of those that did not.")
        if arm.started_from:
            lines.append(f"{arm.name} starts from {arm.started_from}; what that took is not in its compute.")
        lines += [f"{arm.name}: {sentence}." for sentence in arm.course]
        if f"{arm.task}/{arm.name}/search" in report.exhausted:
            lines.append(f"{arm.name}: its search ended early, with every configuration of its space run once.")
    return lines
