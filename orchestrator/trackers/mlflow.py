"""MLflow: one parent run per sweep and one child run per trial, found again by their tags and never made twice.

Everything goes through MlflowClient, without MLflow's global state. After an error nothing is remembered: MLflow is
asked again what it has. Measured (RUNTIME.md): importing mlflow costs 2 s and the first use of a database 2 s more, so
both happen at the first call, in the mirror's thread.
"""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import urlsplit

from pydantic import field_validator

from analysis.records import SweepRecord, TrialRecord, read_sweep_record
from hrm.records import Report
from orchestrator.trackers import TrackerSpec
from orchestrator.trackers.mlflow_view import (
    MARKER,
    Point,
    batches_of,
    milliseconds,
    points_of,
    result_points,
    run_name,
    sweep_id,
    sweep_parameters,
    sweep_tags,
    trial_parameters,
    trial_tags,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)

_SERVED = ("http", "https")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
"""Set unless the user has. The mirror tries again by itself; retries of urllib3 would also print a line each."""

_METRICS_PER_BATCH = 1000
_ENTRIES_PER_BATCH = 100
_STATUS = {
    "waiting": "SCHEDULED",
    "running": "RUNNING",
    "completed": "FINISHED",
    "pruned": "KILLED",
    "failed": "FAILED",
}
_ENDED = ("completed", "pruned", "failed")


class MlflowSpec(TrackerSpec):
    """MLflow, by default in a database under the storage root."""

    kind: Literal["mlflow"] = "mlflow"
    uri: str | None = None
    """A tracking server or a database; None: `sqlite:///STORAGE/mlflow.db`."""
    experiment: str = "hrm"
    """The MLflow experiment that holds the runs of all sweeps."""

    @field_validator("uri")
    @classmethod
    def _known_scheme(cls, uri: str | None) -> str | None:
        scheme = urlsplit(uri or "sqlite:").scheme.split("+")[0]
        if scheme not in _SERVED + _DATABASES:
            raise ValueError(
                f"must be the address of an MLflow server or database, got {uri!r}. "
                "Write http://HOST:PORT or sqlite:////absolute/path/mlflow.db; MLflow 3 refuses plain folders"
            )
        return uri

    def build(self, sweep_directory: Path, storage: Path | None = None) -> MlflowTracker:
        """The tracker of one sweep; a relative sqlite path is read from the working directory, once, here."""
        sweep_directory = sweep_directory.absolute()
        storage = (storage or sweep_directory.parent.parent).absolute()
        uri = self.uri or f"sqlite:///{storage / 'mlflow.db'}"
        if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
            uri = f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
        # A server places artifacts itself; with a database the client does, by default relative to its own folder.
        artifacts = None if urlsplit(uri).scheme in _SERVED else storage / "mlartifacts"
        return MlflowTracker(uri, self.experiment, sweep_directory, artifacts)

    @classmethod
    def smoke(cls) -> Self:
        """The database under the storage root."""
        return cls()


@dataclass(slots=True)
class _Run:
    """What is known of a run in MLflow."""

    run_id: str
    status: str = "RUNNING"
    end_time: int | None = None
    tags: dict[str, str] = field(default_factory=dict)
    parameters: set[str] = field(default_factory=set)
    last_step: int | None = None
    """None: not asked yet."""


@dataclass(slots=True)
class _Known:
    """What is known of MLflow's side; emptied by every error."""

    client: MlflowClient | None = None
    experiment_id: str = ""
    parent: _Run | None = None
    trials: dict[str, _Run] = field(default_factory=dict)


