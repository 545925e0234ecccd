"""A part of the doctor that breaks is a line, too."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from orchestrator.doctor.finding import Finding


def looked_at(name: str, part: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The findings of one part; a part that breaks ends in a line that says so."""
    findings: list[Finding] = []
    try:
        findings.extend(part())
    except Exception as error:  # a broken driver or an odd system must show as a line
        value = f"could not be examined: {type(error).__name__}: {error}"
        findings.append(Finding(name, value, "warn", "Look at this part by hand; the other lines hold."))
    return findings
