"""Which checkpoints of ended trials are kept: the best trials' and every replica's; the others are removed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from analysis.records import Phase, TrialRecord
from orchestrator.lines import Line
from orchestrator.store import SweepStore

PHASES: tuple[Phase, Phase] = ("search", "replica")


class Keeping:
    """Removes checkpoints as trials end. `whole_front`: a search has several best trials."""

    def __init__(self, store: SweepStore, records: Mapping[str, TrialRecord], whole_front: bool) -> None:
        self._store, self._records, self._whole_front = store, records, whole_front
        self._winners: dict[str, set[int]] = {}
        """The best completed trials of each search."""

    def ended(self, line: Line, phase: Phase, number: int) -> None:
        """A trial has ended: it, or one that was the best before it, may be none of the best."""
        self._drop(line, phase, {number} | self._winners.get(line.study(phase).name, set()))

    def sweep(self, lines: Sequence[Line]) -> None:
        """Look at everything that has ended: a driver was killed, or a checkpoint was on its way when its trial was
        pruned."""
        with self._store.one_listing():
            for line in lines:
                for phase in PHASES:
                    self._drop(line, phase, [t.number for t in line.study(phase).trials() if t.state.is_finished()])

    def _drop(self, line: Line, phase: Phase, ended: Iterable[int]) -> None:
        """Of a search, keep the best trial's best checkpoint, of a Pareto front each trial's; of each replica, its
        best. Looks at `ended` only."""
        study = line.study(phase)
        if phase == "search" and line.population:
            if not line.population.is_over():
                return  # a loser's state may still be taken over
            ended = [trial.number for trial in study.trials()]
        if phase == "search":
            best = study.ranked()
            self._winners[study.name] = {t.number for t in (best if self._whole_front else best[:1])}
        for number in ended:
            result = self._records[line.key(phase, number)].result
            wins = phase == "replica" or number in self._winners[study.name]
            keep = {result["best_checkpoint"]} if result is not None and wins else set()
            self._store.drop_checkpoints(line.key(phase, number), keep)
