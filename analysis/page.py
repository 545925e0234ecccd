"""A report as one HTML file that needs nothing else: no network, no font, no script but the plotly.js inside it.

Everything that comes from data is escaped. A content security policy forbids the page to load anything.
"""

from __future__ import annotations

import posixpath
from html import escape
from typing import TYPE_CHECKING
from urllib.parse import quote

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from analysis import figures, search_figures, tables
from analysis.answer import Answer
from analysis.numbers import metric_unit
from analysis.stylesheet import STYLE
from analysis.sweep import Sweep
from analysis.tables import Table

if TYPE_CHECKING:
    from analysis.report import Report

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}
RESIZE = (
    "for (const event of ['beforeprint', 'afterprint']) addEventListener(event, () => "
    "document.querySelectorAll('.js-plotly-plot').forEach(plot => Plotly.Plots.resize(plot)))"
)


def render_page(report: Report, sweep: Sweep, root: str = ".") -> str:
    """The whole page. `root` leads from the page to the sweep's directory, for the links to logs."""
    body = [_head(report)]
    body += [_task(report, sweep, answer, number) for number, answer in enumerate(report.answers)]
    body += [_importance(report), _failures(report, root), _ended_early(report), _method(report), _reproduce(report)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(report.name)}</title>\n<style>{STYLE}</style>\n<script>{get_plotlyjs()}</script>\n"
        f"</head>\n<body>\n<main>\n{''.join(body)}</main>\n<script>{RESIZE}</script>\n</body>\n</html>\n"
    )


def table_html(table: Table, kind: str = "") -> str:
    """A table in a box of its own that scrolls sideways."""
    head = "".join(f"<th{_numeric(table, i)}>{escape(text)}</th>" for i, text in enumerate(table.header))
    rows = []
    for number, row in enumerate(table.rows):
        cells = "".join(f"<td{_numeric(table, i)}>{escape(text)}</td>" for i, text in enumerate(row))
        rows.append(f'<tr class="leader">{cells}</tr>' if number == table.leader else f"<tr>{cells}</tr>")
    body = f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<div class="scroll"><table class="{kind}">{body}</table></div>\n'


def _head(report: Report) -> str:
    status = tables.status_line(report)
    banner = f'<p class="banner" role="status">{escape(status)}</p>' if status else ""
    return (
        f'<header><p class="name">{escape(report.name)}</p><h1>{escape(" ".join(report.question.split()))}</h1>'
        f"</header>\n{banner}\n"
    )


def _task(report: Report, sweep: Sweep, answer: Answer, number: int) -> str:
    task, several = answer.task, len(report.answers) > 1
    arms = [arm for arm in report.arms if arm.task == task]
    names = sweep.record.arms
    dots = figures.replica_dots(arms, names, answer.reference)
    curves = figures.validation_curves(sweep, task)
    search = search_figures.search_plot(sweep, task)
    comparisons = table_html(tables.comparisons_table(report, answer)) if answer.comparisons else ""
    notes = "".join(f"<li>{escape(note)}</li>" for note in tables.notes(report, task))
    configurations = tables.configurations_table(report, task)
    sections = [
        f"<h2>Task {escape(task)}</h2>" if several else "",
        _answer(report, answer),
        _section(_comparison_title(report), table_html(tables.arms_table(report, task), "wide")),
        f'<ul class="notes">{notes}</ul>' if notes else "",
        _section("Each seed, the mean and its 95 % interval", _figure(dots, f"dots-{number}")) if dots.data else "",
        _section("The best arm minus each other, paired by seed", comparisons) if comparisons else "",
        _section("Validation while training", _figure(curves, f"curves-{number}")) if curves.data else "",
        _section("The search, by arm and state", _figure(search, f"search-{number}") + _search_note(sweep, task))
        if search.data
        else "",
        _section("Best configurations", table_html(configurations)) if configurations.rows else "",
        _fronts(report, sweep, task, number),
    ]
    return "".join(sections)


