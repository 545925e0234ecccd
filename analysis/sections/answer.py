"""How a report starts: the answer in a sentence with its certainty, and whether the sweep has finished."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from analysis.answer import Answer
from analysis.numbers import percent, significant
from analysis.section import Drawing, Section
from analysis.spending import limits_line
from analysis.sweep import Sweep

if TYPE_CHECKING:
    from analysis.report import Report


def sections(report: Report, sweep: Sweep) -> list[Section]:
    """One box for each task."""
    status = status_line(report)
    banner = [Drawing(f'<p class="banner" role="status">{escape(status)}</p>', status)] if status else []
    several = len(report.answers) > 1
    return [Section("Answer", [*banner, *(_box(answer, several) for answer in report.answers)], level=2)]


def status_line(report: Report) -> str:
    """Empty for a finished sweep, else how far it is."""
    if report.finished:
        return ""
    t = report.trials
    return (
        f"This sweep has not finished: {t['completed'] + t['pruned'] + t['failed']} of {t['planned']} planned trials "
        f"have ended, {t['running']} running. Everything below is as of now and can change.{limits_line(report.spent)}"
    )


def certainty_line(answer: Answer) -> str:
    """The probability that the leader is best, and where it stands against the reference."""
    parts = []
    if answer.probability_best is not None:
        parts.append(f"Probability that {answer.best_arm} is the best arm: {percent(answer.probability_best)}.")
    if answer.reference and answer.reference["ratio"]:
        parts.append(
            f"Its loss is {significant(answer.reference['ratio'], 3)} times the generator's cross-entropy "
            f"({significant(answer.reference['generator_cross_entropy'])}), the loss of one that knows its rules."
        )
    return " ".join(parts)


def _box(answer: Answer, several: bool) -> Drawing:
    kind, verdict = ("decided", "Decided") if answer.decided else ("open", "Not decided")
    label = f"{answer.task}: {verdict.lower()}" if several else verdict
    certainty = certainty_line(answer)
    html = (
        f'<div class="answer {kind}"><p class="verdict">{escape(label)}</p>'
        f'<p class="sentence">{escape(answer.sentence)}</p>'
        f"{f'<p>{escape(certainty)}</p>' if certainty else ''}</div>"
    )
    return Drawing(html, "\n\n".join(part for part in (f"{label}. {answer.sentence}", certainty) if part))
