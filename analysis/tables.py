"""The tables and paragraphs of a report as plain text, shared by its Markdown and its HTML form.

A `Table` holds text as it came; whoever renders it escapes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.answer import Answer
from analysis.arms import ArmResult, ranked
from analysis.compare import Difference
from analysis.front import POINTS_SHOWN, Front
from analysis.numbers import amount, count, duration, flop, listing, p_value, percent, plural, significant, together
from analysis.records import ArmCost, compared_to
from analysis.spending import limits_line, spent_rows

if TYPE_CHECKING:
    from analysis.report import Report

IMPORTANCE_NOTE = (
    "The share of the objective's variance that each searched parameter explains (fANOVA on the arm's completed search "
    "trials). With a handful of trials this is a hint where to look, not evidence."
)

FAILURES_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text below a header; `numeric` columns are set to the right."""

    header: list[str]
    rows: list[list[str]]
    numeric: frozenset[int] = frozenset()
    leader: int | None = None
    """The row of the best arm."""


def status_line(report: Report) -> str:
    """Empty for a finished sweep, else how far it is."""
    if report.finished:
        return ""
    t = report.trials
    return (
        f"This sweep has not finished: {t['completed'] + t['pruned'] + t['failed']} of {t['planned']} planned trials "
        f"have ended, {t['running']} running. Everything below is as of now and can change.{limits_line(report.spent)}"
    )


def certainty_line(report: Report, answer: Answer) -> str:
    """The probability that the leader is best, and where it stands against the reference."""
    parts = []
    if answer.probability_best is not None:
        parts.append(f"Probability that {answer.best_arm} is the best arm: {percent(answer.probability_best)}.")
    if answer.reference and answer.reference["ratio"]:
        parts.append(
            f"Its loss is {significant(answer.reference['ratio'], 3)} times the generator's cross-entropy "
            f"({significant(answer.reference['generator_cross_entropy'])}), the loss of one that knows its rules."
        )
    return " ".join(parts)


def arms_table(report: Report, task: str) -> Table:
    """The comparison: best first, arms without a value last."""
    here = [arm for arm in report.arms if arm.task == task]
    order = ranked([arm for arm in here if arm.metric and arm.metric.decides], report.direction)
    order += ranked([arm for arm in here if arm.metric and not arm.metric.decides], report.direction)
    order += [arm for arm in here if arm.metric is None]
    header = ["arm", f"test {report.metric}", "95 % interval", "n", "parameters"]
    header += ["steps", "training FLOPs", "seconds", "best checkpoint"]
    leader = 0 if order and order[0].metric is not None else None
    return Table(header, [_arm_row(arm) for arm in order], frozenset(range(1, 8)), leader)


def comparisons_table(report: Report, answer: Answer) -> Table:
    """The best arm minus each other one, paired by seed."""
    header = ["best minus", f"difference in {report.metric}", "95 % interval", "paired seeds", "p", "p (Holm)"]
    header.append("detectable (80 % power)")
    return Table(header, [_difference_row(d) for d in answer.comparisons], frozenset(range(1, 7)))


def configurations_table(report: Report, task: str) -> Table:
    """What was searched, and the best configuration of each arm."""
    arms = [arm for arm in report.arms if arm.task == task and arm.metric is not None]
    names = sorted({name for arm in arms for name in arm.best_configuration})
    rows = [[name, *(_value(arm.best_configuration.get(name)) for arm in arms)] for name in names]
    return Table(["searched parameter", *(arm.name for arm in arms)], rows, frozenset(range(1, len(arms) + 1)))


def front_table(front: Front) -> Table:
    """The front by its first objective: the value of each, and what was searched."""
    shown = front.points[:POINTS_SHOWN]
    names = sorted({name for point in shown for name in point.parameters})
    rows = [
        [point.trial, *map(significant, point.values), *(_value(point.parameters.get(name)) for name in names)]
        for point in shown
    ]
    return Table(["trial", *front.objectives, *names], rows, frozenset(range(1, 1 + len(front.objectives))))


