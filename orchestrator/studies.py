"""The log of the search: one Optuna study per arm, task and phase, all in one journal file.

What was asked, started, reported, pruned and told is here and only here; the resolved spec, the attempts and reasons
are attributes of the study's trials. A proposal is logged whole, in one commit, so that a kill leaves all of it or
nothing; it is a function of (sweep seed, study, number). In a deterministic search the pruner sees earlier generations
only.
"""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.samplers import RandomSampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from orchestrator.countable import exact
from orchestrator.experiment import SearchSpec
from orchestrator.search import Draw
from orchestrator.space import Parameters, Space, distributions
from orchestrator.study_view import proposal, shown, within

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)

Direction = Literal["minimize", "maximize"]
KNOWN = "known"
"""The attribute of trials that another sweep ran: where they are from."""


@dataclass(slots=True)
class Past:
    """What a study holds for good, so that each trial is looked at once: it is logged whole and never taken back."""

    own: list[int] = field(default_factory=list)
    """The numbers of this sweep's trials."""
    known: list[int] = field(default_factory=list)
    trial_ids: set[str] = field(default_factory=set)
    configurations: set[str] = field(default_factory=set)
    """As `canonical` writes them."""
    points: set[str] = field(default_factory=set)
    """Of the given points those that were asked for."""
    _read: int = 0

    def follow(self, trials: Sequence[FrozenTrial]) -> None:
        """Take in those that are new."""
        for trial in trials[self._read :]:
            attributes = trial.user_attrs
            if KNOWN in attributes or "spec" in attributes:
                (self.known if KNOWN in attributes else self.own).append(trial.number)
                self.trial_ids.add(attributes.get("trial_id", ""))
                self.configurations.add(canonical(trial.params))
                self.points.add(attributes.get("point", ""))
        self._read = len(trials)


def canonical(parameters: Mapping[str, Any]) -> str:
    """A configuration as text: equal configurations, equal texts."""
    return json.dumps(parameters, sort_keys=True)