def _fronts(report: Report, sweep: Sweep, task: str, number: int) -> str:
    here = [front for front in report.fronts if front.task == task and front.points]
    if not here:
        return ""
    content = _figure(search_figures.front_plot(sweep, here), f"front-{number}")
    for front in here:
        content += f"<p>{escape(tables.front_note(front))}</p>\n{table_html(tables.front_table(front))}"
    return _section("Pareto front", content)


def _search_note(sweep: Sweep, task: str) -> str:
    trials = len(sweep.select(task=task, phase="search"))
    thinned = trials > search_figures.MAX_DOTS
    drawn = f" Of {trials:,} trials the best and the worst of each stretch are drawn." if thinned else ""
    return f'<p class="note">Trials without a value, failed or waiting, stand at the upper edge.{drawn}</p>\n'


def _answer(report: Report, answer: Answer) -> str:
    certainty = tables.certainty_line(report, answer)
    verdict = "decided" if answer.decided else "open"
    label = "Decided" if answer.decided else "Not decided"
    return (
        f'<section class="answer {verdict}"><p class="verdict">{label}</p><p class="sentence">{escape(answer.sentence)}'
        f"</p>{f'<p>{escape(certainty)}</p>' if certainty else ''}</section>\n"
    )


def _comparison_title(report: Report) -> str:
    unit = metric_unit(report.metric)
    return f"Comparison, {report.metric} in {unit}" if unit else "Comparison"


def _importance(report: Report) -> str:
    if not report.importance:
        return ""
    bars = _figure(figures.importance_bars(report.importance), "importance")
    return _section("What mattered in the search", f"<p>{escape(tables.IMPORTANCE_NOTE)}</p>{bars}")


def _failures(report: Report, root: str) -> str:
    if not report.failures:
        return ""
    rows = "".join(
        f'<tr><td>{escape(failure.key)}</td><td class="reason">{escape(failure.reason)}</td>'
        f'<td><a href="{escape(quote(posixpath.join(root, failure.log)))}">{escape(failure.log)}</a></td></tr>'
        for failure in report.failures[: tables.FAILURES_SHOWN]
    )
    head = "<thead><tr><th>trial</th><th>reason</th><th>log</th></tr></thead>"
    note = f'<p class="note">{escape(tables.failures_note(report))}</p>\n' if tables.failures_note(report) else ""
    return _section("Failed trials", f'<div class="scroll"><table>{head}<tbody>{rows}</tbody></table></div>\n{note}')


def _ended_early(report: Report) -> str:
    table = tables.ended_early_table(report)
    return _section("Trials that a guard ended early", table_html(table)) if report.ended_early else ""


def _method(report: Report) -> str:
    paragraph = f"<p>{escape(tables.matching_paragraph(report))}</p>\n"
    if report.costs:
        notes = "".join(f"<li>{escape(note)}</li>" for note in tables.costs_notes(report.costs, report.compared_to))
        paragraph += table_html(tables.costs_table(report.costs, report.compared_to))
        paragraph += f'<ul class="notes">{notes}</ul>'
    cost = _section("What it cost", table_html(tables.cost_table(report), "facts"))
    data = _section("Data", table_html(tables.datasets_table(report)))
    return _section("How the arms were compared", paragraph) + cost + data


def _reproduce(report: Report) -> str:
    command = f"<pre><code>{escape(report.reproduce['command'])}</code></pre>\n"
    return _section("How to run it again", command + table_html(tables.environment_table(report), "facts"))


def _figure(figure: go.Figure, name: str) -> str:
    div: str = figure.to_html(full_html=False, include_plotlyjs=False, config=CONFIG, div_id=name)
    return f'<div class="figure">{div}</div>\n'


def _section(title: str, content: str) -> str:
    return f"<section><h3>{escape(title)}</h3>\n{content}</section>\n"


def _numeric(table: Table, column: int) -> str:
    return ' class="number"' if column in table.numeric else ""