class MlflowTracker:
    """One sweep in MLflow. Not thread-safe; owned by a mirror's thread."""

    def __init__(self, uri: str, experiment: str, sweep_directory: Path, artifacts: Path | None) -> None:
        """`artifacts`: where a new MLflow experiment keeps its files; None leaves it to the server."""
        self.uri = uri
        self._experiment = experiment
        self._directory = sweep_directory
        self._artifacts = artifacts
        self._sweep: SweepRecord | None = None
        self._known = _Known()
        self._run_ids: dict[str, str] = {}

    @property
    def ui_command(self) -> str:
        """The one command that opens the UI on this machine; for a server, its address."""
        if urlsplit(self.uri).scheme in _SERVED:
            return self.uri
        # The defaults start four web workers and seven job consumers: 3.1 GB and 16 s instead of 0.5 GB and 7 s.
        return (
            f"MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false mlflow ui --backend-store-uri {shlex.quote(self.uri)} "
            "--host 127.0.0.1 --port 5000 --workers 1"
        )

    def run_id(self, key: str) -> str:
        """The trial's MLflow run; empty as long as none is known."""
        return self._run_ids.get(key, "")

    def sync_sweep(self, record: SweepRecord) -> None:
        """Create or update the parent run. A sweep that goes on again is shown as running again."""
        self._sweep = record
        with self._connection() as client:
            parent = self._parent(client)
            if not record.finished:
                self._set_status(client, parent, "RUNNING")
            self._describe(client, parent, sweep_parameters(record), sweep_tags(record))

    def sync_trial(self, record: TrialRecord, reports: Sequence[Report]) -> None:
        """Create or update the trial's run; a trial that never started has none."""
        if record.state == "waiting" and record.started is None:
            return
        with self._connection() as client:
            run = self._trial(client, record)
            end_time = milliseconds(record.ended or time.time()) if record.state in _ENDED else None
            if end_time is not None and (run.tags.get("state"), run.end_time) == (record.state, end_time):
                return  # the end is written last
            sweep = self._sweep_record()
            self._describe(client, run, trial_parameters(record), trial_tags(record, sweep))
            self._send_points(client, run, points_of(reports))
            if record.state == "completed":
                self._log_points(client, run, result_points(record))
            self._describe(client, run, {}, {"state": record.state})
            self._set_status(client, run, _STATUS[record.state], end_time)

    def finish(self, record: SweepRecord, artifacts: list[Path]) -> None:
        """Send the experiment, the report and the best checkpoints to the parent run, and end it."""
        self._sweep = record
        with self._connection() as client:
            parent = self._parent(client)
            self._describe(client, parent, sweep_parameters(record), sweep_tags(record))
            client.log_dict(parent.run_id, record.experiment, "experiment.yaml")
            client.log_dict(parent.run_id, record.experiment, "experiment.json")
            for path in artifacts:
                self._send_artifact(client, parent, path)
            status = "FINISHED" if record.finished else "KILLED"
            if parent.status != status:
                self._set_status(client, parent, status, milliseconds(time.time()))

    @contextmanager
    def _connection(self) -> Iterator[MlflowClient]:
        """The client. After a failure nothing of MLflow is known any more, since a lost answer may hide a write."""
        try:
            if self._known.client is None:
                self._known.client = self._connect()
            yield self._known.client
        except BaseException:
            self._known = _Known()
            raise

    def _connect(self) -> MlflowClient:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        logging.getLogger("alembic").setLevel(logging.WARNING)
        if self.uri.startswith("sqlite:////"):
            Path(self.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def _sweep_record(self) -> SweepRecord:
        if self._sweep is None:
            self._sweep = read_sweep_record(self._directory)
        return self._sweep

    def _experiment_id(self, client: MlflowClient) -> str:
        if not self._known.experiment_id:
            found = client.get_experiment_by_name(self._experiment)
            location = self._artifacts.as_uri() if self._artifacts else None
            self._known.experiment_id = (
                found.experiment_id if found else client.create_experiment(self._experiment, artifact_location=location)
            )
        return self._known.experiment_id

    def _parent(self, client: MlflowClient) -> _Run:
        """The sweep's run and, on first contact, those of its trials; the sweep's run is made when there is none."""
        if self._known.parent is None:
            sweep = self._sweep_record()
            identity = sweep_id(self._directory, sweep)
            runs = self._find(client, f"tags.sweep_id = '{identity}' AND tags.role = 'sweep'")
            parent = next(iter(runs), None)
            if parent is None:
                tags = {"sweep_id": identity, "role": "sweep"}
                parent = self._create(client, sweep.name, sweep.created, tags)
            trials = self._find(client, f"tags.`mlflow.parentRunId` = '{parent.run_id}'")
            self._known.trials = {run.tags.get("trial_key", ""): run for run in trials}
            self._known.parent = parent
        return self._known.parent

    def _trial(self, client: MlflowClient, record: TrialRecord) -> _Run:
        parent = self._parent(client)
        run = self._known.trials.get(record.key)
        if run is None:
            sweep = self._sweep_record()
            tags = {"role": "trial", "trial_key": record.key, "mlflow.parentRunId": parent.run_id}
            run = self._create(client, run_name(record, sweep.tasks), record.started or time.time(), tags)
            self._known.trials[record.key] = run
        self._run_ids[record.key] = run.run_id
        return run

    def _find(self, client: MlflowClient, condition: str) -> list[_Run]:
        """The runs that meet the condition, oldest first."""
        found: list[_Run] = []
        token: str | None = None
        while True:
            page = client.search_runs(
                [self._experiment_id(client)], condition, order_by=["attributes.start_time ASC"], page_token=token
            )
            found += [
                _Run(run.info.run_id, run.info.status, run.info.end_time, dict(run.data.tags), set(run.data.params))
                for run in page
            ]
            token = page.token
            if not token:
                return found

    def _create(self, client: MlflowClient, name: str, started: float, tags: dict[str, str]) -> _Run:
        # The tags by which the run is found again are part of its creation: a kill cannot come between.
        run = client.create_run(
            self._experiment_id(client), start_time=milliseconds(started), tags=dict(tags), run_name=name
        )
        return _Run(run.info.run_id, tags=dict(tags), last_step=-1)

    def _describe(
        self, client: MlflowClient, run: _Run, parameters: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """Log the parameters that the run lacks (MLflow's are immutable) and the tags that changed."""
        from mlflow.entities import Param, RunTag

        new = {key: value for key, value in parameters.items() if key not in run.parameters}
        for keys in _chunks(list(new), _ENTRIES_PER_BATCH):
            client.log_batch(run.run_id, params=[Param(key, new[key]) for key in keys])
        changed = {key: value for key, value in tags.items() if run.tags.get(key, "") != value}
        for keys in _chunks(list(changed), _ENTRIES_PER_BATCH):
            client.log_batch(run.run_id, tags=[RunTag(key, changed[key]) for key in keys])
        run.parameters |= set(new)
        run.tags |= changed

    def _set_status(self, client: MlflowClient, run: _Run, status: str, end_time: int | None = None) -> None:
        if (run.status, run.end_time) == (status, end_time):
            return
        if end_time is not None:
            client.set_terminated(run.run_id, status, end_time)
        elif run.status != status:
            client.update_run(run.run_id, status)
        run.status, run.end_time = status, end_time

    def _send_points(self, client: MlflowClient, run: _Run, points: Sequence[Point]) -> None:
        """Log the steps after the last one that MLflow has."""
        if run.last_step is None:
            history = client.get_metric_history(run.run_id, MARKER)
            run.last_step = max((metric.step for metric in history), default=-1)
        last = run.last_step
        self._log_points(client, run, [point for point in points if point.step > last])
        run.last_step = max([last, *(point.step for point in points)])

    def _log_points(self, client: MlflowClient, run: _Run, points: Iterable[Point]) -> None:
        from mlflow.entities import Metric

        for batch in batches_of(points, _METRICS_PER_BATCH):
            metrics = [
                Metric(key, value, milliseconds(point.time), point.step)
                for point in batch
                for key, value in point.metrics.items()
            ]
            client.log_batch(run.run_id, metrics=metrics)

    def _send_artifact(self, client: MlflowClient, run: _Run, path: Path) -> None:
        """A file goes to the root, a folder of the sweep under its own path in it, any other folder under its name."""
        if path.is_file():
            client.log_artifact(run.run_id, str(path))
        elif path.is_dir():
            inside = path.absolute().is_relative_to(self._directory)
            place = path.absolute().relative_to(self._directory) if inside else Path(path.name)
            client.log_artifacts(run.run_id, str(path), place.as_posix())
        else:
            _log.warning("%s: does not exist and was not sent to MLflow.", path)


def _chunks(items: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
