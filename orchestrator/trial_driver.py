"""One trial in a Tune actor: `step` trains to the next report and gives it to the driver.

The actor is reused for the next trial (`reset_config`); nothing of a trial outlives it in the process, since every
random draw is a function of the trial's own seed. What goes wrong in the trial comes back as a result with its reason,
so that only the death of the process looks like a death.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ray import tune

from hrm.context import Compile, LocalContext
from hrm.data.dataset import fetch_dataset
from hrm.errors import StorageError
from hrm.legs import Leg
from hrm.records import Report, TrialResult
from hrm.remote import Archive, node_cache
from hrm.saving import LOG, log_of
from hrm.spec import parse_spec
from hrm.train import LegEnded, StopRequested, train
from hrm.trial import TrialSpec
from orchestrator.failures import PreemptedError, describe
from orchestrator.gpu_memory import limit_to_share
from orchestrator.heart import HEART
from orchestrator.jobs import Job
from orchestrator.node import node_metrics

STOP_POLL_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sweep's trials find their files and what they run on (plain data, goes to every worker)."""

    sweep_directory: str
    data_root: str
    stop_file: str
    threads: int
    compile: Compile
    gpu_share: float = 0.0
    """GPUs per worker; below 1 the share of one GPU's memory that a worker may take."""
    hang_seconds: float | None = None
    """After so long without a step a worker is ended."""

    store: str = ""
    """The URI of the sweep's store, where workers share no disk with the driver; empty: they share the directory."""

    @property
    def sweep(self) -> str:
        """The sweep's name."""
        return Path(self.sweep_directory).name

    @property
    def slots(self) -> str:
        """Where Ray Train keeps its own notes: a place that every node reaches."""
        if self.store:
            return str(_opened(self.store).at("sweeps", self.sweep, "slots"))
        return str(Path(self.sweep_directory) / "slots")

    def trial_directory(self, key: str) -> Path:
        """As SweepStore lays it out; with a store, in this node's cache."""
        own = f"{self.sweep}-{hashlib.sha256(self.store.encode()).hexdigest()[:8]}"
        sweep = node_cache() / "sweeps" / own if self.store else Path(self.sweep_directory)
        return sweep / "trials" / key


class ProcessContext(LocalContext):
    """One worker in its own process: looks for the sweep's stop file now and then, samples its node."""

    def __init__(self, place: Place, job: Job) -> None:
        super().__init__(
            place.trial_directory(job.key),
            node_cache() / "data" if place.store else Path(place.data_root),
            threads=place.threads,
            compile=place.compile,
            attempt=job.attempt,
        )
        self._store = _opened(place.store) if place.store else None
        self.archive = self._store and self._store.at("sweeps", place.sweep, "trials")
        self._key, self._hang_seconds = job.key, place.hang_seconds
        self._stop_file = Path(place.stop_file)
        self._gpu_share = place.gpu_share
        self._next_look = 0.0

    def should_stop(self) -> bool:
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + STOP_POLL_SECONDS
        return bool(HEART.told) or self._stop_file.exists()

    def beat(self) -> None:
        HEART.beat()

    def system_metrics(self) -> dict[str, float]:
        return node_metrics()

    def prepare(self) -> None:
        """Make the place ready for a trial, inside of its log; what is wrong with it is raised here."""
        HEART.take(self._key, self.attempt, self.rank, self._hang_seconds, self.trial_directory / "log.txt")
        if note := limit_to_share(self.device, self._gpu_share):
            logging.getLogger("hrm").info(note)

    def fetch(self, trial: TrialSpec) -> TrialSpec:
        """Bring what the trial reads from the store to this node, where there is one; the trial that reads it here."""
        if self._store is None:
            return trial
        fetch_dataset(trial.task, self.data_root, self._store.at("data"))
        start = trial.initialize_from
        if start is None:
            return trial
        path = node_cache() / "starts" / start.sha256
        self._store.at("starts").fetch(start.sha256, path)
        return trial.model_copy(update={"initialize_from": start.model_copy(update={"path": str(path)})})

    def publish_log(self) -> None:
        """Send the attempt's log to the store, where there is one."""
        if self.archive is not None and self.rank == 0:
            with contextlib.suppress(StorageError):  # what the attempt ended with says more
                self.archive.at(self._key).upload_file(self.trial_directory / LOG, log_of(self.attempt))


@functools.cache
def _opened(uri: str) -> Archive:
    """One connection for all trials of a process."""
    return Archive(uri)


Reports = Generator[Report, None, TrialResult]


def run_job(job: Job, context: ProcessContext) -> Reports:
    """The trial's training in this process, with its log file."""
    spec = parse_spec(TrialSpec, job.spec, job.key)
    try:
        with log_to(context.trial_directory / LOG):
            logging.getLogger("hrm").info("attempt %d of %s begins", job.attempt, job.key)
            context.prepare()
            trial, leg = context.fetch(spec), Leg(**job.leg)
            return (yield from train(trial, context, known_reports=job.known_reports, test=job.test, leg=leg))
    finally:
        context.publish_log()


@contextlib.contextmanager
def log_to(path: Path) -> Generator[None]:
    """What `hrm` logs goes to the trial's own file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("hrm")
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    try:
        yield
    except StopRequested:
        logger.info("the attempt has saved and leaves")
        raise
    except Exception:
        logger.exception("the attempt ended with an error")
        raise
    finally:
        logger.removeHandler(handler)
        handler.close()


def outcome(reports: Reports) -> dict[str, Any]:
    """The next event of a training as plain data: `report`, `result`, `arrived`, `stopped` or `failure`."""
    try:
        with HEART.at_work():
            return {"report": next(reports).to_json()}
    except StopIteration as end:
        event: dict[str, Any] = {"result": json.dumps(asdict(end.value))}
    except LegEnded:
        event = {"arrived": True}
    except StopRequested:
        event = {"stopped": True}
    except Exception as error:
        event = {"failure": json.dumps(asdict(describe(error)))}
    HEART.drop()
    return {**event, "done": True}


class TrialProcess(tune.Trainable):
    """The Tune actor for one-worker trials."""

    @classmethod
    def default_resource_request(cls, config: dict[str, Any]) -> tune.PlacementGroupFactory:
        return tune.PlacementGroupFactory([{"CPU": float(config["resources"]["cpus_per_worker"])}])

    def setup(self, config: dict[str, Any]) -> None:
        HEART.leave_on_sigterm()
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        job = Job(**json.loads(config["job"]))
        self._place = Place(**config["place"])
        self._reports = run_job(job, ProcessContext(self._place, job))

    def __repr__(self) -> str:
        """What the Ray dashboard and Ray's logs call it; Ray asks once, so a reused process is named by its sweep."""
        return f"{self._place.sweep}: trial process"

    def step(self) -> dict[str, Any]:
        event = outcome(self._reports)
        if "stopped" in event and HEART.told == "leave":
            raise PreemptedError("the process was told to leave, and has saved")  # so that Tune does not use it again
        return event

    def cleanup(self) -> None:
        self._reports.close()
