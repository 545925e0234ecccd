"""The options of `compare`, which is imported when it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.commands import AddCommand, later


def add_compare_command(commands: Any, add_command: AddCommand) -> None:
    """Add `compare`. `add_command` gives a command the options that all have."""
    parser = add_command(commands, "compare", later("comparing:compare"), "hold an arm or a sweep against another one")
    for side in ("first", "second"):
        parser.add_argument(side, metavar="SWEEP[:TASK][:ARM]", help="what is left out is as on the other side")
    parser.add_argument("--output", type=Path, help="also write a page, Markdown and JSON to this folder")
    parser.add_argument("--store", help="look at the copies in this store: the storage is elsewhere, or lost")
