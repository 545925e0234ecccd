"""One trial in a Tune actor: `step` trains to the next report and gives it to the driver.

The actor is reused for the next trial (`reset_config`); nothing of a trial outlives it in the process, since every
random draw is a function of the trial's own seed. What goes wrong in the trial comes back as a result with its reason,
so that only the death of the process looks like a death.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ray import tune

from hrm.context import Compile, LocalContext
from hrm.records import Report, TrialResult
from hrm.spec import parse_spec
from hrm.train import StopRequested, train
from hrm.trial import TrialSpec
from orchestrator.failures import describe
from orchestrator.ledger import Job
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

    def trial_directory(self, key: str) -> Path:
        """As SweepStore lays it out."""
        return Path(self.sweep_directory) / "trials" / key


class ProcessContext(LocalContext):
    """One worker in its own process: looks for the sweep's stop file now and then, samples its node."""

    def __init__(self, place: Place, job: Job) -> None:
        super().__init__(
            place.trial_directory(job.key),
            Path(place.data_root),
            threads=place.threads,
            compile=place.compile,
            attempt=job.attempt,
        )
        self._stop_file = Path(place.stop_file)
        self._next_look = 0.0

    def should_stop(self) -> bool:
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + STOP_POLL_SECONDS
        return self._stop_file.exists()

    def system_metrics(self) -> dict[str, float]:
        return node_metrics()


Reports = Generator[Report, None, TrialResult]


def run_job(job: Job, context: LocalContext) -> Reports:
    """The trial's training in this process, with its log file."""
    spec = parse_spec(TrialSpec, job.spec, job.key)
    with log_to(context.trial_directory / "log.txt"):
        logging.getLogger("hrm").info("attempt %d of %s begins", job.attempt, job.key)
        return (yield from train(spec, context, known_reports=job.known_reports, test=job.test))


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
    except Exception:
        logger.exception("the attempt ended with an error")
        raise
    finally:
        logger.removeHandler(handler)
        handler.close()


def outcome(reports: Reports) -> dict[str, Any]:
    """The next event of a training as plain data: `report`, `result`, `stopped` or `failure`."""
    try:
        return {"report": next(reports).to_json()}
    except StopIteration as end:
        return {"result": json.dumps(asdict(end.value)), "done": True}
    except StopRequested:
        return {"stopped": True, "done": True}
    except Exception as error:
        return {"failure": json.dumps(asdict(describe(error))), "done": True}


class TrialProcess(tune.Trainable):
    """The Tune actor for one-worker trials."""

    def setup(self, config: dict[str, Any]) -> None:
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        job = Job(**json.loads(config["job"]))
        self._reports = run_job(job, ProcessContext(Place(**config["place"]), job))

    def step(self) -> dict[str, Any]:
        return outcome(self._reports)

    def cleanup(self) -> None:
        self._reports.close()
