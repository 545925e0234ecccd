"""What every report is made of: sections of paragraphs, tables, figures and drawings, for a page and for Markdown.

Text is plain: whoever renders it (`page.py`, `markdown.py`) escapes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import plotly.graph_objects as go


@dataclass(frozen=True, slots=True)
class Link:
    """Text that leads somewhere: to a trial's entry on the same page, or to a file or an address."""

    text: str
    trial: str = ""
    """The key of a trial."""
    href: str = ""
    """A path relative to the sweep's directory, or a URL."""


Cell = str | Link


def text_of(cell: Cell) -> str:
    """What stands in a cell."""
    return cell.text if isinstance(cell, Link) else cell


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph; a quiet one is a remark."""

    text: str
    quiet: bool = False


@dataclass(frozen=True, slots=True)
class Notes:
    """Remarks, one line each."""

    lines: Sequence[str]


@dataclass(frozen=True, slots=True)
class Code:
    """A command, as it is typed."""

    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows below a header; `numeric` columns are set to the right."""

    header: list[str]
    rows: Sequence[Sequence[Cell]]
    numeric: frozenset[int] = frozenset()
    leader: int | None = None
    """The row of the best arm."""
    arms: Sequence[str] = ()
    """By row the arm that it is about, so that a reader can hide it; empty where rows are about other things."""


@dataclass(frozen=True, slots=True)
class Chart:
    """An interactive figure. Markdown has no figures: what it shows stands in a table or a sentence, too."""

    name: str
    """Unique on its page: letters, digits, hyphens."""
    figure: go.Figure
    """Traces of an arm have `legendgroup=ARM`, points of a trial `customdata=KEY`: the page hides and links by them."""


@dataclass(frozen=True, slots=True)
class Drawing:
    """HTML of our own making, every text from data in it escaped; `text` stands for it where there is no HTML."""

    html: str
    text: str


Block = Text | Notes | Code | Table | Chart | Drawing


@dataclass(frozen=True, slots=True)
class Section:
    """Blocks under a title."""

    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)
    level: int = 3
    """2 for a part of the report, 3 for a section of one."""
    folded: bool = False
    """Closed on the page until a reader opens it."""
    trial: str = ""
    """The key of the trial whose entry this is: links to it lead here. Markdown leaves entries out."""
