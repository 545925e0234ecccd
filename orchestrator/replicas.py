"""Which configurations run again, over which seeds: all of them, or only as long as they have not lost.

Seeds are run in rounds where something may lose; a decision is a function of the rounds that have ended, so it is made
again the same after a kill. Only validation has a say in it: the test split is for the comparison alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState
from pydantic import Field, model_validator

from analysis.compare import compare
from analysis.intervals import ALPHA, Direction
from hrm.spec import Spec, parse_spec
from hrm.trial import TrialSpec
from orchestrator.population import value_at
from orchestrator.schedulers.wilcoxon import WilcoxonSpec
from orchestrator.space import Parameters

if TYPE_CHECKING:
    from orchestrator.experiment import Arm, ExperimentSpec
    from orchestrator.lines import Line

    Note = Callable[[Line, int, str], None]

Values = Mapping[int, float]
"""The objective on validation by seed."""
_NOTE = "no_more_seeds"
"""The attribute of a study with the reasons, by the number of the last replica."""
FIRST_LOOK = 3
"""Seeds that every arm gets before one may be stopped."""


class ReplicaSpec(Spec):
    """The best configurations of each arm, run again; only these decide the comparison, on the test split."""

    seeds: int = Field(3, ge=0)
    """Runs of each configuration, with seeds that every arm shares; 0 for a search without a decision."""
    configurations: int = Field(1, ge=1)
    first_seed: int = Field(1000, ge=0, lt=2**30)
    adaptive: bool = False
    """Seeds are run round by round, and an arm that has lost with certainty gets no more of them."""
    pruner: WilcoxonSpec | None = None
    """Seeds are run round by round, and a configuration that loses against another of its arm gets no more of them."""

    @model_validator(mode="after")
    def _something_can_lose(self) -> ReplicaSpec:
        if self.adaptive and self.seeds <= FIRST_LOOK:
            raise ValueError(f"seeds must be > {FIRST_LOOK} where adaptive is true, got {self.seeds}; raise it")
        if self.pruner is not None and self.configurations == 1:
            raise ValueError("configurations must be > 1 for a pruner of them, got 1; raise it, or remove the pruner")
        if self.pruner is not None and self.seeds <= self.pruner.fewest_seeds:
            raise ValueError(
                f"seeds must be > {self.pruner.fewest_seeds}, or the pruner ends nothing in time, got {self.seeds}; "
                "raise it, or raise p_threshold"
            )
        return self

    @property
    def looks(self) -> int:
        """After how many rounds an arm may be stopped."""
        return self.seeds - FIRST_LOOK if self.adaptive else 0


def repetition(arm: Arm, source: FrozenTrial, seed: int) -> tuple[TrialSpec, Parameters]:
    """The trial that repeats a search trial's configuration with another seed, and what was searched of it.

    Of a population's member it repeats the schedule of parameters that led to its weights.
    """
    if not source.user_attrs.get("lineage"):
        return arm.trial(source.params, seed), source.params
    schedule = source.user_attrs["spec"]
    parameters = {path: value_at(schedule, path) for path in arm.space}
    data = arm.trial(parameters, seed).model_dump(mode="json")
    return parse_spec(TrialSpec, {**data, "changes": schedule["changes"]}, f"arms.{arm.name}"), parameters


@dataclass(slots=True)
class _Field:
    """A line in the race: the sources still in it, and all that was planned for it so far."""

    line: Line
    sources: list[str]
    planned: list[tuple[str, int]] = field(default_factory=list)
    """Key of the source, seed."""

    def replicas(self) -> dict[tuple[str, int], FrozenTrial]:
        """The line's replicas by source and seed."""
        return {(t.user_attrs["source"], t.user_attrs["seed"]): t for t in self.line.replica.trials()}

    def has_ended(self) -> bool:
        """True when all that was planned has run."""
        there = self.replicas()
        return all(pair in there and there[pair].state.is_finished() for pair in self.planned)

    def values(self, source: str) -> dict[int, float]:
        """By seed the objective on validation of a source's completed replicas, of the rounds planned so far."""
        there = self.replicas()
        done = {seed: there[source, seed] for name, seed in self.planned if name == source}
        return {s: float(t.value or 0.0) for s, t in done.items() if t.state == TrialState.COMPLETE}


