"""Sections as one HTML file that needs nothing else: no network, no font, plotly.js and its own script inside it.

Everything that comes from data is escaped. A content security policy forbids the page to load anything.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

from plotly.offline import get_plotlyjs

from analysis.script import SCRIPT
from analysis.section import Block, Cell, Chart, Code, Drawing, Link, Notes, Section, Table, Text, text_of
from analysis.stylesheet import STYLE

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"
CONFIG = {
    "responsive": True,
    "displaylogo": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}
LONG = 44
"""Letters of a cell from which on it may be broken into lines."""
HEADLINE = 120
"""Letters of a lead up to which it is set as a headline."""
CONTENTS_FROM = 6
"""Sections from which on a page lists them."""


@dataclass(frozen=True, slots=True)
class _Page:
    """What a link needs to know."""

    root: str
    trials: frozenset[str]


def render_document(
    title: str,
    sections: Sequence[Section],
    *,
    lead: str = "",
    root: str = ".",
    arms: Mapping[str, str] | None = None,
) -> str:
    """The whole page. `root` leads from the page to the folder that links are relative to.

    `arms`, by name their colours, get a bar after the first section to hide them by, where there are two or more.
    """
    page = _Page(root, frozenset(section.trial for section in sections if section.trial))
    parts = [_section(section, page, number) for number, section in enumerate(sections)]
    parts.insert(1, _contents(sections) + _arms_bar(arms or {}, with_trials=bool(page.trials)))
    charts = any(isinstance(block, Chart) for section in sections for block in section.blocks)
    plotly = f"<script>{get_plotlyjs()}</script>\n" if charts else ""
    head = f"<header><h1>{escape(title)}</h1>{_lead(lead)}</header>\n"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n{plotly}"
        f"</head>\n<body>\n<main>\n{head}{''.join(parts)}</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _lead(text: str) -> str:
    if not text:
        return ""
    kind = "lead long" if len(text) > HEADLINE else "lead"
    return f'<p class="{kind}">{escape(" ".join(text.split()))}</p>'


def _section(section: Section, page: _Page, number: int) -> str:
    name = f' id="{escape(_anchor(section.trial))}" class="trial"' if section.trial else f' id="part-{number}"'
    content = "".join(_block(block, page) for block in section.blocks)
    title = escape(section.title)
    if section.folded:
        heading = title if section.trial else f"<h{section.level}>{title}</h{section.level}>"
        return f"<details{name}><summary>{heading}</summary>\n{content}</details>\n"
    heading = f"<h{section.level}>{title}</h{section.level}>\n" if title else ""
    return f"<section{name}>{heading}{content}</section>\n"


def _block(block: Block, page: _Page) -> str:
    match block:
        case Text(text, quiet):
            kind = ' class="quiet"' if quiet else ""
            return f"<p{kind}>{escape(text)}</p>\n" if text else ""
        case Notes(lines):
            items = "".join(f"<li>{escape(line)}</li>" for line in lines)
            return f'<ul class="quiet">{items}</ul>\n' if items else ""
        case Code(text):
            return f"<pre><code>{escape(text)}</code></pre>\n"
        case Table():
            return _table(block, page)
        case Chart():
            return _chart(block)
        case Drawing(html, _):
            return f"{html}\n"


def _chart(chart: Chart) -> str:
    div: str = chart.figure.to_html(full_html=False, include_plotlyjs=False, config=CONFIG, div_id=chart.name)
    return f'<div class="figure">{div}</div>\n'


def _table(table: Table, page: _Page) -> str:
    """A table in a box of its own that scrolls sideways; without a header where that says nothing."""
    head = "".join(f"<th{_kind(table, i, text)}>{escape(text)}</th>" for i, text in enumerate(table.header))
    rows = []
    for number, row in enumerate(table.rows):
        cells = "".join(f"<td{_kind(table, i, cell)}>{_cell(cell, page)}</td>" for i, cell in enumerate(row))
        leader = ' class="leader"' if number == table.leader else ""
        arm = f' data-arm="{escape(table.arms[number])}"' if table.arms else ""
        rows.append(f"<tr{leader}{arm}>{cells}</tr>")
    named = any(table.header)
    body = (f"<thead><tr>{head}</tr></thead>" if named else "") + f"<tbody>{''.join(rows)}</tbody>"
    kind = "grid" if named else "facts"
    return f'<div class="scroll" tabindex="0"><table class="{kind}">{body}</table></div>\n'


def _kind(table: Table, column: int, cell: Cell) -> str:
    if column in table.numeric:
        return ' class="number"'
    return ' class="long"' if len(text_of(cell)) > LONG else ""


def _cell(cell: Cell, page: _Page) -> str:
    address = _address(cell, page) if isinstance(cell, Link) else ""
    text = escape(text_of(cell))
    return f'<a href="{escape(address)}">{text}</a>' if address else text


def _address(link: Link, page: _Page) -> str:
    """Empty where nobody could follow it: a trial without an entry here, a place that no browser opens."""
    if link.trial:
        return f"#{quote(_anchor(link.trial), safe='')}" if link.trial in page.trials else ""
    if "://" in link.href:
        return link.href if link.href.startswith(("http://", "https://")) else ""
    return quote(posixpath.join(page.root, link.href)) if link.href else ""


def _anchor(trial: str) -> str:
    return f"trial-{trial}"


def _contents(sections: Sequence[Section]) -> str:
    """Folded, and none for a short page."""
    entries = [
        f'<li{" class=part" if section.level == 2 else ""}><a href="#part-{number}">{escape(section.title)}</a></li>'
        for number, section in enumerate(sections)
        if section.title and not section.trial and number
    ]
    if len(entries) < CONTENTS_FROM:
        return ""
    return f'<details class="contents"><summary>Contents</summary><ul>{"".join(entries)}</ul></details>\n'


def _arms_bar(arms: Mapping[str, str], with_trials: bool) -> str:
    if len(arms) < 2:
        return ""
    boxes = "".join(
        f'<label><input type="checkbox" checked value="{escape(arm)}"><i style="background:{escape(colour)}"></i>'
        f"{escape(arm)}</label>"
        for arm, colour in arms.items()
    )
    hint = '<p class="quiet">A click on a point leads to its trial.</p>' if with_trials else ""
    return f'<div class="arms" role="group" aria-label="Arms that are shown">{boxes}{hint}</div>\n'