def front_note(front: Front) -> str:
    """What the front is."""
    pairs = zip(front.objectives, front.directions, strict=True)
    aims = listing([f"{direction.removesuffix('e')}ing {name}" for name, direction in pairs])
    more = f" The first {POINTS_SHOWN} of {len(front.points)}." if len(front.points) > POINTS_SHOWN else ""
    return f"{front.arm}: no trial is better in all of {aims} on validation, one seed each.{more}"


def costs_table(costs: Sequence[ArmCost], reference: str) -> Table:
    """What each arm costs as its file states it; ratios are to the arm `reference` on the same task (`compared_to`)."""
    own = compared_to(costs, reference)
    header = ["arm", "parameters", "ratio", "table", "forward", "training", "ratio", "steps", "tokens"]
    rows = [
        [
            f"{cost.task}/{cost.arm}" if len(own) > 1 else cost.arm,
            f"{cost.parameters:,}",
            f"{cost.parameters / own[cost.task].parameters:.3f}",
            count(cost.table_values),
            count(cost.forward_flops_per_token),
            count(cost.flops_per_token),
            f"{cost.flops_per_token / own[cost.task].flops_per_token:.3f}",
            count(cost.steps),
            count(cost.tokens),
        ]
        for cost in costs
    ]
    return Table(header, rows, frozenset(range(1, len(header))))


def costs_notes(costs: Sequence[ArmCost], reference: str) -> list[str]:
    """What the columns mean, and how far the spaces move the costs of single arms."""
    references = references_in_words(costs, reference)
    lines = [
        "Parameters without puzzle tables, and the tables' values; FLOPs per token and segment, forward and in "
        f"training (a mean over it); ratios to {references}; steps and scored tokens that the budget buys."
    ]
    for cost in costs:
        ranges = (("parameters", cost.parameters_range), ("training FLOPs per token", cost.flops_per_token_range))
        moved = [f"{name} from {count(ends[0])} to {count(ends[1])}" for name, ends in ranges if ends]
        if moved:
            lines.append(f"The space of {cost.arm} takes {' and '.join(moved)}.")
    return list(dict.fromkeys(lines))


def references_in_words(costs: Sequence[ArmCost], reference: str) -> str:
    """`baseline`; where it does not run on every task, also what stands in: `baseline (transformer on other)`."""
    stand_ins = [
        f"{cost.arm} on {task}" for task, cost in compared_to(costs, reference).items() if cost.arm != reference
    ]
    return f"{reference} ({listing(stand_ins)})" if stand_ins else reference


def cost_table(report: Report) -> Table:
    """What the sweep took."""
    t = report.trials
    states = ", ".join(f"{t[state]} {state}" for state in ("completed", "pruned", "failed", "running", "waiting"))
    rows = [
        ["wall clock", duration(report.elapsed_seconds)],
        ["training, summed over trials", duration(report.cost["seconds"])],
        ["training FLOPs, summed over trials", flop(report.cost["flops"])],
        ["trials", f"{t['total']} of {t['planned']} planned: {states}"],
        *spent_rows(report.spent),
    ]
    return Table(["cost", ""], rows)


def datasets_table(report: Report) -> Table:
    """Recipe, fingerprint and rows per split, by task."""
    rows = []
    for task, data in report.datasets.items():
        sizes = ", ".join(f"{split} {_value(n)}" for split, n in data.get("rows", {}).items())
        rows.append([task, _value(data.get("recipe")), _value(data.get("fingerprint")), sizes])
    return Table(["task", "recipe", "fingerprint", "rows"], rows)


def environment_table(report: Report) -> Table:
    """The machine, the versions and the code."""
    code = report.reproduce["code"]
    commit = f"{code['commit']}{' with uncommitted changes' if code.get('dirty') else ''}" if code else "not from git"
    rows = [[name, _value(value)] for name, value in report.reproduce["environment"].items()]
    return Table(["it ran on", ""], [["code", commit], *rows])


