"""One run in MLflow as far as it is known, and how it is brought up to date: nothing is written twice."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

from orchestrator.trackers.mlflow_view import MARKER, Point, batches_of, milliseconds

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

_log = logging.getLogger(__name__)
_METRICS_PER_BATCH = 1000
_ENTRIES_PER_BATCH = 100
_LONGEST_DIGEST = 36


@dataclass(slots=True)
class KnownRun:
    """What is known of a run in MLflow."""

    client: MlflowClient
    run_id: str
    status: str = "RUNNING"
    end_time: int | None = None
    tags: dict[str, str] = field(default_factory=dict)
    parameters: set[str] = field(default_factory=set)
    last_step: int | None = None
    """None: not asked yet."""
    has_data: bool = False
    """Whether it says on which dataset it is."""

    @classmethod
    def of(cls, client: MlflowClient, run: Run) -> Self:
        """A run that MLflow has found."""
        known = cls(client, run.info.run_id, run.info.status, run.info.end_time)
        known.tags, known.parameters = dict(run.data.tags), set(run.data.params)
        known.has_data = bool(run.inputs and run.inputs.dataset_inputs)
        return known

    @classmethod
    def create(cls, client: MlflowClient, experiment_id: str, name: str, started: float, tags: dict[str, str]) -> Self:
        """A new run. The tags by which it is found again are part of its creation: a kill cannot come between."""
        run = client.create_run(experiment_id, start_time=milliseconds(started), tags=dict(tags), run_name=name)
        return cls(client, run.info.run_id, tags=dict(tags), last_step=-1)

    def describe(self, parameters: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Log the parameters that the run lacks (MLflow's are immutable) and the tags that changed."""
        from mlflow.entities import Param, RunTag

        new = {key: value for key, value in parameters.items() if key not in self.parameters}
        for keys in _chunks(list(new), _ENTRIES_PER_BATCH):
            self.client.log_batch(self.run_id, params=[Param(key, new[key]) for key in keys])
        changed = {key: value for key, value in tags.items() if self.tags.get(key, "") != value}
        for keys in _chunks(list(changed), _ENTRIES_PER_BATCH):
            self.client.log_batch(self.run_id, tags=[RunTag(key, changed[key]) for key in keys])
        self.parameters |= set(new)
        self.tags |= changed

    def name_data(self, name: str, fingerprint: str) -> None:
        """Say, once, on which dataset the run is: MLflow shows it in a column of its own."""
        from mlflow.entities import Dataset, DatasetInput

        if not self.has_data and fingerprint:
            data = Dataset(name, fingerprint[:_LONGEST_DIGEST], source_type="local", source=name)
            self.client.log_inputs(self.run_id, [DatasetInput(data)])
            self.has_data = True

    def set_status(self, status: str, end_time: int | None = None) -> None:
        """RUNNING, FINISHED, KILLED, ...; with a time, the run has ended."""
        if (self.status, self.end_time) == (status, end_time):
            return
        if end_time is not None:
            self.client.set_terminated(self.run_id, status, end_time)
        elif self.status != status:
            self.client.update_run(self.run_id, status)
        self.status, self.end_time = status, end_time

    def settle(self) -> None:
        """The run has ended: only its end is remembered, so that ten thousand of them weigh little."""
        self.tags, self.parameters = {"state": self.tags["state"]}, set()

    def send_points(self, points: Sequence[Point]) -> None:
        """Log the steps after the last one that MLflow has."""
        if self.last_step is None:
            history = self.client.get_metric_history(self.run_id, MARKER)
            self.last_step = max((metric.step for metric in history), default=-1)
        last = self.last_step
        self.log_points(point for point in points if point.step > last)
        self.last_step = max([last, *(point.step for point in points)])

    def log_points(self, points: Iterable[Point]) -> None:
        """Log these points, whatever MLflow has."""
        from mlflow.entities import Metric

        for batch in batches_of(points, _METRICS_PER_BATCH):
            metrics = [
                Metric(key, value, milliseconds(point.time), point.step)
                for point in batch
                for key, value in point.metrics.items()
            ]
            self.client.log_batch(self.run_id, metrics=metrics)

    def send_file(self, path: Path, inside: Path) -> None:
        """A file goes to the root, a folder below `inside` under its own path in it, any other under its name."""
        if path.is_file():
            self.client.log_artifact(self.run_id, str(path))
        elif path.is_dir():
            within = path.absolute().is_relative_to(inside)
            place = path.absolute().relative_to(inside) if within else Path(path.name)
            self.client.log_artifacts(self.run_id, str(path), place.as_posix())
        else:
            _log.warning("%s: does not exist and was not sent to MLflow.", path)


def _chunks(items: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
