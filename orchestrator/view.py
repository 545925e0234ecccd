"""What the driver tells whoever watches: a person at its terminal, and `status` in another one."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from orchestrator.cluster.connect import Cluster
    from orchestrator.ledger import Ledger

NOTE = "waiting.txt"
"""In the sweep's directory, while its driver waits for something: what."""


class View:
    """What a person watching is shown; this one shows nothing. Called in the driver's main thread."""

    def waiting(self, message: str) -> None:
        """Before something that takes seconds, and when the cluster has no room; empty when that is over."""

    def measured(self, comparison: str) -> None:
        """Once, before Ray starts: in words, how closely the arms match."""

    def noticed(self, outlook: str) -> None:
        """Once, before Ray starts: which limits the sweep will break as it goes; empty where none is in sight."""

    def started(self, ledger: Ledger, cluster: Cluster, concurrency: int, ui_commands: list[str]) -> None:
        """Once, before the first trial."""

    def ended(self) -> None:
        """Once, after the last trial of this run of the driver."""


class NotingView(View):
    """Another view, which also leaves what is waited for in the sweep's directory."""

    def __init__(self, view: View, directory: Path) -> None:
        self._view, self._note = view, directory / NOTE

    def waiting(self, message: str) -> None:
        with contextlib.suppress(OSError):  # a full disk is said where it hurts
            self._note.write_text(message)
        self._view.waiting(message)

    def measured(self, comparison: str) -> None:
        self._view.measured(comparison)

    def noticed(self, outlook: str) -> None:
        self._view.noticed(outlook)

    def started(self, ledger: Ledger, cluster: Cluster, concurrency: int, ui_commands: list[str]) -> None:
        self.waiting("")
        self._view.started(ledger, cluster, concurrency, ui_commands)

    def ended(self) -> None:
        self._view.ended()


def waited_for(directory: Path) -> str:
    """What the driver at work in this directory waits for; empty if it does not."""
    note = directory / NOTE
    return note.read_text() if note.exists() else ""
