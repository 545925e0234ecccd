"""A trial's `records.jsonl` as columns of numbers: what curves are drawn from, however long the trial was.

The lines are cut before they are parsed: the steps, which are nearly all of a file, only where they are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hrm.records import Report

Array = npt.NDArray[np.float64]

PROGRESS = {"steps": "step", "examples": "examples", "tokens": "tokens", "flops": "flops", "seconds": "seconds"}
"""The axes that a budget can be counted in, and their names in `hrm.records.Progress`."""
_NO_STEPS = b'{"steps":[]}\n'


@dataclass(frozen=True, slots=True)
class ReportColumns:
    """The reports of a trial in the order of their index, a value each. What a report lacks is NaN."""

    index: npt.NDArray[np.int64]
    axes: dict[str, Array]
    """By the names of PROGRESS."""
    time: Array
    validation: dict[str, Array]
    system: dict[str, Array]

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True, slots=True)
class StepColumns:
    """The optimizer steps of a trial in order, a value each. What a step lacks is NaN."""

    axes: dict[str, Array]
    metrics: dict[str, Array]

    def __len__(self) -> int:
        return len(self.axes["steps"])


def read_report_columns(path: Path) -> ReportColumns:
    """The reports without their steps. Where a restart wrote one again, the later one is kept."""
    lines = _lines(path, _without_steps)
    if not lines:
        return ReportColumns(np.empty(0, np.int64), {axis: np.empty(0) for axis in PROGRESS}, np.empty(0), {}, {})
    rows = _Rows(lines)
    index = rows.column("index")
    order = _last_of_each(index)
    return ReportColumns(
        index=index[order].astype(np.int64),
        axes={axis: rows.column("progress", name)[order] for axis, name in PROGRESS.items()},
        time=rows.column("time")[order],
        validation={name: rows.column("validation", name)[order] for name in rows.names("validation")},
        system={name: rows.column("system", name)[order] for name in rows.names("system")},
    )


def read_step_columns(path: Path) -> StepColumns:
    """The steps of all reports. Where a restart took one again, the later one is kept."""
    lines = _lines(path, _steps_alone)
    if not any(len(line) > len(_NO_STEPS) for line in lines):
        return StepColumns({axis: np.empty(0) for axis in PROGRESS}, {})
    rows = _Rows(lines, "steps")
    steps = rows.column("progress", "step")
    order = _last_of_each(steps)
    return StepColumns(
        axes={axis: rows.column("progress", name)[order] for axis, name in PROGRESS.items()},
        metrics={name: rows.column("metrics", name)[order] for name in rows.names("metrics")},
    )


class _Rows:
    """Objects of one shape, read from JSON, as columns of float64."""

    def __init__(self, lines: list[bytes], inner: str = "") -> None:
        """`inner`: the rows are in a list of that name in each line."""
        import pyarrow as pa  # here: `status` does without
        from pyarrow import json as arrow_json

        data = b"".join(lines) or b"{}"
        # One block, since no line may be longer than one.
        options = arrow_json.ReadOptions(use_threads=False, block_size=len(data) + 1)
        table = arrow_json.read_json(pa.BufferReader(data), read_options=options).combine_chunks()
        whole = table.to_struct_array().combine_chunks()
        self._rows = whole.field(inner).flatten() if inner else whole

    def names(self, group: str) -> list[str]:
        """The fields of a group of numbers."""
        return [each.name for each in self._rows.type.field(group).type]

    def column(self, *path: str) -> Array:
        """One field."""
        values = self._rows
        for name in path:
            values = values.field(name)
        return np.asarray(values.cast("float64").to_numpy(zero_copy_only=False), dtype=np.float64)


def _lines(path: Path, cut: Callable[[bytes], bytes]) -> list[bytes]:
    """The whole lines of a file, each cut as it is read; a last one torn by a kill is left out."""
    try:
        with path.open("rb") as file:
            return [cut(line) for line in file if line.endswith(b"\n")]
    except FileNotFoundError:
        return []


# Fields stand in the order of `hrm.records.Report`, and no text in JSON holds a bare quotation mark.


def _without_steps(line: bytes) -> bytes:
    start = line.find(b',"steps":[')
    end = line.find(b'],"system":', start)
    rest = line.find(b',"checkpoint":', end)
    if start < 0 or end < 0 or rest < 0:
        return _without_steps(_in_order(line))
    return line[:start] + b"," + line[end + 2 : rest] + b"}\n"


def _steps_alone(line: bytes) -> bytes:
    start = line.find(b',"steps":[')
    end = line.find(b'],"system":', start)
    if start < 0 or end < 0:
        return _steps_alone(_in_order(line))
    return b"{" + line[start + 1 : end + 1] + b"}\n"


def _in_order(line: bytes) -> bytes:
    """A line that another version or program wrote, as this one would."""
    return Report.from_dict(json.loads(line)).to_json().encode() + b"\n"


def _last_of_each(numbers: Array) -> npt.NDArray[np.intp]:
    """The places of the last of each number, by number."""
    _, first = np.unique(numbers[::-1], return_index=True)
    return np.asarray(len(numbers) - 1 - first, dtype=np.intp)
