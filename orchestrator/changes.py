"""What of an experiment may change under a sweep's name, and what may not: said field by field.

More trials and replicas go on where the sweep ended. A range may be moved, narrowed or widened; what was found outside
of it still counts. Points to try first may come and go. Everything else would mix two experiments in one answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from analysis.records import TrialRecord, read_trial_records
from hrm.errors import Problem, SpecError
from hrm.spec import parse_spec
from orchestrator.experiment import ExperimentSpec
from orchestrator.space import Dimension
from orchestrator.store import SweepStore

_UNDO = "Undo it, or give another --name"
_NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Change:
    """A field that differs."""

    path: tuple[str, ...]
    old: Any
    new: Any

    @property
    def name(self) -> str:
        """As the file would say it."""
        return ".".join(self.path)


def check_changes(spec: ExperimentSpec, store: SweepStore, fingerprints: dict[str, str]) -> bool:
    """Compare an experiment with the sweep that is in the store; True if there may be more to do than there was.

    Raises SpecError with every change that is refused. `fingerprints`: of each task's data.
    """
    record = store.read_sweep()
    place = str(store.directory)
    stored = parse_spec(ExperimentSpec, record.experiment, f"{place}/sweep.json")
    changes = list(differences(stored.science(), spec.science()))
    problems = [_refusal(change, place) for each in changes for change in refused(each) or fixed(each, stored)]
    if changes:
        problems += _fewer(stored, spec, read_trial_records(store.directory), place)
    for name, new in fingerprints.items():
        old = record.datasets.get(name, {}).get("fingerprint")
        if old != new:
            problems.append(_refusal(Change(("datasets", name), old or _NOTHING, new), place))
    if problems:
        raise SpecError(*problems)
    return bool(changes)


def differences(old: Any, new: Any, path: tuple[str, ...] = ()) -> Iterator[Change]:
    """Every field of two experiments that is not the same; a dimension of a space is one field."""
    if old == new:
        return
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = ({str(place): value for place, value in enumerate(values)} for values in (old, new))
    if not (isinstance(old, dict) and isinstance(new, dict)) or path[-2:-1] == ("space",):
        yield Change(path, old, new)
        return
    for key in dict.fromkeys([*old, *new]):
        yield from differences(old.get(key, _NOTHING), new.get(key, _NOTHING), (*path, key))


def refused(change: Change) -> list[Change]:
    """What of a change would make what was found another experiment's; how much of it there is, is another question."""
    match change.path:
        case ("search", "trials") | ("replicas", "seeds" | "configurations"):
            return []
        case ("search", "points", *_) | ("arms", _, "points", *_):
            return []
    if change.path[-2:-1] == ("space",) and isinstance(change.old, dict) and isinstance(change.new, dict):
        return _moved(change)
    return [change]


def fixed(change: Change, began: ExperimentSpec) -> list[Change]:
    """The change, where decisions were made that hang on how many trials and seeds there were to be: by a population,
    and by replicas of which some were to get no more seeds."""
    in_rounds = began.replicas.adaptive or began.replicas.pruner is not None
    decided = (began.search.population is not None and change.path[0] != "replicas") or in_rounds
    return [change] if decided else []


def _moved(change: Change) -> list[Change]:
    """The fields of a dimension that may not change: all but the ends of its range."""
    old, new = parse_spec(Dimension, change.old, change.name), parse_spec(Dimension, change.new, change.name)
    found = [
        Change((*change.path, name), getattr(old, name), getattr(new, name))
        for name in ("choices", "log", "step")
        if getattr(old, name) != getattr(new, name)
    ]
    if not found and old.choices is None and old.is_whole != new.is_whole:
        words = {True: "whole numbers", False: "numbers"}
        found = [Change(change.path, words[old.is_whole], words[new.is_whole])]
    return found


def _refusal(change: Change, place: str) -> Problem:
    return Problem(f"{place}: {change.name}", f"was {change.old!r} when the sweep began, and is {change.new!r}", _UNDO)


def _fewer(old: ExperimentSpec, new: ExperimentSpec, trials: list[TrialRecord], place: str) -> list[Problem]:
    """Fewer trials than were run already."""
    searched = Counter((t.task, t.arm) for t in trials if t.phase == "search")
    seeds = Counter(t.source for t in trials if t.phase == "replica")
    there = {
        "search.trials": (new.search.trials, max(searched.values(), default=0)),
        "replicas.seeds": (new.replicas.seeds, max(seeds.values(), default=0)),
        "replicas.configurations": (new.replicas.configurations, old.replicas.configurations if seeds else 0),
    }
    return [
        Problem(f"{place}: {name}", f"must be >= {ran}, which were run already, got {wanted}", f"Raise it to {ran}")
        for name, (wanted, ran) in there.items()
        if wanted < ran
    ]
