"""What the arms of a task need to become good: time to a target, equal compute, area under the curve, the front."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from analysis.compute_figure import DOTS, compute_figure
from analysis.curve_figures import axis_words
from analysis.curves import AXES, curves_of
from analysis.effect_words import EQUAL, ONE_SEED
from analysis.efficiency import AtCompute, Lead
from analysis.intervals import ALPHA
from analysis.numbers import count, duration, flop, p_value, significant, together
from analysis.section import Block, Cell, Chart, Notes, Section, Table, Text
from analysis.sweep import Sweep
from analysis.time_to_target import TimeToTarget

if TYPE_CHECKING:
    from analysis.report import Report

CUT_SHORT = (
    "Read from each replica's best validation value up to a report, on straight lines between reports. A training that "
    "is cut short is not one that was planned shorter: the schedule of its learning rate is that of the whole budget."
)


def sections(report: Report, sweep: Sweep, task: str) -> list[Section]:
    """Of the task; none before two arms have a curve."""
    found = report.efficiency
    targets = _telling([row for row in found.targets if row.task == task])
    compute = [row for row in found.equal_compute if row.task == task]
    areas = [row for row in found.areas if row.task == task]
    front = [lead for lead in found.front if lead.task == task]
    if len({row.arm for row in compute}) < 2:
        return []
    return [
        *([Section("Time to a target", _times(sweep, targets))] if targets else []),
        Section("At equal compute", _equal_compute(sweep, compute, areas)),
        Section("Quality against compute", _front(report, sweep, task, front)),
    ]


def _telling(rows: list[TimeToTarget]) -> list[TimeToTarget]:
    """Without targets at which every replica of every arm was at its first report."""
    open_ = {row.target for row in rows if row.at_first < row.n}
    return [row for row in rows if row.target in open_]


def _times(sweep: Sweep, rows: list[TimeToTarget]) -> list[Block]:
    axes = [axis for axis in AXES if any(row.axis == axis for row in rows)]
    asked = str(sweep.record.budget.get("axis", "flops"))
    first = asked if asked in axes else "flops"
    sentences = [_ratio_sentence(sweep, row) for row in rows if row.axis == first]
    targets = {row.target: _target_words(row) for row in rows}
    named = "; ".join(f"{significant(target)} {words}" for target, words in targets.items())
    note = (
        f"Targets, in validation {sweep.record.metric}: {named}. Geometric means over replicas with 95 % intervals, "
        f"where all of an arm's replicas got there; ratios are on equal seeds, their p is over all pairs of arms. ≤: "
        "a replica was there at its first report. How the curves are read stands below the next tables."
    )
    texts: list[Block] = [Text(sentence) for sentence in sentences if sentence]
    return [*texts, _times_table(sweep, rows, axes, first), Text(note, quiet=True)]


def _target_words(row: TimeToTarget) -> str:
    return f"is what every replica of {row.reached_by} reached" if row.reached_by else "is midway"


def _ratio_sentence(sweep: Sweep, row: TimeToTarget) -> str:
    """Only where the interval allows it."""
    if row.ratio is None or row.ratio_low is None or row.adjusted_p is None or row.adjusted_p >= ALPHA:
        return ""
    ratio, low, high = together(row.ratio, row.ratio_low, row.ratio_high)
    return (
        f"To {sweep.record.metric} {significant(row.target)}, {row.arm} takes {ratio} times the "
        f"{axis_words(sweep, row.axis)} that {row.least} takes (95 % interval {low} to {high})."
    )


def _times_table(sweep: Sweep, rows: list[TimeToTarget], axes: list[str], first: str) -> Table:
    """A row for each target and arm; the interval and the ratio are those of the axis `first`."""
    others = [axis for axis in axes if axis != first]
    cells = {(row.target, row.arm, row.axis): row for row in rows}
    shown = [row for row in rows if row.axis == first]
    header = ["arm", "target", "got there", axis_words(sweep, first), "95 % interval", "times the least"]
    header += ["95 % interval", "p (Holm)", *(axis_words(sweep, axis) for axis in others)]
    body = [
        [
            row.arm,
            significant(row.target),
            f"{row.reached} of {row.n}",
            _place(row),
            _interval(first, row),
            *_ratio(row),
            *(_place(cells[row.target, row.arm, axis]) for axis in others),
        ]
        for row in shown
    ]
    return Table(header, body, frozenset(range(1, len(header))), arms=[row.arm for row in shown])


def _ratio(row: TimeToTarget) -> list[str]:
    if row.mean is None:
        return ["–", "–", "–"]
    if row.ratio is None:
        return ["–", "–", "–"] if row.at_first else ["1", "–", "–"]
    ratio, low, high = together(row.ratio, row.ratio_low, row.ratio_high)
    return [ratio, "one seed" if row.ratio_low is None else f"{low} to {high}", p_value(row.adjusted_p)]


def _place(row: TimeToTarget) -> str:
    amount = _amount(row.axis, row.mean)
    return f"≤ {amount}" if row.at_first and row.mean is not None else amount


def _interval(axis: str, row: TimeToTarget) -> str:
    if row.mean is None or row.at_first:
        return "–"
    return "one seed" if row.low is None else f"{_amount(axis, row.low)} to {_amount(axis, row.high)}"


def _amount(axis: str, value: float | None) -> str:
    match axis:
        case "flops":
            return flop(value)
        case "seconds":
            return duration(value)
        case "cost":
            return significant(value, 3)
        case _:
            return count(value)


def _equal_compute(sweep: Sweep, rows: list[AtCompute], areas: list[AtCompute]) -> list[Block]:
    """At the end whole, before it the means; below, the area."""
    end = max(row.end for row in rows)
    last = [row for row in rows if row.end == end]
    early = {(row.arm, row.end): row for row in rows}
    ends = sorted({row.end for row in rows} - {end})
    table = _standings(
        sweep, last, {f"after {flop(each)}": {r.arm: early.get((r.arm, each)) for r in last} for each in ends}
    )
    blocks: list[Block] = [Text(f"After {flop(end)} of training, which every replica has had:"), table]
    if areas:
        axis = areas[0].axis
        between = f"from {_amount(axis, areas[0].start)} to {_amount(axis, areas[0].end)}"
        words = f"Area under the curve, as the mean over {axis_words(sweep, axis)} {between}:"
        blocks += [Text(words), _standings(sweep, areas, {})]
    return [*blocks, Text(f"{CUT_SHORT} p is over all pairs of arms.", quiet=True)]


def _standings(sweep: Sweep, rows: list[AtCompute], early: Mapping[str, Mapping[str, AtCompute | None]]) -> Table:
    """Best first. `early`: further columns, by header and arm."""
    sign = 1.0 if sweep.record.direction == "minimize" else -1.0
    rows = sorted(rows, key=lambda row: sign * row.mean)
    metric = f"validation {sweep.record.metric}"
    header = ["arm", metric, "95 % interval", "n", f"{rows[0].best} minus it", "95 % interval", "p (Holm)", *early]
    body = [[*_standing(row), *(_mean(by_arm[row.arm]) for by_arm in early.values())] for row in rows]
    leader = 0 if len(rows) > 1 and rows[0].mean != rows[1].mean else None
    return Table(header, body, frozenset(range(1, len(header))), leader, [row.arm for row in rows])


def _mean(row: AtCompute | None) -> str:
    if row is None:
        return "–"
    mean, low, high = together(row.mean, row.low, row.high)
    return mean if row.low is None or row.low == row.high else f"{mean} ({low} to {high})"


def _standing(row: AtCompute) -> list[Cell]:
    mean, low, high = together(row.mean, row.low, row.high)
    spread = ONE_SEED if row.low is None else EQUAL if row.low == row.high else f"{low} to {high}"
    own = [row.arm, mean, spread, str(row.n)]
    if row.difference is None:
        return [*own, "–", "–", "–"]
    gap, below, above = together(row.difference, row.difference_low, row.difference_high)
    same = row.difference_low == row.difference_high
    interval = ONE_SEED if row.difference_low is None else EQUAL if same else f"{below} to {above}"
    return [*own, gap, interval, p_value(row.adjusted_p)]


def _front(report: Report, sweep: Sweep, task: str, front: list[Lead]) -> list[Block]:
    number = sweep.record.tasks.index(task)
    figure = compute_figure(sweep, task, curves_of(sweep, task), report.efficiency)
    many = any(len(sweep.select(task=task, arm=arm)) > DOTS for arm in sweep.record.arms)
    lines = [
        f"{flop(lead.start)} to {flop(lead.end)}: {lead.arm} has the best mean, {significant(lead.value)} at the end."
        for lead in front
    ]
    text = (
        f"The front of mean validation {sweep.record.metric} and training compute, by the means alone: whether a lead "
        "is more than chance is in the tables above. Filled dots are replicas, open ones trials of the search, each "
        f"where it ended{'; of many, the best and the worst of each stretch' if many else ''}."
    )
    return [Chart(f"compute-{number}", figure), Notes(lines), Text(text, quiet=True)]
