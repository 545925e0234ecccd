"""The health of checkpoints on a page: findings in sentences, then the tables they rest on."""

from __future__ import annotations

from analysis.checkpoints.change import Change, Course
from analysis.checkpoints.health import CheckpointHealth, Health
from analysis.checkpoints.health_figures import drift_lines, untrained_bars
from analysis.checkpoints.rows import TableUse
from analysis.checkpoints.tensors import BUFFERS, EVERYTHING, PARAMETERS, Extreme, Group, value_of
from analysis.checkpoints.wording import LEVELS, count_of, megabytes, share
from analysis.numbers import significant
from analysis.section import Block, Chart, Notes, Section, Table, Text

LIMITS = (
    "Weights show whether a checkpoint is intact, what it holds and how far it moved. Which checkpoint is best, and "
    "whether a training has converged, they cannot show: that takes a validation metric."
)
_WORDS = {"problem": "Broken:", "notice": "Worth knowing:", "fine": "In order:"}
_NUMBERS = {
    "mean_absolute": "mean |w|",
    "std": "standard deviation",
    "mean": "mean",
    "sparsity": "share of zeros",
    "minimum": "minimum",
    "maximum": "maximum",
    "norm": "norm",
}
_CHANGES = ["of", "number", "first", "last", "difference", "in %"]
_MOVING = ("mean_absolute", "std", "norm")
_SHOWN = 200
"""Tensors of a checkpoint on the page; the files have all."""


def verdict(health: Health) -> str:
    """One sentence."""
    broken = [finding for finding in health.findings if finding.level == "problem"]
    what = count_of(len(health.checkpoints), "checkpoint")
    if broken:
        return f"Broken: {count_of(len(broken), 'finding')} in the weights of {what}, the first: {broken[0].text}"
    return f"The weights of {what} are intact: no NaN, no Inf."


def is_intact(health: Health) -> bool:
    """True if nothing in the weights is broken."""
    return all(finding.level != "problem" for finding in health.findings)


def health_sections(health: Health) -> list[Section]:
    """Everything that the weights show; of each training the last checkpoint in detail."""
    last = list({checkpoint.training: checkpoint for checkpoint in health.checkpoints}.values())
    sections = [_findings(health), _overview(health), _weightings(health), *(_components(c) for c in last)]
    sections.append(_rows(health))
    for number, course in enumerate(health.courses):
        sections += [_course(course, number), _component_changes(course)]
    return [
        section for section in [*sections, *(_tensors(health, checkpoint) for checkpoint in last)] if section.blocks
    ]


def _findings(health: Health) -> Section:
    blocks: list[Block] = []
    for level in LEVELS:
        found = [finding for finding in health.findings if finding.level == level]
        if found:
            lines = [
                f"{finding.checkpoint}: {finding.text}" if finding.checkpoint else finding.text for finding in found
            ]
            blocks += [Text(_WORDS[level]), Notes(lines)]
    return Section("Health of the weights", [*blocks, Text(LIMITS, quiet=True)], level=2)


def _overview(health: Health) -> Section:
    header = ["checkpoint", "values", "file", "float types", "NaN", "Inf", "minimum", "maximum", "norm"]
    rows = [
        [
            checkpoint.label,
            f"{checkpoint.parameters:,}",
            megabytes(checkpoint.bytes),
            ", ".join(f"{number} {name}" for name, number in checkpoint.dtypes.items()),
            f"{whole.nan:,}",
            f"{whole.infinite:,}",
            _extreme(whole.minimum),
            _extreme(whole.maximum),
            significant(whole.norm),
        ]
        for checkpoint, whole in _wholes(health)
    ]
    kinds = [f"{c.label}: {c.format}{', averaged weights' if c.averaged else ''}, {c.path}" for c in health.checkpoints]
    return Section("The checkpoints", [Table(header, rows, frozenset({1, 2, 4, 5, 8})), Notes(kinds)])


def _weightings(health: Health) -> Section:
    header = ["checkpoint", "of", "tensors", "values"]
    header += [f"{name} by {weighting}" for name in ("mean |w|", "std", "zeros") for weighting in ("tensor", "value")]
    groups = [(c.label, c.group(name)) for name in (EVERYTHING, PARAMETERS, BUFFERS) for c in health.checkpoints]
    rows = [_weighted(label, group) for label, group in groups if group is not None]
    note = (
        "By tensor every tensor counts alike, a bias of two values as much as a table of millions; by value each value "
        "does. Standard deviations divide by n - 1. Buffers are what the main optimizer does not train: initial states "
        "and the puzzle table."
    )
    return Section(
        "Averages, in two weightings", [Table(header, rows, frozenset(range(2, 10))), Text(note, quiet=True)]
    )


def _weighted(label: str, group: Group) -> list[str]:
    each, value = group.per_tensor, group.per_parameter
    numbers = [each.mean_absolute, value.mean_absolute, each.std, value.std]
    zeros = [f"{100 * each.sparsity:.2f} %", f"{100 * value.sparsity:.2f} %"]
    counted = [str(group.tensors), f"{group.parameters:,}"]
    return [label, group.name, *counted, *(significant(number) for number in numbers), *zeros]


def _components(checkpoint: CheckpointHealth) -> Section:
    header = ["component", "tensors", "values", "share", "mean |w|", "std", "minimum", "maximum", "zeros", "norm"]
    parts = [group for group in checkpoint.groups if group.name not in (EVERYTHING, PARAMETERS, BUFFERS)]
    rows = [_component(group) for group in [*sorted(parts, key=lambda group: -group.parameters), checkpoint.groups[0]]]
    return Section(f"By component, {checkpoint.label}", [Table(header, rows, frozenset(range(1, 10)))])


