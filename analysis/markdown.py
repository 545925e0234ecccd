"""A report as Markdown: the same sentences and tables as the page, readable in a terminal and in a repository."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analysis import tables
from analysis.answer import Answer
from analysis.numbers import significant
from analysis.tables import Table

if TYPE_CHECKING:
    from analysis.report import Report


def render_markdown(report: Report) -> str:
    """The whole report."""
    blocks = [f"# {_text(report.name)}", _text(report.question)]
    status = tables.status_line(report)
    if status:
        blocks.append(f"**{_text(status)}**")
    for answer in report.answers:
        blocks += _task(report, answer)
    if report.importance:
        blocks += ["## What mattered in the search", tables.IMPORTANCE_NOTE, table_text(_importance(report))]
    if report.failures:
        blocks += ["## Failed trials", table_text(tables.failures_table(report)), tables.failures_note(report)]
    if report.ended_early:
        blocks += ["## Trials that a guard ended early", table_text(tables.ended_early_table(report))]
    blocks += ["## How the arms were compared", _text(tables.matching_paragraph(report))]
    if report.costs:
        blocks.append(table_text(tables.costs_table(report.costs, report.compared_to)))
        blocks.append("\n".join(f"- {_text(note)}" for note in tables.costs_notes(report.costs, report.compared_to)))
    blocks += ["## What it cost", table_text(tables.cost_table(report))]
    blocks += ["## Data", table_text(tables.datasets_table(report))]
    blocks += ["## Where it ran, and how to run it again", table_text(tables.environment_table(report))]
    blocks.append(_code(report.reproduce["command"]))
    return "\n\n".join(block for block in blocks if block) + "\n"


def table_text(table: Table) -> str:
    """A table in pipes."""
    rule = ["---:" if column in table.numeric else "---" for column in range(len(table.header))]
    rows = [[_cell(text) for text in table.header], rule, *([_cell(text) for text in row] for row in table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _task(report: Report, answer: Answer) -> list[str]:
    title = "## Answer" if len(report.answers) == 1 else f"## Answer for {_text(answer.task)}"
    blocks = [title, f"**{_text(answer.sentence)}**", _text(tables.certainty_line(report, answer))]
    blocks.append(table_text(tables.arms_table(report, answer.task)))
    blocks.append("\n".join(f"- {_text(note)}" for note in tables.notes(report, answer.task)))
    if answer.comparisons:
        blocks.append(table_text(tables.comparisons_table(report, answer)))
    configurations = tables.configurations_table(report, answer.task)
    if configurations.rows:
        blocks += ["### Best configurations", table_text(configurations)]
    for front in (front for front in report.fronts if front.task == answer.task and front.points):
        blocks += [f"### Pareto front of {_text(front.arm)}", _text(tables.front_note(front))]
        blocks.append(table_text(tables.front_table(front)))
    return blocks


def _importance(report: Report) -> Table:
    rows = [
        [study, name, significant(share, 2)]
        for study, shares in report.importance.items()
        for name, share in sorted(shares.items(), key=lambda item: -item[1])
    ]
    return Table(["study", "parameter", "importance"], rows, frozenset({2}))


def _text(text: str) -> str:
    for sign, safe in (("\\", "\\\\"), ("<", "&lt;"), ("*", "\\*"), ("`", "\\`"), ("[", "\\[")):
        text = text.replace(sign, safe)
    return " ".join(text.split())


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|")


def _code(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
