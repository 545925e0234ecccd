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

from orchestrator.doctor.clock import examine_clock
from orchestrator.doctor.cluster import examine_cluster
from orchestrator.doctor.finding import Finding, Verdict
from orchestrator.doctor.gpus import examine_gpus
from orchestrator.doctor.machine import examine_cpu, examine_limits, examine_memory
from orchestrator.doctor.parts import looked_at
from orchestrator.doctor.ray_cluster import examine_ray
from orchestrator.doctor.reach import examine_reach
from orchestrator.doctor.software import examine_software
from orchestrator.doctor.storage import examine_storage

__all__ = ["Finding", "Verdict", "as_json", "examine", "looked_at", "render", "worst"]


def examine(
    storage: Path, store: str | None = None, tracker: str | None = None, address: str | None = None
) -> list[Finding]:
    """All findings, for a sweep that would keep its files under `storage`. Creates nothing that stays.

    `store` and `tracker` are URIs to try; `address` is a cluster whose nodes are all examined, too.
    """
    parts: dict[str, Callable[[], Iterable[Finding]]] = {
        "software": examine_software,
        "cpu": examine_cpu,
        "memory": examine_memory,
        "storage": lambda: examine_storage(storage),
        "gpu": examine_gpus,
        "ray": examine_ray,
        "limits": examine_limits,
        "clock": examine_clock,
        "reach": lambda: examine_reach(store, tracker),
        "cluster": lambda: examine_cluster(address, storage, store, tracker) if address else (),
    }
    return [finding for name, part in parts.items() for finding in looked_at(name, part)]


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
    for finding in _shortened(findings):
        colour, name = colours[finding.verdict], f"{finding.node} {finding.name}".strip()
        table.add_row(f"[{colour}]{finding.verdict}[/]", *map(escape, (name, finding.value, finding.fix)))
    (console or Console()).print(table)


def _shortened(findings: Sequence[Finding]) -> list[Finding]:
    """Of a cluster's nodes what is not well, and how many lines are: a cluster may have many nodes."""
    shown = [finding for finding in findings if not finding.node or finding.verdict != "ok"]
    for node in dict.fromkeys(finding.node for finding in findings if finding.node):
        well = [finding.name for finding in findings if finding.node == node and finding.verdict == "ok"]
        shown.append(Finding(f"{len(well)} more", "well: " + ", ".join(well), node=node))
    return shown


def as_json(findings: Sequence[Finding]) -> str:
    """The findings with the worst verdict, for programs."""
    return json.dumps({"verdict": worst(findings), "findings": [asdict(finding) for finding in findings]}, indent=1)
