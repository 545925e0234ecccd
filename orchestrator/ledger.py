"""What a sweep still has to do and what became of what it did: the rules, without any cluster.

The order of commits is always the same: the trial's records, then the study, then `trial.json` (a projection of the
study), then the trackers. A new ledger on an old directory replays it, so a driver may be killed between any two.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from optuna.trial import FrozenTrial, TrialState

from analysis.records import Phase, TrialRecord
from hrm.checkpoint import DamagedCheckpointError, read_manifest
from hrm.errors import SpecError
from hrm.records import Report, TrialResult
from orchestrator.experiment import Arm, Experiment
from orchestrator.failures import Failure, decide, describe, same_reason
from orchestrator.store import SweepStore
from orchestrator.studies import SearchStudy, open_journal

logger = logging.getLogger(__name__)
FAILURES_THAT_STOP = 4
"""When this many first trials fail, all for the same reason, the sweep is misconfigured."""
_STATES: dict[TrialState, Literal["completed", "pruned", "failed"]] = {
    TrialState.COMPLETE: "completed",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


class Listener(Protocol):
    """Is told which trial's files changed (the trackers' mirrors)."""

    def changed(self, key: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Line:
    """An arm on a task with its two studies."""

    arm: Arm
    search: SearchStudy
    replica: SearchStudy

    def study(self, phase: Phase) -> SearchStudy:
        """The study of a phase."""
        return self.search if phase == "search" else self.replica


@dataclass(frozen=True, slots=True)
class Job:
    """One attempt at one trial, as the trial process gets it (all plain data)."""

    key: str
    spec: dict[str, Any]
    attempt: int
    known_reports: int
    test: bool


class SameFailureError(Exception):
    """The first trials all failed for the same reason."""


class Ledger:
    """The sweep's rules over its studies and files. Not thread-safe; used by the driver's main thread."""

    def __init__(self, experiment: Experiment, store: SweepStore, listeners: Iterable[Listener] = ()) -> None:
        self.experiment, self.store = experiment, store
        self.listeners = list(listeners)
        self.records: dict[str, TrialRecord] = {}
        self.reports: dict[str, Report] = {}
        """The last report of each trial."""
        self.live: set[str] = set()
        self.stopping = False
        storage = open_journal(store.journal)
        spec = experiment.spec
        self.lines = [
            Line(
                arm,
                SearchStudy(storage, f"{arm.task}/{arm.name}/search", spec.search, spec.objective.direction),
                SearchStudy(storage, f"{arm.task}/{arm.name}/replica", spec.search, spec.objective.direction),
            )
            for arm in experiment.arms
        ]
        self._winners: dict[str, int] = {}
        """The best completed trial of each study: its checkpoint is kept."""
        self._places: dict[str, tuple[Line, Phase, int]] = {}
        self._queue: deque[str] = deque()
        for line in self.lines:
            self._replay(line)
        for line in self.lines:
            self._finish_generation(line)

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

    @property
    def planned_trials(self) -> int:
        """How many trials the sweep will have, searches and replicas."""
        spec = self.experiment.spec
        return len(self.lines) * (spec.search.trials + spec.replicas.seeds * spec.replicas.configurations)

    def _plan(self) -> None:
        """Fill the queue from the line that has asked least; replicas of a line whose search has ended come first."""
        asked = -1
        while not self._queue and asked != (asked := len(self.records)):  # a proposal that is refused fills no queue
            for line in sorted(self.lines, key=lambda line: len(line.search.trials())):
                if not self._queue:
                    self._plan_search(line)
                if not self._queue:
                    self._plan_replicas(line)

    def _finish_generation(self, line: Line) -> None:
        """Ask for the rest of a generation that a kill cut short, before any trial of it goes on."""
        search = self.experiment.spec.search
        if search.deterministic and len(line.search.trials()) % search.generation:
            self._plan_search(line)

    def _plan_search(self, line: Line) -> None:
        search = self.experiment.spec.search
        trials = line.search.trials()
        wanted = min(search.trials - len(trials), 1)
        if search.deterministic and wanted > 0:
            wanted = min(search.trials, -(-(len(trials) + 1) // search.generation) * search.generation) - len(trials)
            new_generation = len(trials) % search.generation == 0
            if new_generation and not all(t.state.is_finished() for t in trials):
                return
        for _ in range(wanted):
            self._ask(line, "search")

    def _plan_replicas(self, line: Line) -> None:
        spec, trials = self.experiment.spec, line.search.trials()
        if len(trials) < spec.search.trials or not all(t.state.is_finished() for t in trials):
            return
        sign = 1.0 if spec.objective.direction == "minimize" else -1.0
        done = sorted((t for t in trials if t.state == TrialState.COMPLETE), key=lambda t: sign * float(t.value or 0.0))
        wanted = [
            (source, spec.replicas.first_seed + i)
            for source in done[: spec.replicas.configurations]
            for i in range(spec.replicas.seeds)
        ]
        for source, seed in wanted[len(line.replica.trials()) :]:
            key = self._key(line, "search", source.number)
            line.replica.enqueue(source.params, {"seed": seed, "source": key})
        while any(t.state == TrialState.WAITING for t in line.replica.trials()):
            self._ask(line, "replica")

    def _ask(self, line: Line, phase: Phase) -> None:
        number, parameters = line.study(phase).ask(line.arm.space)
        self._settle(line, phase, number, parameters)

    def _settle(self, line: Line, phase: Phase, number: int, parameters: dict[str, Any]) -> None:
        """Fix a proposal's spec in the study and queue it. A combination that is refused ends as failed."""
        study, key = line.study(phase), self._key(line, phase, number)
        seed = study.trials()[number].user_attrs.get("seed", self.experiment.spec.search.seed)
        self._places[key] = (line, phase, number)
        try:
            trial = line.arm.trial(parameters, seed)
        except SpecError as error:
            study.note(number, "reason", describe(error).reason)
            study.note(number, "spec", {**line.arm.template, "seed": seed})
            study.tell(number, TrialState.FAIL)
            self._project(key)
            return
        study.note(number, "trial_id", trial.hash())
        study.note(number, "spec", trial.model_dump(mode="json"))
        self._queue.append(key)
        self._project(key)

    def _start(self, key: str) -> Job:
        line, phase, number = self._places[key]
        study = line.study(phase)
        attributes = study.trials()[number].user_attrs
        attempt = int(attributes.get("attempts", 0)) + 1
        study.note(number, "attempts", attempt)
        if "started" not in attributes:
            study.note(number, "started", time.time())
        self.live.add(key)
        self._project(key)
        known = self.reports[key].index if key in self.reports else 0
        return Job(key, attributes["spec"], attempt, known, test=phase == "replica")

    # --- what became of it -----------------------------------------------------------------------------------------

    def on_report(self, key: str, report: Report) -> bool:
        """Log a report. True if the trial is to be pruned here."""
        if key in self.reports and report.index <= self.reports[key].index:
            return False
        self.store.append_report(key, report)
        self._log_report(key, report)
        return self._is_pruned(key)

    def _log_report(self, key: str, report: Report) -> None:
        line, phase, number = self._places[key]
        line.study(phase).report(number, report.index, report.validation[self.experiment.spec.objective.metric])
        if "resolved" not in line.study(phase).trials()[number].user_attrs:  # the last of the facts
            self._note_facts(key, report)
        if line.study(phase).trials()[number].user_attrs.get("attempts_lost"):
            self._note(key, attempts_lost=0)  # it came further: only losses without progress use the budget up
        self.reports[key] = report
        self._project(key)

    def _note_facts(self, key: str, report: Report) -> None:
        """What the first checkpoint says of the trial: its size, and what every `auto` became."""
        try:
            manifest = read_manifest(self.store.trial_directory(key) / report.checkpoint)
        except DamagedCheckpointError as error:
            logger.warning("%s", error)
            return
        self._note(key, num_parameters=manifest["num_parameters"], resolved=manifest["resolved"])

    def _is_pruned(self, key: str) -> bool:
        line, phase, number = self._places[key]
        last = self.records[key].spec["num_reports"]
        return phase == "search" and self.reports[key].index < last and line.search.should_prune(number)

    def on_pruned(self, key: str) -> None:
        """The trial was ended by the pruner."""
        index, of = self.reports[key].index, self.records[key].spec["num_reports"]
        self._note(key, reason=f"pruned at report {index} of {of}: worse than the earlier trials there")
        self._end(key, TrialState.PRUNED)

    def on_completed(self, key: str, result: TrialResult) -> None:
        """The trial has spent its budget."""
        self._note(key, result=asdict(result))
        self._end(key, TrialState.COMPLETE, result.best_validation[self.experiment.spec.objective.metric])

    def on_failed(self, key: str, failure: Failure) -> None:
        """The attempt failed: try again from the newest checkpoint, or give the trial up with its reason."""
        line, phase, number = self._places[key]
        attributes = line.study(phase).trials()[number].user_attrs
        lost = int(attributes.get("attempts_lost", 0)) + 1  # starts after a stop or a kill of the driver do not count
        self._note(key, attempts_lost=lost)
        if decide(failure, lost, self.experiment.spec.resources.max_attempts) == "retry":
            logger.warning("%s: attempt %d: %s; trying again", key, attributes["attempts"], failure.reason)
            self.live.discard(key)
            self._queue.append(key)
            self._project(key)
            return
        self._note(key, reason=failure.reason, error=failure.details)
        self._end(key, TrialState.FAIL)
        self._stop_if_all_fail_alike()

    def on_stopped(self, key: str) -> None:
        """The trial has saved and left because the sweep was asked to stop; it goes on when the sweep does."""
        self.live.discard(key)
        self._queue.appendleft(key)
        self._project(key)

    def _note(self, key: str, **attributes: Any) -> None:
        line, phase, number = self._places[key]
        for name, value in attributes.items():
            line.study(phase).note(number, name, value)

    def _end(self, key: str, state: TrialState, value: float | None = None) -> None:
        line, phase, number = self._places[key]
        self._note(key, ended=time.time())
        line.study(phase).tell(number, state, value)
        self.live.discard(key)
        self._project(key)
        self._drop_losers(line, phase, {number, self._winners.get(line.study(phase).name, number)})

    def _drop_losers(self, line: Line, phase: Phase, ended: Iterable[int]) -> None:
        """Of a search, keep the best trial's best checkpoint; of each replica, its best. Looks at `ended` only."""
        study = line.study(phase)
        if any(t.state == TrialState.COMPLETE for t in study.trials()):
            self._winners[study.name] = study.study.best_trial.number
        for number in ended:
            result = self.records[self._key(line, phase, number)].result
            wins = phase == "replica" or number == self._winners.get(study.name)
            keep = {result["best_checkpoint"]} if result is not None and wins else set()
            self.store.drop_checkpoints(self._key(line, phase, number), keep)

    def _stop_if_all_fail_alike(self) -> None:
        reasons = [r.reason for r in self.records.values() if r.state == "failed"]
        ended = [r for r in self.records.values() if r.state in ("completed", "pruned", "failed")]
        if len(ended) == len(reasons) and same_reason(reasons, FAILURES_THAT_STOP):
            raise SameFailureError(f"the first {len(reasons)} trials all failed: {reasons[0]}")

    # --- replay and projection -------------------------------------------------------------------------------------

    def _replay(self, line: Line) -> None:
        """Bring files and study together after a kill, and queue what was running."""
        phases: tuple[Phase, Phase] = ("search", "replica")
        for phase in phases:
            trials = [t for t in line.study(phase).trials() if t.state != TrialState.WAITING]
            for trial in sorted(trials, key=lambda t: not t.state.is_finished()):  # the ended ones first
                key = self._key(line, phase, trial.number)
                self._places[key] = (line, phase, trial.number)
                self._replay_trial(key, line, phase, trial)
            self._drop_losers(line, phase, [t.number for t in line.study(phase).trials() if t.state.is_finished()])

    def _replay_trial(self, key: str, line: Line, phase: Phase, trial: FrozenTrial) -> None:
        reports = self.store.reports(key)
        if trial.state.is_finished():
            if reports:
                self.reports[key] = reports[-1]
            self._project(key)
            return
        if not {"trial_id", "spec"} <= trial.user_attrs.keys():
            parameters = line.study(phase).adopt(trial.number, line.arm.space)
            self._settle(line, phase, trial.number, parameters)
            return
        for report in reports:
            self._log_report(key, report)
        if reports and self._is_pruned(key):
            self.on_pruned(key)
            return
        self._queue.append(key)
        self._project(key)

    def _project(self, key: str) -> None:
        """Write what the study says of a trial into its `trial.json`, and tell the trackers."""
        line, phase, number = self._places[key]
        record = self._record(key, line, phase, line.study(phase).trials()[number])
        if self.records.get(key) != record:
            self.records[key] = record
            self.store.write_trial(record)
            for listener in self.listeners:
                listener.changed(key)

    def _record(self, key: str, line: Line, phase: Phase, trial: FrozenTrial) -> TrialRecord:
        attributes = trial.user_attrs
        values = trial.intermediate_values.values()
        best = min if self.experiment.spec.objective.direction == "minimize" else max
        return TrialRecord(
            key=key,
            task=line.arm.task,
            arm=line.arm.name,
            phase=phase,
            number=trial.number,
            trial_id=attributes.get("trial_id", ""),
            spec=attributes["spec"],
            parameters=dict(trial.params),
            state=_STATES.get(trial.state) or ("running" if key in self.live else "waiting"),
            reason=attributes.get("reason", ""),
            error=attributes.get("error", ""),
            source=attributes.get("source", ""),
            attempts=int(attributes.get("attempts", 0)),
            started=attributes.get("started"),
            ended=attributes.get("ended"),
            num_parameters=attributes.get("num_parameters"),
            resolved=attributes.get("resolved", {}),
            objective=best(values) if values else None,
            result=attributes.get("result"),
        )

    def _key(self, line: Line, phase: Phase, number: int) -> str:
        task = f"{line.arm.task}-" if len(self.experiment.tasks) > 1 else ""
        return f"{task}{line.arm.name}-{phase}-{number:04d}"
