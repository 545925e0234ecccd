"""The thin layer between the ledger and Ray Tune: a searcher that asks for jobs, a scheduler that logs reports.

Tune executes and decides nothing. One Tune trial is one attempt at one of our trials; Tune's random ids, its snapshots,
loggers and `Tuner.restore` are not used.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Callable, Generator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ray import cloudpickle, tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from hrm.errors import InfrastructureError
from hrm.records import Progress, Report, TrialResult
from orchestrator.failures import WORKER_LOST, Failure, SameFailureError, lost
from orchestrator.jobs import Job
from orchestrator.lease import LeaseLostError
from orchestrator.ledger import Ledger
from orchestrator.limits import LimitReachedError
from orchestrator.resources import Resources
from orchestrator.trial_driver import Place, TrialProcess
from orchestrator.watch import Watch


class LedgerSearcher(Searcher):
    """Hands out the ledger's jobs and tells it how they ended.

    What the ledger raises would be lost in Tune, which takes it for the failure of a trial: it is kept here.
    """

    def __init__(self, ledger: Ledger, config: Callable[[Job], dict[str, Any]], watch: Watch) -> None:
        super().__init__(metric=None, mode=None)
        self.ledger, self._config, self._watch = ledger, config, watch
        self.keys: dict[str, str] = {}
        self.pruned: set[str] = set()
        self.errors: dict[str, BaseException | None] = {}
        self.aborted: SameFailureError | LimitReachedError | InfrastructureError | None = None
        """Why the sweep ends itself: its trials save and leave."""
        self.broken: Exception | None = None
        """Why the ledger cannot go on: everything ends at once, and the ledger is not asked again."""

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher into a snapshot that nobody reads."""
        return {}

    @property
    def concurrency(self) -> int:
        """How many trials may run at once now."""
        return self._watch.concurrency

    @contextlib.contextmanager
    def committing(self) -> Generator[None]:
        """Around every call of the ledger."""
        try:
            yield
        except LeaseLostError as error:
            self.broken = error
        except (SameFailureError, LimitReachedError, InfrastructureError) as reason:
            self.aborted = self.aborted or reason
            self.ledger.stopping = True
            try:
                self.ledger.store.request_stop()
            except OSError as error:
                self.broken = error
        except Exception as error:
            self.broken = error

    def look(self) -> None:
        """See how the workers and the cluster are, and what was spent."""
        with self.committing():
            self._watch.look()
            if not self.aborted:
                self.ledger.check_limits()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        self.look()  # where nothing runs, Tune asks here and calls nobody back
        with self.committing():
            if self.broken or (len(self.ledger.live) >= self.concurrency and not self.ledger.stopping):
                return None
            job = self.ledger.next_job()
            if job is not None:
                self.keys[trial_id] = job.key
                return self._config(job)
            return Searcher.FINISHED if self.ledger.is_finished() else None
        return None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Reports reach the ledger through the scheduler, which Tune asks first."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        key = self.keys.pop(trial_id, None)
        if key is not None and not self.broken:
            with self.committing():
                self._end(key, trial_id, {"failure": self._lost(key, trial_id)} if error else result or {})

    def _end(self, key: str, trial_id: str, result: dict[str, Any]) -> None:
        if trial_id in self.pruned:
            self.ledger.on_pruned(key)
        elif "result" in result:
            data = json.loads(result["result"])
            self.ledger.on_completed(key, TrialResult(**{**data, "progress": Progress(**data["progress"])}))
        elif "failure" in result:
            failure = Failure(**json.loads(result["failure"]))
            hang = self._watch.hang(key) if failure.reason.startswith(WORKER_LOST) else ""
            self.ledger.on_failed(key, replace(failure, reason=hang) if hang else failure)
        elif "arrived" in result:
            self.ledger.on_arrived(key)
        else:
            self.ledger.on_stopped(key)

    def _lost(self, key: str, trial_id: str) -> str:
        """The failure of a trial whose Tune actor died, as a worker would have told it."""
        self._watch.free(key)
        return json.dumps(asdict(lost(self.errors.pop(trial_id, None))))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the log."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is the log."""


