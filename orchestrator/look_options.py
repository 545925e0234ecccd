"""The options of `status` and `report`, which are imported when one runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.commands import AddCommand, later


def add_look_commands(commands: Any, add_command: AddCommand) -> None:
    """Add both. `add_command` gives a command the options that all have."""
    status = add_command(commands, "status", later("status:status"), "show where a sweep stands, running or not")
    status.add_argument("name", nargs="?", help="default: the newest sweep")
    status.add_argument("--all", action="store_true", help="show every trial of a large sweep")
    status.add_argument("--watch", action="store_true", help="go on showing it, with its curves, while it runs")
    text = "write and show the report of a sweep as it stands, or of several"
    report = add_command(commands, "report", later("reporting:report"), text)
    report.add_argument("names", nargs="*", metavar="SWEEP",
                        help="by name, or the path of its directory; several are held against each other "
                        "(default: the newest)")  # fmt: skip
    report.add_argument("--from-mlflow", nargs="?", const="", metavar="URI",
                        help="read its runs in MLflow instead (default: the storage's database)")  # fmt: skip
    report.add_argument("--output", type=Path,
                        help="write it to this folder (default: the sweep's; of several: reports/)")  # fmt: skip
    report.add_argument("--steps", action="store_true",
                        help="also write every optimizer step, to tables/steps.parquet beside it")  # fmt: skip
    for parser in (status, report):
        parser.add_argument("--store", help="look at the copies in this store: the storage is elsewhere, or lost")