class Replicas:
    """The replicas of all lines. `key` gives the key of a line's search trial, `is_searched` whether its search is
    over; `changed` is told of a replica that was noted to be its configuration's last."""

    def __init__(
        self,
        spec: ExperimentSpec,
        lines: Sequence[Line],
        key: Callable[[Line, int], str],
        is_searched: Callable[[Line], bool],
        changed: Callable[[Line, int], None],
    ) -> None:
        self._spec, self._lines, self._key = spec, lines, key
        self._is_searched, self._changed = is_searched, changed

    def due(self, line: Line) -> list[tuple[FrozenTrial, int]]:
        """The replicas of the line that are to be asked for now: the search trial and the seed of each."""
        if not self._is_searched(line):
            return []
        race = self._race(line, self._note)
        there = race.replicas()
        sources = {self._key(line, t.number): t for t in line.search.ranked()}
        return [(sources[source], seed) for source, seed in race.planned if (source, seed) not in there]

    def planned(self, line: Line) -> int:
        """How many replicas the line will have, as far as one can know now."""
        whole = self._spec.replicas.seeds * self._spec.replicas.configurations
        if not self._is_searched(line) or not (self._spec.replicas.adaptive or self._spec.replicas.pruner):
            return max(whole, len(line.replica.trials()))
        race = self._race(line, lambda *_: None)  # a display asks, perhaps from a thread of its own
        rounds = len({seed for _, seed in race.planned})
        return len(race.planned) + (self._spec.replicas.seeds - rounds) * len(race.sources)

    def _race(self, line: Line, note: Note) -> _Field:
        """The line's race as far as it has come; where arms may lose, together with the others on its task."""
        spec = self._spec.replicas
        group = [each for each in self._lines if each.arm.task == line.arm.task] if spec.adaptive else [line]
        fields = [_Field(each, self._best(each)) for each in group]
        for count in range(1, spec.seeds + 1):
            for each in fields:
                each.planned += [(source, spec.first_seed + count - 1) for source in each.sources]
            if self._is_look(count) and not self._look(fields, count, note):
                break
        return next(each for each in fields if each.line is line)

    def _best(self, line: Line) -> list[str]:
        best = line.search.ranked()[: self._spec.replicas.configurations] if self._is_searched(line) else []
        return [self._key(line, trial.number) for trial in best]

    def _is_look(self, count: int) -> bool:
        spec = self._spec.replicas
        arms = spec.adaptive and count >= FIRST_LOOK
        return count < spec.seeds and (arms or (spec.pruner is not None and count >= spec.pruner.startup_seeds))

    def _look(self, fields: Sequence[_Field], count: int, note: Note) -> bool:
        """After a round: take what has lost out of the race, with a note why. False while the round goes on."""
        if not all(self._is_searched(each.line) and each.has_ended() for each in fields):
            return False
        spec, objective = self._spec.replicas, self._spec.objective
        if spec.pruner is not None:
            for each in fields:
                values = {source: each.values(source) for source in each.sources}
                self._leave(each, lost_configurations(values, objective.direction, spec.pruner), count, note)
        if spec.adaptive and count >= FIRST_LOOK:
            leaders = {each.line.arm.name: self._leader(each) for each in fields if each.sources}
            look = count - FIRST_LOOK + 1
            lost = lost_arms(leaders, objective.direction, objective.metric, look, spec.looks)
            for each in fields:
                if each.line.arm.name in lost:
                    self._leave(each, dict.fromkeys(each.sources, lost[each.line.arm.name]), count, note)
        return True

    def _leave(self, each: _Field, reasons: dict[str, str], count: int, note: Note) -> None:
        there = each.replicas()
        for source, reason in reasons.items():
            each.sources.remove(source)
            last = there[source, self._spec.replicas.first_seed + count - 1]
            note(each.line, last.number, reason)

    def _note(self, line: Line, number: int, reason: str) -> None:
        study = line.replica.study  # not its trial: what has ended takes no notes
        noted = study.user_attrs.get(_NOTE, {})
        if str(number) not in noted:
            study.set_user_attr(_NOTE, {**noted, str(number): reason})
            self._changed(line, number)

    def no_more_seeds(self, line: Line, number: int) -> str:
        """Why the configuration of this replica gets no seeds after it; empty where it does."""
        if not (self._spec.replicas.adaptive or self._spec.replicas.pruner):
            return ""
        return str(line.replica.study.user_attrs.get(_NOTE, {}).get(str(number), ""))

    def _leader(self, each: _Field) -> dict[int, float]:
        """The values of the configuration that stands for the arm: as in the report, that of most seeds, then of the
        best mean."""
        values = [each.values(source) for source in each.sources]
        sign = -1.0 if self._spec.objective.direction == "minimize" else 1.0
        return max(values, key=lambda v: (len(v), sign * float(np.mean(list(v.values()))) if v else 0.0), default={})


def lost_configurations(values: Mapping[str, Values], direction: Direction, spec: WilcoxonSpec) -> dict[str, str]:
    """The configurations that lose against the best one by the pruner's rule, each with the reason."""
    known = {name: by_seed for name, by_seed in values.items() if by_seed}
    if len(known) < 2:
        return {}
    study = optuna.create_study(direction=direction)
    for by_seed in known.values():
        mean = float(np.mean(list(by_seed.values())))
        study.add_trial(optuna.trial.create_trial(value=mean, intermediate_values=dict(by_seed)))
    pruner, names = spec.build(), list(known)
    best = names[study.best_trial.number]
    why = f"worse than {best} on the same seeds (Wilcoxon signed-rank, one-sided p < {spec.p_threshold:g})"
    beaten = [names[trial.number] for trial in study.trials if pruner.prune(study, trial)]
    return {name: f"no more seeds after {len(known[name])}: {why}" for name in beaten}


def lost_arms(values: Mapping[str, Values], direction: Direction, metric: str, look: int, looks: int) -> dict[str, str]:
    """The arms that have lost against the best one with certainty at this look (from 1), each with the reason."""
    known = {name: by_seed for name, by_seed in values.items() if by_seed}
    if len(known) < 2:
        return {}
    # Looking again and again would find a loser among equals too often: alpha is shared out over the looks.
    threshold = ALPHA / looks
    sign = 1.0 if direction == "minimize" else -1.0
    lost = {}
    for found in compare(known, direction).differences:
        if found.mean is None or found.adjusted_p is None:
            continue
        if sign * found.mean < 0.0 and found.adjusted_p < threshold:
            lost[found.other] = (
                f"no more seeds after {found.n}: worse than {found.best} by {abs(found.mean):.3g} in validation "
                f"{metric} on the same seeds (paired, Holm-corrected p = {found.adjusted_p:.2g} < {threshold:.2g}, "
                f"look {look} of {looks})"
            )
    return lost
