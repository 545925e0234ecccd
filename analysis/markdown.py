"""Sections as Markdown: the same sentences and tables as the page, readable in a terminal and in a repository."""

from __future__ import annotations

import re
from collections.abc import Sequence

from analysis.section import Block, Cell, Chart, Code, Drawing, Link, Notes, Section, Table, Text, text_of


def document_text(title: str, sections: Sequence[Section], lead: str = "") -> str:
    """The whole document, without figures and the entries of trials."""
    blocks = [f"# {_text(title)}", _text(lead)]
    for section in sections:
        if not section.trial:
            blocks.append(f"{'#' * section.level} {_text(section.title)}" if section.title else "")
            blocks += [_block(block) for block in section.blocks]
    return "\n\n".join(block for block in blocks if block) + "\n"


def table_text(table: Table) -> str:
    """A table in pipes."""
    rule = ["---:" if column in table.numeric else "---" for column in range(len(table.header))]
    rows = [[_cell(text) for text in table.header], rule, *([_cell(cell) for cell in row] for row in table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _block(block: Block) -> str:
    match block:
        case Text(text, _):
            return _text(text)
        case Notes(lines):
            return "\n".join(f"- {_text(line)}" for line in lines)
        case Code(text):
            return "\n".join(f"    {line}" for line in text.splitlines())
        case Table():
            return table_text(block)
        case Chart():
            return ""
        case Drawing(_, text):
            return "\n\n".join(_text(paragraph) for paragraph in text.split("\n\n"))


def _text(text: str) -> str:
    """With what Markdown would take for its own escaped; `< 0.05` opens no tag and stays readable in a terminal."""
    text = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)
    for sign, safe in (("\\", "\\\\"), ("*", "\\*"), ("`", "\\`"), ("[", "\\[")):
        text = text.replace(sign, safe)
    return " ".join(text.split())


def _cell(cell: Cell) -> str:
    text = _text(text_of(cell)).replace("|", "\\|")
    web = isinstance(cell, Link) and cell.href.startswith(("http://", "https://"))
    return f"[{text}](<{cell.href.replace('>', '%3E')}>)" if isinstance(cell, Link) and web else text
