"""What a sweep was run on, and how to run it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis.section import Block, Code, Link, Section, Table
from analysis.sweep import Sweep
from analysis.tables import value_in_words

if TYPE_CHECKING:
    from analysis.report import Report


def sections(report: Report, sweep: Sweep) -> list[Section]:
    """Of the whole sweep."""
    again: list[Block] = [Code(report.reproduce["command"]), _environment(report), *_mlflow(sweep)]
    return [
        Section("Data", [_datasets(report)], level=2),
        Section("Where it ran, and how to run it again", again, level=2),
    ]


def _mlflow(sweep: Sweep) -> list[Block]:
    """Where its runs are, and the views that were prepared there."""
    runs = sweep.mlflow()
    if runs is None:
        return []
    links = [Link("the sweep's run", href=runs.address(runs.parent))]
    links += [Link(name, href=runs.view_address(view)) for view, name in runs.views.items()]
    return [Table(["in MLflow"], [[link] for link in links])]


def _datasets(report: Report) -> Table:
    """Rows per split, fingerprint and recipe, by task."""
    rows = []
    for task, data in report.datasets.items():
        sizes = ", ".join(f"{split} {value_in_words(n)}" for split, n in data.get("rows", {}).items())
        fingerprint, recipe = data.get("fingerprint"), data.get("recipe")
        if isinstance(recipe, dict):
            recipe = {name: value for name, value in recipe.items() if name != "fingerprint"}
        rows.append([task, sizes, value_in_words(fingerprint), value_in_words(recipe)])
    return Table(["task", "rows", "fingerprint", "recipe"], rows)


def _environment(report: Report) -> Table:
    """The machine, the versions and the code."""
    code = report.reproduce["code"]
    commit = f"{code['commit']}{' with uncommitted changes' if code.get('dirty') else ''}" if code else "not from git"
    rows = [[name, value_in_words(value)] for name, value in report.reproduce["environment"].items()]
    return Table(["", ""], [["code", commit], *rows])
