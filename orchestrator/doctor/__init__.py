"""Examines this machine before a sweep does: every line has a value, a verdict, and the fix where one is needed.

One file here = one part of the machine. In each, looking (`examine_*`) is apart from judging (`judge_*`, pure functions
of what was seen). What cannot be looked at is a line too: the doctor never crashes, and it works without a GPU, without
a network and without a running Ray.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from orchestrator.doctor.finding import Finding, Verdict
from orchestrator.doctor.gpus import examine_gpus
from orchestrator.doctor.machine import examine_cpu, examine_limits, examine_memory
from orchestrator.doctor.ray_cluster import examine_ray
from orchestrator.doctor.software import examine_software
from orchestrator.doctor.storage import examine_storage

__all__ = ["Finding", "Verdict", "as_json", "examine", "looked_at", "render", "worst"]


def examine(storage: Path) -> list[Finding]:
    """All findings, for a sweep that would keep its files under `storage`. Creates nothing that stays."""
    parts: dict[str, Callable[[], Iterable[Finding]]] = {
        "software": examine_software,
        "cpu": examine_cpu,
        "memory": examine_memory,
        "storage": lambda: examine_storage(storage),
        "gpu": examine_gpus,
        "ray": examine_ray,
        "limits": examine_limits,
    }
    return [finding for name, part in parts.items() for finding in looked_at(name, part)]


def looked_at(name: str, part: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The findings of one part; a part that breaks ends in a line that says so."""
    findings: list[Finding] = []
    try:
        findings.extend(part())
    except Exception as error:  # a broken driver or an odd system must show as a line
        value = f"could not be examined: {type(error).__name__}: {error}"
        findings.append(Finding(name, value, "warn", "Look at this part by hand; the other lines hold."))
    return findings


def worst(findings: Sequence[Finding]) -> Verdict:
    """`fail` if anything fails, else `warn` if anything warns."""
    verdicts = {finding.verdict for finding in findings}
    return "fail" if "fail" in verdicts else "warn" if "warn" in verdicts else "ok"


def render(findings: Sequence[Finding], console: Console | None = None) -> None:
    """Print the findings as a table, by default to the terminal."""
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    table = Table(box=None, pad_edge=False)
    for title in ("", "what", "seen", "fix"):
        table.add_column(title, overflow="fold")
    for finding in findings:
        colour = colours[finding.verdict]
        table.add_row(f"[{colour}]{finding.verdict}[/]", *map(escape, (finding.name, finding.value, finding.fix)))
    (console or Console()).print(table)


def as_json(findings: Sequence[Finding]) -> str:
    """The findings with the worst verdict, for programs."""
    return json.dumps({"verdict": worst(findings), "findings": [asdict(finding) for finding in findings]}, indent=1)
