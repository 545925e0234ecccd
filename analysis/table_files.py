"""Everything that a report knows as Parquet files, for notebooks: trials, curves, and each list of a report's values.

A table of a report is named by its field in report.json. Columns of a part have its name before a point
(`metric.mean`, `parameters.optimizer.learning_rate`); what has no fixed shape is JSON text.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.records import TrialRecord
from analysis.sweep import Sweep, seed_of

if TYPE_CHECKING:
    import pyarrow as pa

    from analysis.report import Report

FOLDER = "tables"
Row = dict[str, Any]


def write_tables(report: Report, sweep: Sweep, directory: Path, *, steps: bool = False) -> None:
    """Write every table as `directory/NAME.parquet`, each whole or not at all; remove those that have become empty.

    `steps`: also each optimizer step of every trial, which are most of what there is and take longest to read.
    """
    directory.mkdir(parents=True, exist_ok=True)
    for name, table in tables_of(report, sweep).items():
        _write(directory / f"{name}.parquet", partial(list, [table]))
    _write(directory / "curves.parquet", lambda: (_curves(sweep, trial) for trial in sweep.trials))
    stepping = sweep.trials if steps else []
    _write(directory / "steps.parquet", lambda: (_steps(sweep, trial) for trial in stepping))


def _write(path: Path, parts: Callable[[], Iterable[pa.Table]]) -> None:
    """Write the parts below each other, one after the other in memory; no file where they have no row.

    They are gone through twice, first for the columns that there are.
    """
    import pyarrow as pa
    from pyarrow import parquet

    schemas = [part.schema for part in parts() if part.num_rows]
    if not schemas:
        path.unlink(missing_ok=True)
        return
    schema, temporary = pa.unify_schemas(schemas), path.with_name(path.name + ".tmp")
    with parquet.ParquetWriter(temporary, schema) as writer:
        for part in parts():
            if part.num_rows:
                writer.write_table(_filled(part, schema))
    temporary.replace(path)


def _filled(part: pa.Table, schema: pa.Schema) -> pa.Table:
    """The part with all columns of the schema; what it lacks is null."""
    import pyarrow as pa

    known = set(part.column_names)
    columns = [part.column(f.name) if f.name in known else pa.nulls(part.num_rows, f.type) for f in schema]
    return pa.table(columns, schema=schema)


def tables_of(report: Report, sweep: Sweep) -> dict[str, pa.Table]:
    """All tables but the curves and the steps, by name."""
    tables = {name: table_of(rows) for name, rows in _lists(report)}
    return {**tables, "trials": table_of([_trial(sweep, trial) for trial in sweep.trials])}


def table_of(rows: Sequence[Row]) -> pa.Table:
    """Rows as a table; a row may lack columns that another has."""
    import pyarrow as pa

    names = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: _column([row.get(name) for row in rows]) for name in names})


def columns_and_data(table: pa.Table) -> dict[str, Any]:
    """A table as MLflow keeps tables: `{columns, data}`; what is not finite becomes null.

    Names have a slash for the point, since MLflow's pages look for what is after a point inside of a value.
    """
    columns = [[_finite(value) for value in column.to_pylist()] for column in table.columns]
    return {
        "columns": [name.replace(".", "/") for name in table.column_names],
        "data": [list(row) for row in zip(*columns, strict=True)],
    }


def _trial(sweep: Sweep, trial: TrialRecord) -> Row:
    result = trial.result or {}
    row: Row = {name: getattr(trial, name) for name in ("key", "task", "arm", "phase", "number", "trial_id", "state")}
    row |= {"seed": trial.spec.get("seed"), "objective": trial.objective}
    row |= _under("parameters", trial.parameters)
    row |= _under("validation", result.get("best_validation") or {}) | _under("test", result.get("test") or {})
    row |= {"num_parameters": trial.num_parameters, **_under("progress", asdict(sweep.progress(trial)))}
    row |= _under("spent", trial.spent)
    for name in ("attempts", "started", "ended", "reason", "source"):
        row[name] = getattr(trial, name)
    return row | {
        "checkpoint": sweep.checkpoint_of(trial),
        "log": sweep.log_of(trial),
        "mlflow": sweep.run_address(trial),
        "command": sweep.command_of(trial),
    }


def _curves(sweep: Sweep, trial: TrialRecord) -> pa.Table:
    """A row for each report: where on every axis, and what was measured."""
    reports = sweep.reports(trial)
    columns = {"report": reports.index, "time": reports.time, **reports.axes}
    columns |= _under("validation", reports.validation) | _under("system", reports.system)
    return _of_trial(trial, columns, len(reports))


def _steps(sweep: Sweep, trial: TrialRecord) -> pa.Table:
    steps = sweep.steps(trial)
    return _of_trial(trial, {**steps.axes, **_under("train", steps.metrics)}, len(steps))


def _of_trial(trial: TrialRecord, columns: Mapping[str, Any], length: int) -> pa.Table:
    """Columns of one trial, with what tells it from others."""
    import pyarrow as pa

    names: Row = {name: getattr(trial, name) for name in ("key", "task", "arm", "phase")} | {"seed": seed_of(trial)}
    repeated = {name: pa.array([value]).take(pa.array([0] * length, pa.int64())) for name, value in names.items()}
    return pa.table({**repeated, **columns})


def _lists(value: Any, prefix: str = "") -> Iterator[tuple[str, list[Row]]]:
    """Every list of values of one shape in a report, by its field's name."""
    for each in fields(value):
        inside, name = getattr(value, each.name), f"{prefix}{each.name}"
        if is_dataclass(inside):
            yield from _lists(inside, f"{name}_")
        elif isinstance(inside, (list, tuple)) and all(is_dataclass(item) or isinstance(item, dict) for item in inside):
            yield name, [_row(item) for item in inside]


def _row(item: Any) -> Row:
    """The fields of a value; those of a value in it with its name before a point."""
    if isinstance(item, dict):
        return dict(item)
    row: Row = {}
    for each in fields(item):
        inside = getattr(item, each.name)
        row |= _under(each.name, _row(inside)) if is_dataclass(inside) else {each.name: inside}
    return row


def _under(prefix: str, values: Mapping[str, Any]) -> Row:
    return {f"{prefix}.{name}": value for name, value in values.items()}


def _column(values: Sequence[Any]) -> pa.Array:
    """Numbers as numbers, text as text, and as JSON what is neither or of several kinds."""
    import pyarrow as pa

    known = [value for value in values if value is not None]
    kinds = {type(value) for value in known}
    if kinds == {int, float}:
        return pa.array([value if value is None else float(value) for value in values])
    if len(kinds) > 1 or kinds - {int, float, str, bool}:
        return pa.array([None if value is None else _json(value) for value in values])
    return pa.array(values)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _json(value: Any) -> str:
    def plain(item: Any) -> Any:
        return asdict(item) if is_dataclass(item) and not isinstance(item, type) else str(item)

    return json.dumps(value, default=plain)
