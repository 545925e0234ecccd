"""A sweep's report as a list of sections, the same for its page and for its Markdown: one place says their order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from analysis.figure_style import colour_of
from analysis.markdown import document_text
from analysis.page import render_document
from analysis.section import Section
from analysis.sections import (
    ablation,
    answer,
    arms,
    comparison,
    convergence,
    cost,
    curves,
    efficiency,
    failures,
    joined,
    matrix,
    method,
    search,
    searched,
    trials,
)
from analysis.sweep import Sweep

if TYPE_CHECKING:
    from analysis.report import Report

OF_A_TASK = (
    arms.sections,
    comparison.sections,
    ablation.sections,
    curves.sections,
    efficiency.sections,
    convergence.sections,
    searched.sections,
    search.sections,
)
OF_THE_SWEEP = (
    matrix.sections,
    failures.sections,
    cost.sections,
    method.sections,
)


def report_sections(report: Report, sweep: Sweep) -> list[Section]:
    """All of it: the answer first, then each task, what concerns all, and an entry for every trial."""
    found = answer.sections(report, sweep) + joined.sections(report, sweep)
    for task in sweep.record.tasks:
        here = [section for sections in OF_A_TASK for section in sections(report, sweep, task)]
        found += [Section(f"Task {task}", level=2), *here] if len(sweep.record.tasks) > 1 else here
    for sections in OF_THE_SWEEP:
        found += sections(report, sweep)
    return found + trials.sections(report, sweep, found)


def render_page(report: Report, sections: Sequence[Section], arms: Sequence[str], root: str = ".") -> str:
    """The page. `root` leads from it to the sweep's directory; `arms` are all of the sweep's."""
    colours = {name: colour_of(arms, name) for name in arms}
    return render_document(report.name, sections, lead=report.question, root=root, arms=colours)


def render_markdown(report: Report, sections: Sequence[Section]) -> str:
    """The Markdown."""
    return document_text(report.name, sections, report.question)