def failures_table(report: Report) -> Table:
    """Failed trials with their reasons and logs."""
    shown = report.failures[:FAILURES_SHOWN]
    return Table(["trial", "reason", "log"], [[failure.key, failure.reason, failure.log] for failure in shown])


def ended_early_table(report: Report) -> Table:
    """Completed trials whose training a guard ended before its budget was spent."""
    shown = report.ended_early[:FAILURES_SHOWN]
    more = len(report.ended_early) - len(shown)
    rows = [[trial.key, trial.reason] for trial in shown] + ([["", f"and {more} more"]] if more else [])
    return Table(["trial", "ended early"], rows)


def failures_note(report: Report) -> str:
    """Empty where the table has them all."""
    of = len(report.failures)
    return f"The first {FAILURES_SHOWN} of {of:,}; report.json has them all." if of > FAILURES_SHOWN else ""


def matching_paragraph(report: Report) -> str:
    """How the arms were matched, and which split did what."""
    axis, size = report.matched_by.get("axis"), report.matched_by.get("amount")
    budget = amount(float(size), str(axis)) if axis and size is not None else "a budget that was not recorded"
    return (
        f"The arms were matched by {axis or 'an unknown axis'}: every trial that is neither pruned nor failed"
        f"{' nor ended early by a guard' if report.ended_early else ''} trains for {budget}; "
        "the other costs follow and are in the table. Training used the train split. The search, the "
        "pruning and the choice of checkpoints used the validation split. Each replica reported its best checkpoint "
        "on the test split once, and only these values decide. Intervals are 95 %: Student's t over seeds, from 10 "
        "seeds on a bootstrap for the means. Differences are paired by seed; their p are corrected by Holm. The "
        "probability of being best is by Monte Carlo over the t distributions of the means. Parameters are trainable "
        "values without puzzle tables; steps, FLOPs and seconds are means per replica."
    )


def notes(report: Report, task: str) -> list[str]:
    """What a reader of the comparison must know about single arms."""
    lines = []
    for arm in (arm for arm in report.arms if arm.task == task):
        if arm.metric is None:
            lines.append(f"{arm.name}: no trial has completed.")
        elif not arm.metric.decides:
            lines.append(f"{arm.name}: {arm.metric.evidence}.")
        elif arm.metric.note:
            lines.append(f"{arm.name}: {arm.metric.note}, so there is no interval.")
        if arm.replicas_failed:
            failed = f"{arm.replicas_failed} of {plural(arm.replicas, 'replica')}"
            lines.append(f"{arm.name}: {failed} failed; the mean is of those that did not.")
        lines += [f"{arm.name}: {sentence}." for sentence in arm.course]
        if f"{task}/{arm.name}/search" in report.exhausted:
            lines.append(f"{arm.name}: its search ended early, with every configuration of its space run once.")
    return lines


def _arm_row(arm: ArmResult) -> list[str]:
    cost = [count(arm.parameters), count(arm.steps), flop(arm.flops), duration(arm.seconds), arm.best_checkpoint or "–"]
    metric = arm.metric
    if metric is None:
        return [arm.name, "–", "–", "0", *cost]
    mean, low, high = together(metric.mean, metric.low, metric.high)
    if not metric.decides:
        return [arm.name, f"{mean} (validation)", "search only", "1", *cost]
    return [arm.name, mean, "one seed" if metric.low is None else f"{low} to {high}", str(metric.n), *cost]


def _difference_row(d: Difference) -> list[str]:
    if d.mean is None:
        return [d.other, "–", "–", "0", "–", "–", "–"]
    mean, low, high = together(d.mean, d.low, d.high)
    interval = "one seed" if d.low is None else f"{low} to {high}"
    return [d.other, mean, interval, str(d.n), p_value(d.p), p_value(d.adjusted_p), significant(d.detectable, 2)]


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(item)}" for name, item in value.items())
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_value(item) for item in value)
    return "–" if value is None else str(value)
