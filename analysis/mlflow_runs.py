"""Where a sweep's runs are in MLflow: `SWEEP/mlflow.json`, which the tracker writes and a report's links need."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from urllib.parse import quote

from analysis.writing import write_whole

FILE = "mlflow.json"


@dataclass(frozen=True, slots=True)
class MlflowRuns:
    """The runs of one sweep."""

    ui: str
    """The address of MLflow's pages: the server's or, beside a database, where the command that opens them serves."""
    experiment_id: str
    parent: str
    """The run of the sweep."""
    runs: dict[str, str] = field(default_factory=dict)
    """By a trial's key its run."""
    views: dict[str, str] = field(default_factory=dict)
    """By the id of a saved view of the experiment's pages its name."""

    def address(self, run: str) -> str:
        """The page of a run."""
        return f"{self.ui}/#/experiments/{quote(self.experiment_id)}/runs/{quote(run)}"

    def view_address(self, view: str) -> str:
        """The page of a saved view."""
        page = f"{self.ui}/#/experiments/{quote(self.experiment_id)}/runs"
        return f"{page}?viewStateShareKey={quote(view)}&compareRunsMode=CHART"


def read_mlflow_runs(directory: Path) -> MlflowRuns | None:
    """None for a sweep that has never been in MLflow, or where the file cannot be read: links are no reason to fail."""
    try:
        return MlflowRuns(**json.loads((directory / FILE).read_text()))
    except (FileNotFoundError, ValueError, TypeError):
        return None


def write_mlflow_runs(directory: Path, runs: MlflowRuns) -> None:
    """Write it so that a reader sees the old one or the new one."""
    write_whole(directory / FILE, json.dumps(asdict(runs), indent=1))
