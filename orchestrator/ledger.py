"""What a sweep still has to do and what became of what it did: the rules, without any cluster.

The order of commits is always the same: the trial's records, then the study, then `trial.json` (a projection of the
study), then the trackers. A new ledger on an old directory replays it, so a driver may be killed between any two.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from analysis.records import Phase
from hrm.errors import InfrastructureError, TrialError
from hrm.records import Report, TrialResult
from orchestrator.experiment import Experiment
from orchestrator.failures import Failure, check_first, counts, decide, describe
from orchestrator.jobs import Job
from orchestrator.keeping import PHASES, Keeping
from orchestrator.limits import LimitReachedError, Meter
from orchestrator.lines import Line, open_lines
from orchestrator.objectives import Objectives
from orchestrator.planning import Asked, Planning
from orchestrator.projection import Listener, Projection
from orchestrator.store import SweepStore
from orchestrator.studies import open_journal

logger = logging.getLogger(__name__)


class Ledger:
    """The sweep's rules over its studies and files. Not thread-safe; used by the driver's main thread."""

    def __init__(self, experiment: Experiment, store: SweepStore, listeners: Iterable[Listener] = ()) -> None:
        self.experiment, self.store = experiment, store
        self._projection = Projection(store, experiment.spec.objective.direction, listeners)
        self.records, self.listeners = self._projection.records, self._projection.listeners
        self.reports: dict[str, Report] = {}
        """The last report of each trial."""
        self.live: set[str] = set()
        self.stopping = False
        self.meter = Meter(experiment.spec.limits, experiment.spec.prices)
        storage = open_journal(store.journal, store.check)
        spec = experiment.spec
        self.objectives = Objectives(spec.objective, spec.search.objectives, store.data_root)
        self.lines = open_lines(experiment, storage, store, self.objectives)
        self.plan = Planning(spec, self.lines, lambda line, number: self._project(line.key("replica", number)))
        self.keeping = Keeping(store, self.records, self.objectives.several)
        self._unusable: dict[str, Failure] = {}
        """Trials that are to leave because of what they reported."""
        self._places: dict[str, tuple[Line, Phase, int]] = {}
        self._queue: deque[str] = deque()
        with store.one_listing():
            for line in self.lines:
                self._replay(line)
        self.keeping.sweep(self.lines)
        self._projection.on_disk.clear()
        for line in self.lines:
            self._enter(line, self.plan.rest_of_generation(line))
            self._next_legs(line)

    # --- what to do next -------------------------------------------------------------------------------------------

    def next_job(self) -> Job | None:
        """The next attempt to start; None when there is nothing to start now."""
        if self.stopping or self.store.stop_file.exists():
            self.stopping = True
            return None
        if not self._queue:
            self._plan()
        return self._start(self._queue.popleft()) if self._queue else None

    def is_finished(self) -> bool:
        """True when nothing runs and nothing is left to do, or the sweep was asked to stop. May ask for new trials."""
        if self.live:
            return False
        if self.stopping:
            return True
        self._plan()
        return not self._queue

    def is_complete(self) -> bool:
        """True when every planned trial has ended. May ask for new trials."""
        self._plan()
        return not self.live and not self._queue

    def check_limits(self) -> None:
        """Raises LimitReachedError once the sweep has spent what it may."""
        reason = self.meter.reached(self.records.values())
        if reason:
            raise LimitReachedError(reason)

    @property
    def planned_trials(self) -> int:
        """How many trials the sweep will have, searches and replicas."""
        return self.plan.planned_trials

    def _plan(self) -> None:
        """Fill the queue from the line that has asked least; replicas of a line whose search has ended come first."""
        asked = -1
        while not self._queue and asked != (asked := len(self.records)):  # a proposal that is refused fills no queue
            for line in self.plan.turns():
                if not self._queue:
                    self._enter(line, self.plan.searches(line))
                if not self._queue:
                    self._enter(line, self.plan.repetitions(line))

    def _enter(self, line: Line, asked: Iterable[Asked]) -> None:
        """Trials that were logged: queue them, but for those that were refused."""
        for phase, number in asked:
            key = line.key(phase, number)
            self._places[key] = (line, phase, number)
            if not line.study(phase).trial(number).state.is_finished():
                self._queue.append(key)
            self._project(key)

    def _start(self, key: str) -> Job:
        line, phase, number = self._places[key]
        study = line.study(phase)
        attributes = study.trial(number).user_attrs
        attempt = int(attributes.get("attempts", 0)) + 1
        study.note(number, "attempts", attempt)
        if "started" not in attributes:
            study.note(number, "started", time.time())
        self.live.add(key)
        self.meter.begin(key)
        self._project(key)
        known = self.reports[key].index if key in self.reports else 0
        leg = asdict(line.population.leg(number)) if line.population and phase == "search" else {}
        return Job(key, attributes["spec"], attempt, known, test=phase == "replica", leg=leg)

    # --- what became of it -----------------------------------------------------------------------------------------

    def on_report(self, key: str, report: Report) -> bool:
        """Log a report. True if the trial is to leave: the pruner ends it, or its report cannot be used."""
        if key in self.reports and report.index <= self.reports[key].index:
            return False
        try:
            self.objectives.first(report.validation)
        except TrialError as error:
            self._unusable[key] = describe(error)
            return True
        self.store.append_report(key, report)
        self._book(key, report.system.get("energy_joules"))
        self._log_report(key, report)
        return self._is_pruned(key)

    def _log_report(self, key: str, report: Report) -> None:
        line, phase, number = self._places[key]
        study = line.study(phase)
        study.report(number, report.index, self.objectives.first(report.validation))
        attributes = study.trial(number).user_attrs
        if report.facts and "resolved" not in attributes:  # the last of the facts
            self._note(key, num_parameters=report.facts["num_parameters"], resolved=report.facts["resolved"])
        if attributes.get("attempts_lost"):
            self._note(key, attempts_lost=0)  # it came further: only losses without progress use the budget up
        self.reports[key] = report
        self._project(key)

    def _is_pruned(self, key: str) -> bool:
        line, phase, number = self._places[key]
        last = self.records[key].spec["num_reports"]
        may = phase == "search" and not line.population and self.reports[key].index < last
        return may and line.search.should_prune(number)

    def on_pruned(self, key: str) -> None:
        """The trial has left as `on_report` asked."""
        if key in self._unusable:
            self.on_failed(key, self._unusable.pop(key))
            return
        index, of = self.reports[key].index, self.records[key].spec["num_reports"]
        why = self.experiment.spec.search.pruner.reason
        self._note(key, reason=f"pruned at report {index} of {of}: {why}")
        self._end(key, TrialState.PRUNED)

    def on_completed(self, key: str, result: TrialResult) -> None:
        """The trial has spent its budget."""
        try:
            values = [self.objectives.first(result.best_validation)]
            if self.records[key].phase == "search":
                values = self.objectives.values(self.records[key].spec, result)
        except TrialError as error:
            self.on_failed(key, describe(error))
            return
        self._note(key, result=asdict(result), **({"reason": result.ended_early} if result.ended_early else {}))
        self._end(key, TrialState.COMPLETE, values)

    def on_failed(self, key: str, failure: Failure) -> None:
        """The attempt failed: try again from the newest checkpoint, or give the trial up with its reason.

        Raises SameFailureError, and InfrastructureError where no trial could go on now.
        """
        line, phase, number = self._places[key]
        attributes = line.study(phase).trial(number).user_attrs
        lost = int(attributes.get("attempts_lost", 0))  # starts after a stop or a kill of the driver do not count
        if counts(failure):
            lost += 1
            self._note(key, attempts_lost=lost)
        fate = decide(failure, lost, self.experiment.spec.resources.max_attempts)
        if fate != "fail":
            logger.warning("%s: attempt %d: %s; it goes on", key, attributes["attempts"], failure.reason)
            self._leave(key)
            self._queue.append(key)
            self._project(key)
            if fate == "abort":
                raise InfrastructureError(f"{key}: {failure.reason}; all that was saved is kept")
            return
        self._note(key, reason=failure.reason, error=failure.details)
        self._end(key, TrialState.FAIL)
        check_first([(r.state, r.reason) for r in self.records.values()])

    def on_stopped(self, key: str) -> None:
        """The trial has saved and left because the sweep was asked to stop; it goes on when the sweep does."""
        self._leave(key)
        self._queue.appendleft(key)
        self._project(key)

    def on_arrived(self, key: str) -> None:
        """The trial has come to the end of its leg, saved and left: its population decides how it goes on."""
        line, _, number = self._places[key]
        self._leave(key)
        assert line.population is not None, "only members of a population have legs"
        line.population.arrive(number)
        self._project(key)
        self._next_legs(line)

    def _next_legs(self, line: Line) -> None:
        """Queue the members of a population that has decided what each does next."""
        for number in line.population.decide() if line.population else []:
            key = line.key("search", number)
            if key not in self._queue:
                self._queue.append(key)
            self._project(key)

    def _book(self, key: str, joules: float | None = None) -> None:
        """Note what the running attempt has taken since it was last booked."""
        self._note(key, spent=self.meter.book(key, self.records[key].spent, joules))

    def _leave(self, key: str) -> None:
        """The attempt is over."""
        self._book(key)
        self.meter.end(key)
        self.live.discard(key)

    def _note(self, key: str, **attributes: Any) -> None:
        line, phase, number = self._places[key]
        for name, value in attributes.items():
            line.study(phase).note(number, name, value)

    def _end(self, key: str, state: TrialState, values: list[float] | None = None) -> None:
        line, phase, number = self._places[key]
        self._note(key, ended=time.time())
        if key in self.live:
            self._leave(key)
        line.study(phase).tell(number, state, values)
        self._project(key)
        if key in self.reports:
            self.reports[key] = replace(self.reports[key], steps=())  # many trials end, and each has many steps
        if phase == "search":
            self._next_legs(line)
        self.keeping.ended(line, phase, number)

    # --- replay and projection -------------------------------------------------------------------------------------

    def _replay(self, line: Line) -> None:
        """Bring files and study together after a kill, and queue what was running."""
        for phase in PHASES:
            trials = line.study(phase).trials()
            for trial in sorted(trials, key=lambda t: not t.state.is_finished()):  # the ended ones first
                key = line.key(phase, trial.number)
                self._places[key] = (line, phase, trial.number)
                self._replay_trial(key, line, phase, trial)

    def _replay_trial(self, key: str, line: Line, phase: Phase, trial: FrozenTrial) -> None:
        if trial.state.is_finished():
            if (last := self.store.last_report(key)) is not None:
                self.reports[key] = last
            self._project(key)
            return
        reports = self.store.reports(key)
        for report in reports:
            self._log_report(key, report)
        if reports and self._is_pruned(key):
            self.on_pruned(key)
            return
        if not (phase == "search" and line.population and line.population.is_waiting(trial.number)):
            self._queue.append(key)
        self._project(key)

    def _project(self, key: str) -> None:
        """Write what the study says of a trial into its `trial.json`, and tell the trackers."""
        line, phase, number = self._places[key]
        last = self.plan.replicas.no_more_seeds(line, number) if phase == "replica" else ""
        self._projection.write(line, phase, number, key in self.live, last)
        self.store.commit(key)