class LedgerScheduler(FIFOScheduler):
    """Logs each report in the ledger and stops what its pruner ends."""

    def __init__(self, searcher: LedgerSearcher) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._searcher, self._kept = searcher, 0

    def __getstate__(self) -> dict[str, Any]:
        """As the searcher's."""
        return {}

    def on_trial_add(self, tune_controller: TuneController, trial: Trial) -> None:
        """Let Tune keep all processes while trials wait for each other (a generation, a round of a population). It
        would keep one, and start the others anew."""
        wanted = self._searcher.concurrency
        tune_controller._actor_cache.increase_max(trial.placement_group_factory, wanted - self._kept)
        self._kept = wanted

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        if "report" not in result:
            return str(TrialScheduler.CONTINUE)
        if not self._searcher.broken:
            with self._searcher.committing():
                report = Report.from_dict(json.loads(result["report"]))
                if not self._searcher.ledger.on_report(self._searcher.keys[trial.trial_id], report):
                    return str(TrialScheduler.CONTINUE)
                self._searcher.pruned.add(trial.trial_id)
        return str(TrialScheduler.STOP)  # pruned, or not logged: a checkpoint holds its last report only

    def on_trial_error(self, tune_controller: TuneController, trial: Trial) -> None:
        """Tune tells the searcher next, without the exception: it has just put that into a file."""
        file = trial.pickled_error_file
        error = cloudpickle.loads(Path(file).read_bytes()) if file and Path(file).exists() else None
        self._searcher.errors[trial.trial_id] = error


class _Broken(tune.Stopper):
    """Ends everything at once when the ledger cannot go on."""

    def __init__(self, searcher: LedgerSearcher) -> None:
        self._searcher = searcher

    def __getstate__(self) -> dict[str, Any]:
        """As the searcher's."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self._searcher.broken is not None


class _Looks(tune.Callback):
    """Lets the watch look while trials run."""

    def __init__(self, searcher: LedgerSearcher) -> None:
        self._searcher = searcher

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        self._searcher.look()


def execute(
    ledger: Ledger,
    place: Place,
    resources: Resources,
    concurrency: int,
    waiting: Callable[[str], None] = lambda message: None,
    trainable: type[tune.Trainable] | None = None,
) -> str:
    """Run the ledger's jobs until nothing is left or it is stopped. Gives the reason if the sweep gave up.

    Needs a connected Ray; raises InfrastructureError, ConnectionError, OSError. Trial processes are reused, so that a
    trial starts at once. waiting: is told what the sweep waits for. trainable: a Tune actor in the place of the
    launcher's, with its resources.
    """

    def config(job: Job) -> dict[str, Any]:
        return {"job": json.dumps(asdict(job)), "place": asdict(place), "resources": resources.model_dump()}

    searcher = LedgerSearcher(ledger, config, Watch(ledger, resources, concurrency, waiting))
    scratch = tempfile.mkdtemp(prefix="tune-")
    try:
        tune.Tuner(
            trainable or _trainable(resources),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=LedgerScheduler(searcher),
                num_samples=-1,
                reuse_actors=resources.isolation == "shared",
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=scratch,
                stop=_Broken(searcher),
                callbacks=[_Looks(searcher)],
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(ledger.store.directory / "slots", ignore_errors=True)
    if searcher.broken:
        raise searcher.broken
    if isinstance(searcher.aborted, InfrastructureError):
        raise searcher.aborted
    if searcher.aborted:
        return str(searcher.aborted)
    if not ledger.is_finished():
        raise InfrastructureError("Ray Tune ended before the sweep did; the same command goes on")
    return ""


def _trainable(resources: Resources) -> type[tune.Trainable]:
    """The Tune actor of the launcher. It says itself what it needs: `tune.with_resources` would hide its name in the
    Ray dashboard."""
    if resources.resolved_launcher == "in_process":
        return TrialProcess
    from orchestrator.slot import SlotTrial

    return SlotTrial