class SearchStudy:
    """One study: proposals for one arm on one task in one phase."""

    def __init__(
        self,
        storage: JournalStorage,
        name: str,
        search: SearchSpec,
        directions: Sequence[Direction],
        num_reports: int = 8,
    ) -> None:
        self.name, self._search = name, search
        self._pruner = search.pruner.build(num_reports)
        self._past = Past()
        self.study = optuna.create_study(
            storage=storage, study_name=name, directions=directions, load_if_exists=True, pruner=self._pruner
        )

    # --- what is there ---------------------------------------------------------------------------------------------

    def trials(self) -> list[FrozenTrial]:
        """Every trial of this sweep, by number."""
        trials = self._all()
        return [trials[number] for number in self.past(trials).own]

    def known_trials(self) -> list[FrozenTrial]:
        """What other sweeps have found: the sampler learns from it, and nothing else looks at it."""
        trials = self._all()
        return [trials[number] for number in self.past(trials).known]

    def past(self, trials: Sequence[FrozenTrial] | None = None) -> Past:
        """What is settled of all of them."""
        self._past.follow(self._all() if trials is None else trials)
        return self._past

    def trial(self, number: int) -> FrozenTrial:
        """One trial."""
        found: FrozenTrial = self._storage.get_trial(self._id(number))
        return found

    def ranked(self) -> list[FrozenTrial]:
        """The completed trials, the best first. With several objectives only the Pareto front, by its first one."""
        done = [t for t in self.trials() if t.state == TrialState.COMPLETE]
        scores = {t.number: self._scores(t) for t in done}
        done.sort(key=lambda t: scores[t.number])
        if len(self.study.directions) == 1:
            return done
        front: list[FrozenTrial] = []
        for trial in done:  # only one before it in this order can dominate it
            if not any(_dominates(scores[other.number], scores[trial.number]) for other in front):
                front.append(trial)
        return front

    def _scores(self, trial: FrozenTrial) -> list[float]:
        """Its values, of which less is better."""
        signs = [-1.0 if d == StudyDirection.MAXIMIZE else 1.0 for d in self.study.directions]
        return [sign * value for sign, value in zip(signs, trial.values or [], strict=True)]

    # --- proposals -------------------------------------------------------------------------------------------------

    def draw(
        self, space: Space, again: int = 0, given: Mapping[str, Any] | None = None, uniform: bool = False
    ) -> FrozenTrial:
        """A proposal that is not logged yet. `again`: how often it was drawn before. `given`: what is fixed of it.
        `uniform`: at random, whatever the sampler."""
        trials, whole = self._all(), distributions(space)
        draft = proposal(len(trials), whole)
        draw = Draw(self._seed(draft.number, again), self.seed, again)
        sampler = RandomSampler(seed=draw.seed) if uniform else self._search.sampler.build(draw)
        view = shown(self.study, list(within(trials, whole)), draft, sampler)
        sampler.before_trial(view, draft)
        relative = sampler.sample_relative(view, draft, sampler.infer_relative_search_space(view, draft))
        drawn: Parameters = {}
        for path, distribution in whole.items():
            value = (given or {}).get(path, relative.get(path))
            if path not in (given or {}) and path not in relative:
                value = sampler.sample_independent(view, draft, path, distribution)
            drawn[path] = exact(distribution, distribution.to_external_repr(distribution.to_internal_repr(value)))
        draft.params = drawn
        return draft

    def configured(self, space: Space, parameters: Parameters) -> FrozenTrial:
        """A proposal of a given configuration."""
        draft = proposal(len(self._all()), distributions(space))
        draft.params = dict(parameters)
        return draft

    def add(
        self, draft: FrozenTrial, attributes: Mapping[str, Any], state: TrialState = TrialState.RUNNING,
        values: Sequence[float] | None = None,
    ) -> int:  # fmt: skip
        """Log a proposal with everything about it, in one commit; gives its number."""
        draft.user_attrs, draft.state, draft.values = dict(attributes), state, list(values) if values else None
        draft.datetime_complete = datetime.now() if state.is_finished() else None
        added: FrozenTrial = self._storage.get_trial(self._storage.create_new_trial(self.study._study_id, draft))
        return added.number

    @property
    def seed(self) -> int:
        """The same for all draws of the study."""
        return self._seed()

    def _seed(self, *parts: int) -> int:
        text = "/".join(map(str, (self._search.seed, self.name, *parts)))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")

    # --- what becomes of them --------------------------------------------------------------------------------------

    def generation(self, trial: FrozenTrial) -> tuple[int, int]:
        """The generation that a trial was asked in, and how many that was to have."""
        size = self._search.generation
        number, of = trial.user_attrs.get("generation") or (trial.number // size, size)  # of an older version
        return int(number), int(of)

    def note(self, number: int, key: str, value: Any) -> None:
        """Set an attribute of a trial."""
        self._storage.set_trial_user_attr(self._id(number), key, value)

    def report(self, number: int, index: int, value: float) -> None:
        """Log an intermediate value; one that is there already is left alone."""
        if index not in self.trial(number).intermediate_values:
            self._storage.set_trial_intermediate_value(self._id(number), index, value)

    def should_prune(self, number: int) -> bool:
        """The pruner's answer for the trial's last report; asking again gives the same answer.

        A rung that this very report completed is taken back before the pruner is asked: it notes rungs as it goes, and
        a driver that was killed between the note and the end of the trial has to ask again. Nor does the trial compete
        with its own note.
        """
        if len(self.study.directions) > 1:
            return False
        trial = copy.deepcopy(self.trial(number))
        last = trial.intermediate_values[trial.last_step] if trial.last_step is not None else None
        trial.system_attrs = {
            key: value
            for key, value in trial.system_attrs.items()
            if not (key.startswith("completed_rung_") and value == last)
        }
        view = shown(self.study, self._rivals(trial), trial, self.study.sampler, self._pruner)
        return bool(self._pruner.prune(view, trial))

    def _rivals(self, trial: FrozenTrial) -> list[FrozenTrial]:
        """What a trial competes with: the others, in a deterministic search those of earlier generations."""
        others = [t for t in self.trials() if t.number != trial.number]
        if not self._search.deterministic:
            return others
        return [t for t in others if self.generation(t) < self.generation(trial)]

    def tell(self, number: int, state: TrialState, values: Sequence[float] | None = None) -> None:
        """End a trial; a second end is ignored."""
        if not self.trial(number).state.is_finished():
            self._storage.set_trial_state_values(self._id(number), state, values)

    def _all(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _id(self, number: int) -> int:
        found: int = self._storage.get_trial_id_from_study_id_trial_number(self.study._study_id, number)
        return found

    @property
    def _storage(self) -> Any:
        return self.study._storage


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """True if `one` is nowhere worse and somewhere better."""
    return all(a <= b for a, b in zip(one, other, strict=True)) and any(a < b for a, b in zip(one, other, strict=True))


class _FencedFile(JournalFileBackend):
    """A journal that is written only while this driver may."""

    def __init__(self, path: Path, check: Callable[[], None]) -> None:
        super().__init__(str(path))
        self._check = check

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        self._check()
        try:
            super().append_logs(logs)
        except RuntimeError:  # its lock is gone: another driver took over while this process slept in the write
            self._check()
            raise


def open_journal(path: Path, check: Callable[[], None] = lambda: None) -> JournalStorage:
    """The storage of all studies of a sweep. check: raises where this driver may not write any more."""
    return JournalStorage(_FencedFile(path, check))
