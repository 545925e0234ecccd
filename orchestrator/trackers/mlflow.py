"""MLflow: one parent run per sweep and one child run per trial, found again by their tags and never made twice.

Everything goes through MlflowClient, without MLflow's global state. After an error nothing is remembered: MLflow is
asked again what it has. The runs also hold the sweep's own small files, so that `report --from-mlflow` can read the
sweep where its directory is gone.
"""

from __future__ import annotations

import logging
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import field_validator

from analysis.mlflow_runs import MlflowRuns, write_mlflow_runs
from analysis.records import SweepRecord, TrialRecord, read_sweep_record, read_trial_record
from hrm.records import Report
from orchestrator.leaders import Leader
from orchestrator.trackers import TrackerSpec
from orchestrator.trackers.mlflow_client import (
    absolute_address,
    checked_address,
    checked_artifacts,
    connect,
    find_runs,
    is_served,
    pages_of,
    refusals_in_words,
)
from orchestrator.trackers.mlflow_compare import prepare_views
from orchestrator.trackers.mlflow_model import log_model
from orchestrator.trackers.mlflow_run import KnownRun
from orchestrator.trackers.mlflow_view import (
    answer_in,
    milliseconds,
    points_of,
    pruned_points,
    result_points,
    run_name,
    shown_as_tables,
    sweep_id,
    sweep_parameters,
    sweep_tags,
    trial_parameters,
    trial_tags,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

_log = logging.getLogger(__name__)
_STATUS = {
    "waiting": "SCHEDULED",
    "running": "RUNNING",
    "completed": "FINISHED",
    "pruned": "KILLED",
    "failed": "FAILED",
}
_ENDED = ("completed", "pruned", "failed")
_KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Else MLflow 3 shows an experiment as one of language model agents, with their pages."""
_OFTEN, _NOTE_SECONDS = 200, 5.0
"""Up to so many runs `mlflow.json` is written with each new one, then at most so often."""
TRIAL_FILES = ("trial.json", "records.jsonl", "log.txt")
"""Of a trial that has ended, in its run: small, and never changed again."""


class MlflowSpec(TrackerSpec):
    """MLflow, by default in a database under the storage root."""

    kind: Literal["mlflow"] = "mlflow"
    uri: str | None = None
    """A tracking server or a database; None: `sqlite:///STORAGE/mlflow.db`. Passwords and tokens are taken from the
    environment alone."""
    experiment: str = "hrm"
    """The MLflow experiment that holds the runs of all sweeps."""
    artifacts: str | None = None
    """Where a new MLflow experiment keeps its files, such as `s3://bucket/prefix` (with MLFLOW_S3_ENDPOINT_URL for
    another S3 than Amazon's). None: where the server says; beside a database, `STORAGE/mlartifacts`."""

    model: bool = True
    """Whether the best checkpoint of a finished sweep becomes a model that `mlflow models serve` answers from."""

    @field_validator("uri")
    @classmethod
    def _known_scheme(cls, uri: str | None) -> str | None:
        return uri and checked_address(uri)

    @field_validator("artifacts")
    @classmethod
    def _reachable(cls, artifacts: str | None) -> str | None:
        return artifacts and checked_artifacts(artifacts)

    def build(self, sweep_directory: Path, storage: Path | None = None) -> MlflowTracker:
        """The tracker of one sweep; a relative sqlite path is read from the working directory, once, here."""
        sweep_directory = sweep_directory.absolute()
        storage = (storage or sweep_directory.parent.parent).absolute()
        uri = absolute_address(self.uri, storage)
        # A server places artifacts itself; with a database the client does, by default relative to its own folder.
        beside = None if is_served(uri) else (storage / "mlartifacts").as_uri()
        return MlflowTracker(uri, self.experiment, sweep_directory, self.artifacts or beside, self.model)

    @classmethod
    def smoke(cls) -> Self:
        """The database under the storage root."""
        return cls()


@dataclass(slots=True)
class _Known:
    """What is known of MLflow's side; emptied by every error."""

    client: MlflowClient | None = None
    experiment_id: str = ""
    parent: KnownRun | None = None
    trials: dict[str, KnownRun] = field(default_factory=dict)
    views: dict[str, str] | None = None


class MlflowTracker:
    """One sweep in MLflow. Not thread-safe; owned by a mirror's thread."""

    def __init__(
        self, uri: str, experiment: str, sweep_directory: Path, artifacts: str | None, models: bool = True
    ) -> None:
        """`artifacts`: where a new MLflow experiment keeps its files; None leaves it to the server."""
        self.uri = uri
        self._experiment = experiment
        self._directory = sweep_directory
        self._artifacts, self._models = artifacts, models
        self._sweep: SweepRecord | None = None
        self._warned = False
        self._known = _Known()
        self._run_ids: dict[str, str] = {}
        self._noted = 0.0

    @property
    def ui_command(self) -> str:
        """The one command that opens the UI on this machine; for a server, its address."""
        if is_served(self.uri):
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
                parent.set_status("RUNNING")
            parent.describe(sweep_parameters(record), sweep_tags(record))
            self._note_runs(client)
            client.log_artifact(parent.run_id, str(self._directory / "sweep.json"))

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
            run.describe(trial_parameters(record), trial_tags(record, sweep))
            run.name_data(record.task, str(sweep.datasets.get(record.task, {}).get("fingerprint", "")))
            run.send_points(points_of(reports))
            if record.state == "completed":
                run.log_points(result_points(record))
            elif record.state == "pruned":
                run.log_points(pruned_points(record, reports, sweep.metric))
            if record.state in _ENDED:
                for name in TRIAL_FILES:
                    path = self._directory / "trials" / record.key / name
                    if path.exists():
                        run.send_file(path, self._directory)
            run.describe({}, {"state": record.state})
            run.set_status(_STATUS[record.state], end_time)
            if end_time is not None:
                run.settle()

    def finish(self, record: SweepRecord, artifacts: list[Path]) -> None:
        """Send the experiment, the report and the best checkpoints to the parent run, and end it."""
        self._sweep = record
        with self._connection() as client:
            parent = self._parent(client)
            parent.describe(sweep_parameters(record), sweep_tags(record, answer_in(artifacts)))
            client.log_dict(parent.run_id, record.experiment, "experiment.yaml")
            client.log_dict(parent.run_id, record.experiment, "experiment.json")
            for path in [self._directory / "sweep.json", *artifacts]:
                parent.send_file(path, self._directory)
            parent.describe({}, shown_as_tables(artifacts))
            self._note_runs(client)
            status = "FINISHED" if record.finished else "KILLED"
            if parent.status != status:
                parent.set_status(status, milliseconds(time.time()))

    def log_best(self, record: SweepRecord, leaders: Sequence[Leader]) -> None:
        """One model for each task, linked to the sweep's run and the trial's; its address is a tag of the sweep's."""
        if not self._models:
            return
        self._sweep = record
        with self._connection() as client:
            parent = self._parent(client)
            identity = {"sweep": record.name, "sweep_id": sweep_id(self._directory, record)}
            for leader in leaders:
                trial = read_trial_record(self._directory / "trials" / leader.trial)
                runs = [parent.run_id, self._trial(client, trial).run_id]
                metrics = {name: v for point in result_points(trial) for name, v in point.metrics.items()}
                model = log_model(client, self._experiment_id(client), leader, identity, runs, metrics)
                if model:
                    parent.describe({}, {f"best_model.{leader.task}": f"models:/{model}"})

    @contextmanager
    def _connection(self) -> Iterator[MlflowClient]:
        """The client. After a failure nothing of MLflow is known any more, since a lost answer may hide a write."""
        try:
            if self._known.client is None:
                self._known.client = connect(self.uri)
            with refusals_in_words(self.uri):
                yield self._known.client
        except BaseException:
            self._known = _Known()
            raise

    def _sweep_record(self) -> SweepRecord:
        if self._sweep is None:
            self._sweep = read_sweep_record(self._directory)
        return self._sweep

    def _experiment_id(self, client: MlflowClient) -> str:
        if not self._known.experiment_id:
            found = client.get_experiment_by_name(self._experiment)
            if found is None:
                self._known.experiment_id = client.create_experiment(self._experiment, self._artifacts, _KIND)
                return self._known.experiment_id
            if self._artifacts not in (None, found.artifact_location) and not self._warned:
                self._warned = True
                _log.warning(
                    "MLflow experiment %s keeps its files in %s, not in %s: their place was fixed when it was made. "
                    "Give the tracker another `experiment`.", self._experiment, found.artifact_location, self._artifacts
                )  # fmt: skip
            self._known.experiment_id = found.experiment_id
        return self._known.experiment_id

    def _parent(self, client: MlflowClient) -> KnownRun:
        """The sweep's run and, on first contact, those of its trials; the sweep's run is made when there is none."""
        if self._known.parent is None:
            sweep = self._sweep_record()
            identity = sweep_id(self._directory, sweep)
            runs = self._find(client, f"tags.sweep_id = '{identity}' AND tags.role = 'sweep'")
            parent = next(iter(runs), None)
            if parent is None:
                tags = {"sweep_id": identity, "role": "sweep"}
                parent = KnownRun.create(client, self._experiment_id(client), sweep.name, sweep.created, tags)
            trials = self._find(client, f"tags.`mlflow.parentRunId` = '{parent.run_id}'")
            self._known.trials = {run.tags.get("trial_key", ""): run for run in trials}
            self._known.parent = parent
        return self._known.parent

    def _trial(self, client: MlflowClient, record: TrialRecord) -> KnownRun:
        parent = self._parent(client)
        run = self._known.trials.get(record.key)
        if run is None:
            name, started = run_name(record, self._sweep_record().tasks), record.started or time.time()
            tags = {"role": "trial", "trial_key": record.key, "mlflow.parentRunId": parent.run_id}
            run = KnownRun.create(client, self._experiment_id(client), name, started, tags)
            self._known.trials[record.key] = run
            if len(self._known.trials) <= _OFTEN or time.monotonic() - self._noted > _NOTE_SECONDS:
                self._note_runs(client)
        self._run_ids[record.key] = run.run_id
        return run

    def _note_runs(self, client: MlflowClient) -> None:
        """Write `mlflow.json`, which a report's links are made of."""
        experiment, parent = self._experiment_id(client), self._parent(client).run_id
        if self._known.views is None:
            self._known.views = prepare_views(client, experiment, self._sweep_record(), parent)
        runs = {key: run.run_id for key, run in sorted(self._known.trials.items())}
        found = MlflowRuns(pages_of(self.uri), experiment, parent, runs, self._known.views)
        write_mlflow_runs(self._directory, found)
        self._noted = time.monotonic()

    def _find(self, client: MlflowClient, condition: str) -> list[KnownRun]:
        found = find_runs(client, [self._experiment_id(client)], condition)
        return [KnownRun.of(client, run) for run in found]
