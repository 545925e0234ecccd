"""What happened to an arm on the way, in sentences: where it started, its population, what got no more seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from analysis.numbers import listing, plural, significant
from analysis.records import TrialRecord


def course(search: Sequence[TrialRecord], replicas: Sequence[TrialRecord], chosen: Sequence[TrialRecord]) -> list[str]:
    """Of an arm's search trials, of all its replicas and of those that count; empty where nothing is to be said."""
    sentences = _population(search, chosen)
    counted = {trial.source for trial in chosen}
    for trial in replicas:
        if trial.no_more_seeds and trial.source in counted:
            sentences.append(trial.no_more_seeds)
        elif trial.no_more_seeds:
            sentences.append(f"the configuration of {trial.source}: {trial.no_more_seeds}")
    return sentences


def start_in_words(spec: dict[str, Any]) -> str:
    """The checkpoint that a trial of this spec starts from; empty where its weights are drawn from the seed."""
    start = spec.get("initialize_from")
    if not start:
        return ""
    place = start["path"]
    if start.get("trial"):
        place = f"{start['arm']} of the sweep {start['sweep']} ({start['trial']}, {PurePath(place).name})"
    anew = f", with {listing(start['without'])} drawn anew" if start.get("without") else ""
    return f"{place}, weights {start['sha256'][:16]}{anew}"


def _population(search: Sequence[TrialRecord], chosen: Sequence[TrialRecord]) -> list[str]:
    """How much was taken over, and the schedule of parameters that the replicas repeat."""
    taken = sum(len(trial.lineage) for trial in search)
    if not taken:
        return []
    members = sum(bool(trial.lineage) for trial in search)
    sentences = [
        f"a population of {len(search)}, of which {members} took over the state of a better member, "
        f"{plural(taken, 'time')} in all"
    ]
    if chosen:
        sentences.append(schedule_in_words(chosen[0].parameters, chosen[0].spec.get("changes", [])))
    return sentences


def schedule_in_words(parameters: dict[str, Any], changes: Sequence[dict[str, Any]]) -> str:
    """`its replicas repeat the winner's schedule: optimizer.learning_rate 0.003, after report 2 0.0036`."""
    if not changes:
        return "its winner kept the parameters that it began with, and its replicas do"
    names = dict.fromkeys(name for change in changes for name in change["parameters"])
    said = []
    for name in names:
        steps = [(c["report"], c["parameters"][name]) for c in changes if name in c["parameters"]]
        later = "".join(f", after report {report} {_value(value)}" for report, value in steps)
        said.append(f"{name} {_value(parameters.get(name))}{later}")
    return f"its replicas repeat the winner's schedule: {'; '.join(said)}"


def _value(value: Any) -> str:
    return significant(value) if isinstance(value, float) else str(value)
