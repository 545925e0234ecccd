"""What the numbers of checkpoints mean, in sentences, each with its evidence; never a verdict on quality."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from analysis.checkpoints.change import Course
from analysis.checkpoints.course_findings import of_course
from analysis.checkpoints.rows import TableUse
from analysis.checkpoints.tensors import EVERYTHING, Extreme
from analysis.checkpoints.wording import LEVELS, Finding, count_of, few, megabytes, share
from analysis.numbers import listing, significant

if TYPE_CHECKING:
    from analysis.checkpoints.health import CheckpointHealth

_WIDE = ("float32", "float64")
_PUZZLES = "puzzle table"


def findings(checkpoints: Sequence[CheckpointHealth], courses: Sequence[Course]) -> list[Finding]:
    """All that there is to say, what is broken first.

    Of each training its last checkpoint is told, and what came about over its steps.
    """
    found = [*_finite(checkpoints), *_types(checkpoints)]
    for last in {checkpoint.training: checkpoint for checkpoint in checkpoints}.values():
        for tell in (_tables, _dead_rows, _q_head, _extremes, _weighting, _average):
            found += tell(last)
    for course in courses:
        found += of_course(course, [checkpoint for checkpoint in checkpoints if checkpoint.training == course.training])
    return sorted(found, key=lambda finding: LEVELS.index(finding.level))


def _finite(checkpoints: Sequence[CheckpointHealth]) -> Iterator[Finding]:
    broken = [(c.label, tensor) for c in checkpoints for tensor in c.tensors if tensor.nan or tensor.infinite]
    for label, tensor in broken:
        held = f"{tensor.nan:,} NaN and {count_of(tensor.infinite, 'infinite value')}"
        text = f"{tensor.name} holds {held} among its {tensor.parameters:,}: nothing that this model computes counts."
        yield Finding("problem", "finite", text, label)
    below = [checkpoint for checkpoint in checkpoints if checkpoint.raw_not_finite]
    for checkpoint in below:
        text = f"{checkpoint.raw_not_finite:,} of the weights as trained are not finite; their average is another set."
        yield Finding("problem", "finite", text, checkpoint.label)
    if not broken and not below:
        total = sum(checkpoint.parameters for checkpoint in checkpoints)
        of_all = f" of the {len(checkpoints)} checkpoints" if len(checkpoints) > 1 else ""
        yield Finding("fine", "finite", f"All {total:,} values{of_all} are finite: no NaN, no Inf.")


def _types(checkpoints: Sequence[CheckpointHealth]) -> Iterator[Finding]:
    """Once for all that are alike."""
    texts = [_type(checkpoint) for checkpoint in checkpoints]
    for number, checkpoint in enumerate(checkpoints):
        if texts[number] in texts[:number]:
            continue
        narrow = any(name not in _WIDE for name in (checkpoint.imported_dtypes or checkpoint.dtypes))
        label = "" if len(set(texts)) == 1 else checkpoint.label
        yield Finding("notice" if narrow else "fine", "float type", texts[number], label)


def _type(checkpoint: CheckpointHealth) -> str:
    in_float32 = 4 * checkpoint.parameters
    size = (
        f"the file takes {checkpoint.bytes / checkpoint.parameters:.2f} bytes for each of {checkpoint.parameters:,} "
        f"values, {megabytes(checkpoint.bytes)}; in float32 they are {megabytes(in_float32)} "
        f"({in_float32 / 2**20:.2f} MiB)."
    )
    if checkpoint.imported_dtypes:
        return f"Imported from a file of {_listed(checkpoint.imported_dtypes)}, held here in float32: {size}"
    narrow = [name for name in checkpoint.dtypes if name not in _WIDE]
    kind = "half precision" if set(narrow) <= {"float16", "bfloat16"} else "less than half precision"
    lost = f" It was saved in {kind}: digits below that are gone." if narrow else ""
    return f"{_listed(checkpoint.dtypes)}: {size}{lost}"


def _listed(dtypes: dict[str, int]) -> str:
    return listing([f"{count_of(number, 'tensor')} of {name}" for name, number in dtypes.items()])


def _tables(checkpoint: CheckpointHealth) -> Iterator[Finding]:
    for table in checkpoint.tables:
        if table.component == _PUZZLES:
            yield _puzzles(checkpoint, table)
        elif table.without_gradient is not None:
            yield _use(checkpoint, table)


def _puzzles(checkpoint: CheckpointHealth, table: TableUse) -> Finding:
    if table.zero_rows <= 1:
        some = "None" if not table.zero_rows else f"Only 1 of {table.rows:,}"
        return Finding(
            "fine", "rows never trained", f"{some} of the puzzle table's rows is all zeros.", checkpoint.label
        )
    whole = checkpoint.group(EVERYTHING)
    assert whole is not None
    points = 100 * table.zero_rows / table.rows / whole.tensors
    text = (
        f"Rows never trained: {table.zero_rows:,} of {table.rows:,} ({share(table.zero_rows, table.rows)}) of the "
        f"puzzle table are all zeros, as they start. They alone make {points:.2f} of the "
        f"{100 * whole.per_tensor.sparsity:.2f} % of zeros that the {whole.tensors} tensors have on average."
    )
    return Finding("notice", "rows never trained", text, checkpoint.label)


def _use(checkpoint: CheckpointHealth, table: TableUse) -> Finding:
    if not table.without_gradient:
        text = f"Each of the {table.rows:,} rows of {table.name} has had gradients."
        return Finding("fine", "embedding use", text, checkpoint.label)
    listed = ", ".join(map(str, table.first_without))
    more = "" if table.without_gradient == len(table.first_without) else ", ..."
    text = (
        f"{table.without_gradient:,} of {table.rows:,} rows of {table.name} "
        f"({share(table.without_gradient, table.rows)}) have left no trace in the optimizer's mean of squared "
        f"gradients: never met in training, or not for very long. Rows, counted from 0: {listed}{more}."
    )
    return Finding("notice", "embedding use", text, checkpoint.label)


def _dead_rows(checkpoint: CheckpointHealth) -> Iterator[Finding]:
    matrices = [t for t in checkpoint.tensors if t.rows is not None and t.component not in (_PUZZLES, "Q head")]
    for tensor in matrices:
        if tensor.zero_rows:
            text = f"Dead rows: {tensor.zero_rows:,} of {tensor.rows:,} of {tensor.name} are all zeros."
            yield Finding("notice", "dead rows", text, checkpoint.label)
    repeated = [tensor for tensor in checkpoint.tensors if tensor.duplicate_rows and tensor.component != "Q head"]
    for tensor in repeated:
        text = f"{tensor.duplicate_rows:,} of {tensor.rows:,} rows of {tensor.name} repeat an earlier one bit by bit."
        yield Finding("notice", "repeated rows", text, checkpoint.label)
    if matrices and not repeated and not any(tensor.zero_rows for tensor in matrices):
        text = f"No dead and no repeated row in {count_of(len(matrices), 'matrix', 'matrices')}."
        yield Finding("fine", "dead rows", text, checkpoint.label)


def _q_head(checkpoint: CheckpointHealth) -> Iterator[Finding]:
    head = {tensor.name: tensor for tensor in checkpoint.tensors if tensor.component == "Q head"}
    weight, bias = head.get("q_head.weight"), head.get("q_head.bias")
    if weight is None or bias is None or checkpoint.halting == "none":
        return
    if weight.zeros == weight.parameters and bias.minimum == bias.maximum == -5.0:
        text = "The Q head is as it starts (weights 0, bias -5): when to halt has not been learnt."
        yield Finding("notice", "Q head", text, checkpoint.label)


def _extremes(checkpoint: CheckpointHealth) -> Iterator[Finding]:
    whole = checkpoint.group(EVERYTHING)
    if whole is not None and whole.minimum is not None and whole.maximum is not None:
        low, high = _place(checkpoint, whole.minimum), _place(checkpoint, whole.maximum)
        yield Finding("fine", "range", f"The smallest value is {low}; the largest {high}.", checkpoint.label)


def _place(checkpoint: CheckpointHealth, extreme: Extreme) -> str:
    tensor = next(tensor for tensor in checkpoint.tensors if tensor.name == extreme.tensor)
    what = "a buffer of " if tensor.buffer else ""
    return f"{significant(extreme.value)} in {tensor.name} ({what}{count_of(tensor.parameters, 'value')})"


def _weighting(checkpoint: CheckpointHealth) -> Iterator[Finding]:
    """Where the mean over tensors and the mean over values tell two stories."""
    whole = checkpoint.group(EVERYTHING)
    if whole is None:
        return
    by_tensor, by_value = whole.per_tensor.mean_absolute, whole.per_parameter.mean_absolute
    if by_tensor is None or not by_value or 0.5 < by_tensor / by_value < 2.0:
        return
    largest = sorted(checkpoint.tensors, key=lambda tensor: -(tensor.mean_absolute or 0.0))[:3]
    part = sum(tensor.mean_absolute or 0.0 for tensor in largest) / (by_tensor * whole.tensors)
    text = (
        f"The mean absolute weight is {significant(by_tensor)} where each tensor counts alike, {significant(by_value)} "
        f"where each value does: {few([tensor.name for tensor in largest])}, together "
        f"{sum(tensor.parameters for tensor in largest):,} of {whole.parameters:,} values, make "
        f"{100 * part:.0f} % of the former."
    )
    yield Finding("notice", "weighting", text, checkpoint.label)


def _average(checkpoint: CheckpointHealth) -> Iterator[Finding]:
    if checkpoint.distance_to_raw is not None:
        text = (
            "These are averaged weights, which evaluations use; from those as trained they are "
            f"{100 * checkpoint.distance_to_raw:.2g} % of their norm away."
        )
        yield Finding("fine", "average", text, checkpoint.label)