def _component(group: Group) -> list[str]:
    value = group.per_parameter
    low, high = value_of(group.minimum), value_of(group.maximum)
    head = [group.name, str(group.tensors), f"{group.parameters:,}", _share(group.share)]
    numbers = [significant(number) for number in (value.mean_absolute, value.std, low, high)]
    return [*head, *numbers, f"{100 * value.sparsity:.2f} %", significant(group.norm)]


def _rows(health: Health) -> Section:
    header = ["checkpoint", "table", "rows", "all zeros", "repeated", "no gradient seen"]
    header += ["smallest norm", "median norm", "largest norm", "in row"]
    names = dict.fromkeys(table.name for c in health.checkpoints for table in c.tables)
    rows = [
        [c.label, *_table_row(table)]
        for name in names
        for c in health.checkpoints
        for table in c.tables
        if table.name == name
    ]
    blocks: list[Block] = [Table(header, rows, frozenset(range(2, 10)))] if rows else []
    if any(table.component == "puzzle table" and table.zero_rows > 1 for c in health.checkpoints for table in c.tables):
        blocks.append(Chart("rows-never-trained", untrained_bars(health)))
    note = "Norms are of rows that are not zero. A puzzle's row starts as zeros; other tables start drawn."
    return Section("How the tables' rows are used", [*blocks, Text(note, quiet=True)] if rows else [])


def _table_row(table: TableUse) -> list[str]:
    unseen = "–" if table.without_gradient is None else f"{table.without_gradient:,}"
    zero = f"{table.zero_rows:,} ({share(table.zero_rows, table.rows)})" if table.zero_rows else "0"
    norms = [significant(norm) for norm in (table.smallest_norm, table.median_norm, table.largest_norm)]
    return [table.name, f"{table.rows:,}", zero, f"{table.duplicate_rows:,}", unseen, *norms, str(table.largest_row)]


def _course(course: Course, number: int) -> Section:
    title = f"Change from {course.labels[0]} to {course.labels[-1]}"
    changes = [_change(change) for change in course.changes if change.group == EVERYTHING and change.number != "zeros"]
    changes += [_change(change) for change in course.changes if change.group == PARAMETERS and change.number in _MOVING]
    drifts = [
        [d.component, *(_part(value) for value in d.relative[1:]), *map(_part, d.step_relative[-1:])]
        for d in course.drifts
    ]
    blocks: list[Block] = [
        Table(_CHANGES, changes, frozenset(range(2, 6))),
        Text("Distance from the first checkpoint, in parts of its norm there, by component:"),
        *([Chart(f"drift-{number}", drift_lines(course))] if len(course.labels) > 2 else []),
        Table(["component", *course.labels[1:], "last interval"], drifts, frozenset(range(1, len(course.labels) + 1))),
    ]
    return Section(title, blocks)


def _component_changes(course: Course) -> Section:
    wholes = (EVERYTHING, PARAMETERS, BUFFERS)
    shown = [c for c in course.changes if c.group not in wholes and c.number in _MOVING and c.weighting != "tensor"]
    table = Table(_CHANGES, [_change(change) for change in shown], frozenset(range(2, 6)))
    return Section(f"Change from {course.labels[0]} to {course.labels[-1]}, by component", [table], folded=True)


def _change(change: Change) -> list[str]:
    weighting = {"tensor": " by tensor", "parameter": " by value"}.get(change.weighting, "")
    values = [significant(change.first, 6), significant(change.last, 6), f"{change.absolute:+.4g}"]
    return [change.group, _NUMBERS[change.number] + weighting, *values, _percent(change.percent)]


def _tensors(health: Health, checkpoint: CheckpointHealth) -> Section:
    moved = {d.name: d for course in health.courses if course.training == checkpoint.training for d in course.tensors}
    header = ["tensor", "shape", "type", "mean", "mean |w|", "std", "minimum", "maximum", "zeros", "norm"]
    rows = []
    for tensor in checkpoint.tensors[:_SHOWN]:
        numbers = [tensor.mean, tensor.mean_absolute, tensor.std, tensor.minimum, tensor.maximum]
        row = [tensor.name, " x ".join(map(str, tensor.shape)), tensor.dtype, *(significant(n) for n in numbers)]
        row += [f"{100 * tensor.sparsity:.2f} %", significant(tensor.norm)]
        drift = moved.get(tensor.name)
        rows.append([*row, _part(drift.relative if drift else None), significant(drift.cosine if drift else None, 3)])
    header += ["moved", "cosine to first"]
    if not moved:
        header, rows = header[:-2], [row[:-2] for row in rows]
    more = f"The first {_SHOWN} of {len(checkpoint.tensors)}. " if len(checkpoint.tensors) > _SHOWN else ""
    note = Text(
        f"{more}tensors.csv and tensors.parquet beside this page have every tensor of every checkpoint.", quiet=True
    )
    table = Table(header, rows, frozenset(range(3, len(header))))
    return Section(f"Every tensor, {checkpoint.label}", [table, note], folded=True)


def _wholes(health: Health) -> list[tuple[CheckpointHealth, Group]]:
    return [(checkpoint, checkpoint.groups[0]) for checkpoint in health.checkpoints]


def _extreme(extreme: Extreme | None) -> str:
    return "–" if extreme is None else f"{significant(extreme.value)} ({extreme.tensor})"


def _share(part: float) -> str:
    """`87.80 %`."""
    return f"{100 * part:.2f} %"


def _percent(value: float | None) -> str:
    """With its sign, two decimals, or one digit where these would be zeros."""
    if value is None:
        return "–"
    return f"{value:+.2f} %" if value == 0.0 or abs(value) >= 0.005 else f"{value:+.0e} %"


def _part(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.3g} %"
