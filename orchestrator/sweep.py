"""A sweep from start to answer: check, build data, connect, run every trial, report. Running it again resumes it."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ray.exceptions import RayError
from ray.tune import TuneError

from analysis.records import SweepRecord
from analysis.report import Report as SweepReport
from analysis.report import write_report
from analysis.sweep import Sweep
from hrm.data.dataset import open_dataset
from hrm.errors import InfrastructureError
from hrm.provenance import code_version, environment
from hrm.remote import Archive
from hrm.tasks import TaskSpec
from orchestrator.changes import check_changes
from orchestrator.cluster.connect import OWN, Where, connect
from orchestrator.disk import check_disk
from orchestrator.experiment import Experiment
from orchestrator.fetched import checkpoint_folder, sweep_with_rows
from orchestrator.importance import search_findings
from orchestrator.leaders import leaders_of
from orchestrator.ledger import Ledger
from orchestrator.limits import check_energy
from orchestrator.matching import how_well, reference_arm
from orchestrator.metrics import exporting
from orchestrator.recipes import task_of
from orchestrator.reporting import for_trackers
from orchestrator.signals import stop_on_signals
from orchestrator.store import SweepStore, publish
from orchestrator.trackers.mirror import Mirror
from orchestrator.trial_driver import Place
from orchestrator.tuning import execute
from orchestrator.validation import check_built, with_data
from orchestrator.view import NotingView, View
from orchestrator.warm_start import earlier_sweeps

CATCH_UP_SECONDS = 10.0
"""How long the report waits for its trackers to know all runs."""
MIRROR_SECONDS = 60.0
"""How long the end of a sweep waits for its trackers."""


@dataclass(frozen=True, slots=True)
class SweepOutcome:
    """How a run of the driver ended."""

    report: SweepReport
    directory: Path
    complete: bool
    """False: stopped, or given up; the same command goes on."""
    gave_up: str
    """Why the sweep ended itself, if it did."""
    failed_trials: int
    notes: list[str]
    """What a tracker misses."""


def run_sweep(
    experiment: Experiment,
    storage: Path,
    where: Where = OWN,
    view: View | None = None,
    store_uri: str | None = None,
) -> SweepOutcome:
    """Run or resume a sweep. Raises SpecError (nothing was run), InfrastructureError (the cluster failed)."""
    store = SweepStore(storage, experiment.name, Archive(store_uri) if store_uri else None)
    store.open()
    view = NotingView(view or View(), store.directory)
    try:
        view.waiting("Building the data")
        experiment = with_data(_as_it_began(experiment, store), store.data_root)
        record = _sweep_record(experiment, store)
        view.measured(how_well(record.costs, reference_arm(experiment.spec), experiment.spec.budget))
        if store.root is None:
            check_disk(experiment, store)
        publish(experiment, store)
        trackers = [spec.build(store.directory, store.storage) for spec in experiment.spec.trackers]
        mirrors = [Mirror(tracker, store.directory) for tracker in trackers]
        clock = _Clock(store, record, mirrors)
        ledger = Ledger(experiment, store, [clock, *mirrors])
        clock.ledger = ledger
        ledger.meter.elapsed = clock.elapsed
        gave_up = ledger.meter.reached(ledger.records.values())
        if not ledger.is_complete() and not gave_up:
            view.noticed(ledger.meter.outlook(ledger.records.values(), ledger.planned_trials))
            with stop_on_signals(store.request_stop):
                gave_up = _run(ledger, store, where, view, [t.ui_command for t in trackers])
            ledger.keeping.sweep(ledger.lines)
        clock.write(finished=ledger.is_complete())
        store.commit()
        view.waiting("Writing the report")
        for mirror in mirrors:
            mirror.catch_up(CATCH_UP_SECONDS)  # the report links to the tracker's runs
        sweep = sweep_with_rows(store.directory)
        report = write_report(sweep, store.directory, search_findings(sweep))
        notes = _close(mirrors, store, sweep, report)
        failed = sum(r.state == "failed" for r in ledger.records.values())
        complete = ledger.is_complete()
        view.waiting("")
        return SweepOutcome(report, store.directory, complete, "" if complete else gave_up, failed, notes)
    finally:
        store.close()


def _as_it_began(experiment: Experiment, store: SweepStore) -> Experiment:
    """The experiment; of a sweep that goes on with the digests that its sources had, so that it does not need them."""
    if not store.exists():
        return experiment
    began = {name: task_of(facts["recipe"], name) for name, facts in store.read_sweep().datasets.items()}
    tasks = {
        name: began[name] if name in began and _undigested(began[name]) == _undigested(task) else task
        for name, task in experiment.tasks.items()
    }
    return replace(experiment, tasks=tasks)


def _undigested(task: TaskSpec) -> Any:
    """What the recipe's file says, without what was found out about the data."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without(inner) for key, inner in value.items() if key not in ("sha256", "fingerprint")}
        return [without(inner) for inner in value] if isinstance(value, list) else value

    return without(task.model_dump(mode="json"))


