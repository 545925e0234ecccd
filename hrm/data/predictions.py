"""Predictions of a model on a split, as a file: what was said, apart from what it is worth (`TaskSpec.judge`).

The file is Arrow and holds the recipe, so that it can be judged again, alone or together with others, without a model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from hrm.errors import Problem, SpecError

if TYPE_CHECKING:
    from hrm.tasks import TaskSpec

_RECIPE = b"recipe"


def write_predictions(predictions: pa.Table, task: TaskSpec, path: Path) -> None:
    """Write a table, and what it is about: the recipe as its hash covers it."""
    recipe = json.dumps(task.canonical(), sort_keys=True)
    table = predictions.replace_schema_metadata({_RECIPE: recipe.encode()})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as sink:
        sink.write_table(table)


def read_predictions(paths: Sequence[Path]) -> tuple[pa.Table, str]:
    """The rows of all files, one after the other, and their recipe (JSON).

    Raises SpecError for a file that holds no predictions, and for predictions about different tasks.
    """
    tables = [_read(path) for path in paths]
    recipe = tables[0].schema.metadata[_RECIPE]
    problems = [
        Problem(str(path), f"is about another task than {paths[0]}", "Judge it alone")
        for path, table in zip(paths, tables, strict=True)
        if table.schema.metadata[_RECIPE] != recipe
    ]
    if problems:
        raise SpecError(*problems)
    return pa.concat_tables(tables), recipe.decode()


def _read(path: Path) -> pa.Table:
    try:
        with pa.OSFile(str(path), "rb") as file:
            table = pa.ipc.open_file(file).read_all()
    except (OSError, pa.ArrowInvalid) as error:
        rule = f"cannot be read as predictions: {error}"
        raise SpecError(Problem(str(path), rule, "Give a file of `checkpoint evaluate --predictions`")) from error
    if _RECIPE not in (table.schema.metadata or {}):
        rule = "is an Arrow file and does not say which task it is about"
        raise SpecError(Problem(str(path), rule, "Give a file of `checkpoint evaluate --predictions`"))
    return table
