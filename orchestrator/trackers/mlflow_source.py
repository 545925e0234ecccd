"""A sweep's directory again, from the files that its MLflow runs hold: for `report --from-mlflow`.

What comes back is what a report reads: `sweep.json` and, of every trial that has ended, its record, its reports and its
log. The search's journal and the checkpoints that were not the best do not, so such a directory cannot go on.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.mlflow_runs import MlflowRuns, write_mlflow_runs
from hrm.errors import InfrastructureError, Problem, SpecError
from orchestrator.trackers.mlflow import TRIAL_FILES
from orchestrator.trackers.mlflow_client import (
    MlflowRefusedError,
    absolute_address,
    checked_address,
    connect,
    find_runs,
    pages_of,
    refusals_in_words,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

MARK = "from_mlflow.json"
"""Says where a rebuilt directory came from; only a directory that has it is written over."""
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A directory that was rebuilt, and how many of its trials' runs hold no record."""

    directory: Path
    left_out: int


def rebuild(uri: str | None, name: str | None, storage: Path, output: Path | None) -> Rebuilt:
    """The sweep of this name (None: the newest) from an MLflow server or database (None: the storage's own).

    Raises SpecError (no such sweep, refused, `output` holds something else), InfrastructureError (not reachable).
    """
    try:
        address = absolute_address(uri and checked_address(uri), storage)
    except ValueError as error:
        raise SpecError(
            Problem("--from-mlflow", str(error), "Give the address that the sweep's tracker had")
        ) from error
    database = Path(address.removeprefix("sqlite:///"))
    if address.startswith("sqlite:") and not database.exists():
        rule = f"there is no database {database}"
        raise SpecError(Problem("--from-mlflow", rule, "Give the address that the sweep's tracker had"))
    try:
        with refusals_in_words(address):
            client = connect(address)
            parent = _parent(client, name, address)
            directory = output or storage / "rebuilt" / parent.data.tags["sweep"]
            return _download(client, parent, _emptied(directory), address)
    except MlflowRefusedError as error:
        raise SpecError(Problem("--from-mlflow", str(error), "Try again with these set")) from error
    except (SpecError, InfrastructureError):
        raise
    except Exception as error:  # MLflow has many errors for a server that is away
        raise InfrastructureError(f"{address} cannot be read: {type(error).__name__}: {error}") from error


def _parent(client: MlflowClient, name: str | None, address: str) -> Run:
    """The newest run that is a sweep of this name."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = [run for run in find_runs(client, experiments, "tags.role = 'sweep'") if "sweep" in run.data.tags]
    found = [run for run in runs if name in (None, run.data.tags["sweep"])]
    if not found:
        names = ", ".join(sorted({run.data.tags["sweep"] for run in runs}))
        rule = f"{address} has no sweep {name!r}" if name else f"{address} has no sweep"
        raise SpecError(Problem("--from-mlflow", rule, f"It has {names}" if names else "Give another address"))
    return found[-1]


def _emptied(directory: Path) -> Path:
    """The directory, new or emptied of what was rebuilt there before. Raises SpecError if it holds something else."""
    if directory.exists() and any(directory.iterdir()):
        if not (directory / MARK).exists():
            rule = "holds something that no `report --from-mlflow` has written"
            raise SpecError(Problem(str(directory), rule, "Give another --output"))
        shutil.rmtree(directory)
    directory.mkdir(parents=True, exist_ok=True)
    return directory


def _download(client: MlflowClient, parent: Run, directory: Path, address: str) -> Rebuilt:
    (directory / MARK).write_text(json.dumps({"uri": address, "run_id": parent.info.run_id}))
    if "sweep.json" not in _fetch(client, parent.info.run_id, ("sweep.json", "report.json"), directory):
        rule = f"run {parent.info.run_id} does not hold sweep.json: an earlier version wrote it"
        raise SpecError(Problem("--from-mlflow", rule, "Its curves and parameters are in MLflow's own pages"))

    def trial(run: Run) -> bool:
        key = run.data.tags.get("trial_key", "")
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", key):  # becomes a folder
            return False
        return "trial.json" in _fetch(client, run.info.run_id, TRIAL_FILES, directory / "trials" / key)

    below = f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'"
    children = list(find_runs(client, [parent.info.experiment_id], below))
    runs = {run.data.tags.get("trial_key", ""): run.info.run_id for run in children}
    where = MlflowRuns(pages_of(address), parent.info.experiment_id, parent.info.run_id, runs)
    write_mlflow_runs(directory, where)
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        whole = list(pool.map(trial, children))
    return Rebuilt(directory, whole.count(False))


def _fetch(client: MlflowClient, run_id: str, names: Iterable[str], folder: Path) -> set[str]:
    """Those of the files that the run holds, into the folder."""
    held = {file.path for file in client.list_artifacts(run_id)} & set(names)
    if held:
        folder.mkdir(parents=True, exist_ok=True)
    for name in sorted(held):
        client.download_artifacts(run_id, name, str(folder))
    return held
