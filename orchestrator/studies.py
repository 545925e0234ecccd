"""The log of the search: one Optuna study per arm, task and phase, all in one journal file.

What was asked, started, reported, pruned and told is here and only here; the resolved spec, the attempts and reasons
are attributes of the study's trials. A sampler is built anew for each proposal with a seed derived from (sweep seed,
study, number). In a deterministic search the pruner sees earlier generations only.
"""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections.abc import Container
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from orchestrator.experiment import SearchSpec
from orchestrator.space import Space

optuna.logging.set_verbosity(optuna.logging.ERROR)
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)


Direction = Literal["minimize", "maximize"]


class SearchStudy:
    """One study: proposals for one arm on one task in one phase."""

    def __init__(self, storage: JournalStorage, name: str, search: SearchSpec, direction: Direction) -> None:
        self.name, self._search = name, search
        self._pruner = search.pruner.build()
        self.study = optuna.create_study(
            storage=storage, study_name=name, direction=direction, load_if_exists=True, pruner=self._pruner
        )

    def trials(self) -> list[FrozenTrial]:
        """Every trial, by number."""
        return self.study.get_trials(deepcopy=False)

    def ask(self, space: Space) -> tuple[int, dict[str, Any]]:
        """A new proposal: its number and its parameters."""
        number = len([t for t in self.trials() if t.state != TrialState.WAITING])
        self.study.sampler = self._search.sampler.build(self._seed(number))
        return self._suggest(self.study.ask(), space)

    def adopt(self, number: int, space: Space) -> dict[str, Any]:
        """The parameters of a trial that a dead driver asked for; those it had not drawn yet are drawn now."""
        self.study.sampler = self._search.sampler.build(self._seed(number))
        trial = optuna.Trial(self.study, self.trials()[number]._trial_id)
        return self._suggest(trial, space)[1]

    def _suggest(self, trial: optuna.Trial, space: Space) -> tuple[int, dict[str, Any]]:
        """Each parameter that is drawn by itself has its own seed: a kill between two of them changes neither."""
        parameters = {}
        for path, dimension in space.items():
            self.study.sampler = self._search.sampler.build(self._seed(trial.number, path))
            parameters[path] = dimension.suggest(trial, path)
        return trial.number, parameters

    def _seed(self, number: int, path: str = "") -> int:
        digest = hashlib.sha256(f"{self._search.seed}/{self.name}/{number}/{path}".encode()).digest()
        return int.from_bytes(digest[:4], "big")

    def enqueue(self, parameters: dict[str, Any], attributes: dict[str, Any]) -> None:
        """Put a given configuration in the queue: the next `ask` gives it."""
        self.study.enqueue_trial(parameters, user_attrs=attributes)

    def note(self, number: int, key: str, value: Any) -> None:
        """Set an attribute of a trial."""
        self._storage.set_trial_user_attr(self._id(number), key, value)

    def report(self, number: int, index: int, value: float) -> None:
        """Log an intermediate value; one that is there already is left alone."""
        if index not in self.trials()[number].intermediate_values:
            self._storage.set_trial_intermediate_value(self._id(number), index, value)

    def should_prune(self, number: int) -> bool:
        """The pruner's answer for the trial's last report; asking again gives the same answer.

        A rung that this very report completed is taken back before the pruner is asked: it notes rungs as it goes, and
        a driver that was killed between the note and the end of the trial has to ask again. Nor does the trial compete
        with its own note.
        """
        end = number - number % self._search.generation if self._search.deterministic else None
        view = _Others(self.study, number, end)
        trial = copy.deepcopy(self.trials()[number])
        last = trial.intermediate_values[trial.last_step] if trial.last_step is not None else None
        trial.system_attrs = {
            key: value
            for key, value in trial.system_attrs.items()
            if not (key.startswith("completed_rung_") and value == last)
        }
        return bool(self._pruner.prune(view, trial))

    def tell(self, number: int, state: TrialState, value: float | None = None) -> None:
        """End a trial; a second end is ignored."""
        if not self.trials()[number].state.is_finished():
            self._storage.set_trial_state_values(self._id(number), state, None if value is None else [value])

    def _id(self, number: int) -> int:
        return self.trials()[number]._trial_id

    @property
    def _storage(self) -> Any:
        return self.study._storage


class _Others(Study):
    """A study without one of its trials and, if `end` is given, without those from there on: what it competes with."""

    def __init__(self, study: Study, number: int, end: int | None) -> None:
        super().__init__(study.study_name, study._storage, study.sampler, study.pruner)
        self._number, self._end = number, end

    def get_trials(self, deepcopy: bool = True, states: Container[TrialState] | None = None) -> list[FrozenTrial]:
        trials = super().get_trials(deepcopy, states)
        return [t for t in trials if t.number != self._number and (self._end is None or t.number < self._end)]


def open_journal(path: Path) -> JournalStorage:
    """The storage of all studies of a sweep."""
    return JournalStorage(JournalFileBackend(str(path)))
