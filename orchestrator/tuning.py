"""The thin layer between the ledger and Ray Tune: a searcher that asks for jobs, a scheduler that logs reports.

Tune executes and decides nothing. One Tune trial is one attempt at one of our trials; Tune's random ids, its snapshots,
loggers and `Tuner.restore` are not used.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from ray import tune
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from hrm.errors import InfrastructureError
from hrm.records import Progress, Report, TrialResult
from orchestrator.failures import Failure
from orchestrator.ledger import Job, Ledger, SameFailureError
from orchestrator.resources import ResourceSpec
from orchestrator.trial_driver import Place, TrialProcess


class LedgerSearcher(Searcher):
    """Hands out the ledger's jobs and tells it how they ended."""

    def __init__(self, ledger: Ledger, config: Callable[[Job], dict[str, Any]], concurrency: int) -> None:
        super().__init__(metric=None, mode=None)
        self.ledger, self._config, self._concurrency = ledger, config, concurrency
        self.keys: dict[str, str] = {}
        self.pruned: set[str] = set()
        self.aborted: SameFailureError | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Tune pickles its searcher into a snapshot that nobody reads."""
        return {}

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]
        if self.aborted:
            self.ledger.stopping = True
        if len(self.ledger.live) >= self._concurrency:
            return None
        job = self.ledger.next_job()
        if job is not None:
            self.keys[trial_id] = job.key
            return self._config(job)
        return Searcher.FINISHED if self.ledger.is_finished() else None

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Reports reach the ledger through the scheduler, which Tune asks first."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        key = self.keys.pop(trial_id, None)
        if key is None:
            return
        result = result or {}
        try:
            if error:
                self.ledger.on_failed(key, Failure("infrastructure", "worker_lost: the trial's process died"))
            elif trial_id in self.pruned:
                self.ledger.on_pruned(key)
            elif "result" in result:
                data = json.loads(result["result"])
                self.ledger.on_completed(key, TrialResult(**{**data, "progress": Progress(**data["progress"])}))
            elif "failure" in result:
                self.ledger.on_failed(key, Failure(**json.loads(result["failure"])))
            else:
                self.ledger.on_stopped(key)
        except SameFailureError as reason:
            self.aborted = reason
            self.ledger.store.request_stop()

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the log."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is the log."""


class LedgerScheduler(FIFOScheduler):
    """Logs each report in the ledger and stops what its pruner ends."""

    def __init__(self, searcher: LedgerSearcher) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._searcher = searcher

    def __getstate__(self) -> dict[str, Any]:
        """As the searcher's."""
        return {}

    def on_trial_result(self, tune_controller: TuneController, trial: Trial, result: dict[str, Any]) -> str:
        if "report" in result:
            report = Report.from_dict(json.loads(result["report"]))
            if self._searcher.ledger.on_report(self._searcher.keys[trial.trial_id], report):
                self._searcher.pruned.add(trial.trial_id)
                return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)


def execute(ledger: Ledger, place: Place, concurrency: int) -> str:
    """Run the ledger's jobs until nothing is left or it is stopped. Gives the reason if the sweep gave up.

    Needs a connected Ray; raises InfrastructureError. Trial processes are reused, so that a trial starts at once.
    """
    resources = ledger.experiment.spec.resources

    def config(job: Job) -> dict[str, Any]:
        return {"job": json.dumps(asdict(job)), "place": asdict(place), "resources": resources.model_dump()}

    searcher = LedgerSearcher(ledger, config, concurrency)
    scratch = tempfile.mkdtemp(prefix="tune-")
    try:
        tune.Tuner(
            _trainable(resources),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=LedgerScheduler(searcher),
                num_samples=-1,
                reuse_actors=resources.isolation == "shared",
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=scratch,
                verbose=0,
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        shutil.rmtree(ledger.store.directory / "slots", ignore_errors=True)
    if searcher.aborted:
        return str(searcher.aborted)
    if not ledger.is_finished():
        raise InfrastructureError("Ray Tune ended before the sweep did; the same command goes on")
    return ""


def _trainable(resources: ResourceSpec) -> type[tune.Trainable]:
    """The Tune actor of the launcher. A slot's actor itself takes no CPU: its Ray Train workers do, and an actor that
    held one would wait for them for ever on a small machine."""
    trainable: type[tune.Trainable]
    if resources.resolved_launcher == "in_process":
        trainable, needs = TrialProcess, {"CPU": float(resources.cpus_per_worker)}
    else:
        from orchestrator.slot import SlotTrial

        trainable, needs = SlotTrial, {"memory": 1e6}
    bound: type[tune.Trainable] = tune.with_resources(trainable, tune.PlacementGroupFactory([needs]))
    return bound