def _sweep_record(experiment: Experiment, store: SweepStore) -> SweepRecord:
    """Check the arms on the built data; write `sweep.json`, or check that the one that is there asks the same."""
    datasets = {name: _facts(task, store) for name, task in experiment.tasks.items()}
    costs = check_built(experiment, store.data_root)
    spec = experiment.spec
    planned = len(experiment.arms) * (spec.search.trials + spec.replicas.seeds * spec.replicas.configurations)
    if store.exists():
        fingerprints = {name: facts["fingerprint"] for name, facts in datasets.items()}
        more = check_changes(spec, store, fingerprints)
        record = store.read_sweep()
        if more:
            record = replace(record, planned_trials=planned, finished=False)
        return replace(record, experiment=spec.model_dump(mode="json"), question=spec.question, costs=costs)
    earlier_sweeps(experiment, store)
    record = SweepRecord(
        name=experiment.name,
        question=spec.question,
        experiment=spec.model_dump(mode="json"),
        arms=list(spec.arms),
        tasks=list(experiment.tasks),
        metric=spec.objective.metric,
        direction=spec.objective.direction,
        budget=spec.budget.model_dump(mode="json"),
        planned_trials=planned,
        datasets=datasets,
        command=" ".join(["python", "-m", "orchestrator", *sys.argv[1:]]),
        code=code_version(),
        environment=environment(),
        created=time.time(),
        costs=costs,
        store=store.root.uri if store.root else "",
    )
    store.write_sweep(record)
    return record


def _facts(task: TaskSpec, store: SweepStore) -> dict[str, Any]:
    manifest = open_dataset(task, store.data_root).manifest
    return {
        "recipe": task.model_dump(mode="json"),
        "fingerprint": manifest.fingerprint,
        "rows": dict(manifest.rows),
        "facts": manifest.facts,
    }


class _Clock:
    """Keeps the driver's working time in `sweep.json`: a kill loses what has passed since a trial last moved."""

    def __init__(self, store: SweepStore, record: SweepRecord, mirrors: list[Mirror]) -> None:
        self._store, self._record, self._mirrors = store, record, mirrors
        self._began = self._written = time.monotonic()
        self.ledger: Ledger | None = None
        """Knows how many trials there will be after all."""

    def changed(self, key: str) -> None:
        """A trial moved: the driver is at work."""
        if time.monotonic() - self._written > 5.0:
            self.write(finished=False)

    def elapsed(self) -> float:
        """Seconds that a driver was at work, over all starts."""
        return self._record.elapsed_seconds + time.monotonic() - self._began

    def write(self, finished: bool) -> None:
        """Write the time so far."""
        self._written = time.monotonic()
        if self._record.finished:  # nothing was left to do
            return
        record = replace(self._record, elapsed_seconds=self.elapsed(), finished=finished)
        if self.ledger:
            plan = self.ledger.plan
            record = replace(record, planned_trials=plan.planned_trials, exhausted=sorted(plan.exhausted))
        self._store.write_sweep(record)
        for mirror in self._mirrors:
            mirror.changed_sweep()


def _run(ledger: Ledger, store: SweepStore, where: Where, view: View, ui_commands: list[str]) -> str:
    """Run jobs on Ray until nothing is left or the sweep is stopped. Gives the reason if it gave up."""
    view.waiting("Starting Ray")
    try:
        with (
            connect(where, store.stop_file.exists) as cluster,
            stop_on_signals(store.request_stop),  # again: Ray has put its own handler of SIGTERM in the place of ours
            exporting(ledger),
        ):
            resources = ledger.experiment.spec.resources.resolved(cluster.nodes)
            concurrency = resources.concurrency(cluster.nodes)
            check_energy(ledger.experiment.spec.limits, resources.gpus_per_worker)
            ledger.meter.cpus = float(resources.workers_per_trial * resources.cpus_per_worker)
            ledger.meter.gpus = resources.workers_per_trial * resources.gpus_per_worker
            place = Place(
                str(store.directory),
                str(store.data_root),
                str(store.stop_file),
                threads=resources.cpus_per_worker,
                compile=resources.compile,
                gpu_share=resources.gpus_per_worker,
                hang_seconds=resources.hang_seconds,
                store=store.root.uri if store.root else "",
            )
            view.started(ledger, cluster, concurrency, ui_commands)
            try:
                return execute(ledger, place, resources, concurrency, view.waiting)
            finally:
                view.ended()
    except (ConnectionError, RayError, TuneError) as error:
        raise InfrastructureError(f"the Ray cluster failed: {error}") from error


def _close(mirrors: list[Mirror], store: SweepStore, sweep: Sweep, report: SweepReport) -> list[str]:
    """Send the report, its figures and tables and the best checkpoints to the trackers; says what one misses."""
    artifacts = [store.directory / name for name in ("report.html", "report.md", "report.json")]
    if report.finished:
        best = [arm.best_checkpoint for arm in report.arms if arm.best_checkpoint]
        artifacts += [checkpoint_folder(name if store.root else str(store.directory / name)) for name in best]
    with TemporaryDirectory() as folder:
        artifacts += for_trackers(sweep, report, Path(folder)) if mirrors and report.finished else []
        for mirror in mirrors:
            mirror.finish(artifacts, leaders_of(report, store))
        sent = [mirror.close(MIRROR_SECONDS) for mirror in mirrors]
    return [
        f"a tracker does not have everything ({mirror.last_error}); the same command sends the rest"
        for mirror, complete in zip(mirrors, sent, strict=True)
        if not complete
    ]
