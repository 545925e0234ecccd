"""Which trials a sweep asks for next: searches and, where a search is over, replicas.

What is asked for is logged in the studies at once; this only knows what their logs say, so a new driver asks alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from analysis.records import Phase
from orchestrator.experiment import ExperimentSpec
from orchestrator.lines import Line
from orchestrator.proposals import due, propose
from orchestrator.replicas import Replicas, repetition

Asked = tuple[Phase, int]
"""A trial that was logged: its phase and its number there."""


class Planning:
    """The plan of all lines. `changed` is told of a replica whose configuration gets no further seeds."""

    def __init__(self, spec: ExperimentSpec, lines: Sequence[Line], changed: Callable[[Line, int], None]) -> None:
        self._spec, self.lines = spec, lines
        self.exhausted: set[str] = set()
        """The search studies whose spaces have no configuration left."""
        self.replicas = Replicas(spec, lines, self._search_key, self._is_searched, changed)

    @property
    def planned_trials(self) -> int:
        """How many trials the sweep will have, searches and replicas."""
        return sum(
            (len(line.search.trials()) if self._is_exhausted(line) else self._spec.search.trials)
            + self.replicas.planned(line)
            for line in self.lines
        )

    def turns(self) -> list[Line]:
        """The lines, that which has asked least first."""
        return sorted(self.lines, key=lambda line: len(line.search.trials()))

    def rest_of_generation(self, line: Line) -> Iterator[Asked]:
        """Ask for what a kill has cut off a generation, before any trial of it goes on."""
        if (line.population or self._spec.search.deterministic) and line.search.trials():
            yield from self.searches(line)

    def searches(self, line: Line) -> Iterator[Asked]:
        """Ask for the search trials that are due."""
        wanted, generation = due(line.search, self._spec.search)
        for _ in range(0 if self._is_exhausted(line) else wanted):
            number = propose(line.search, line.arm, self._spec.search, generation)
            if number is None:
                self.exhausted.add(line.search.name)
                return
            yield "search", number

    def repetitions(self, line: Line) -> Iterator[Asked]:
        """Ask for the replicas that are due."""
        for source, seed in self.replicas.due(line):
            trial, parameters = repetition(line.arm, source, seed)
            facts = {"trial_id": trial.hash(), "spec": trial.model_dump(mode="json")}
            origin = {"seed": seed, "source": line.key("search", source.number)}
            draft = line.replica.configured(line.arm.space, parameters)
            yield "replica", line.replica.add(draft, {**facts, **origin})

    def _search_key(self, line: Line, number: int) -> str:
        return line.key("search", number)

    def _is_exhausted(self, line: Line) -> bool:
        return line.search.name in self.exhausted

    def _is_searched(self, line: Line) -> bool:
        """True when every search trial of the line has been asked for and has ended."""
        trials = line.search.trials()
        asked = len(trials) >= self._spec.search.trials or self._is_exhausted(line)
        return asked and all(t.state.is_finished() for t in trials)
