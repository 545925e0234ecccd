"""Several sweeps as one, so that a report can hold them against each other.

Metric and direction must agree. An arm or a task keeps its name where it means one thing, else it becomes SWEEP/NAME:
an arm that two sweeps ran on the same rows or define differently, a task whose rows differ. Trials become SWEEP/KEY.
What speaks against comparing the arms is said (`SweepRecord.unlike`), and no winner is declared over it.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis.numbers import amount, listing
from analysis.records import SweepRecord, TrialRecord
from analysis.sweep import Origin, Part, Sweep
from hrm.errors import Problem, SpecError

Renamed = Mapping[str, str]


def join(sweeps: Sequence[Sweep]) -> Sweep:
    """One sweep of all; a single one comes back as it is.

    Raises SpecError: a sweep is given twice, or they do not measure the same.
    """
    if len(sweeps) == 1:
        return sweeps[0]
    _check(sweeps)
    tasks, arms = _task_names(sweeps), _arm_names(sweeps)
    joined = Sweep(
        directory=Path(os.path.commonpath([sweep.directory.absolute() for sweep in sweeps])),
        record=_record([sweep.record for sweep in sweeps], tasks, arms),
        trials=[],
    )
    for sweep in sweeps:
        name = sweep.record.name
        for trial in sweep.trials:
            renamed = _trial(trial, name, tasks[name], arms[name])
            joined.trials.append(renamed)
            joined.origins[renamed.key] = Origin(sweep, trial.key)
    joined.parts = [_part(sweep, tasks, arms) for sweep in sweeps]
    return joined


def _check(sweeps: Sequence[Sweep]) -> None:
    records, place = [sweep.record for sweep in sweeps], "report"
    problems = [
        Problem(
            place,
            f"the sweep {name!r} is given {n} times",
            "Name each sweep once; two of one name cannot be told apart",
        )
        for name, n in Counter(record.name for record in records).items()
        if n > 1
    ]
    for what in ("metric", "direction"):
        values = {record.name: str(getattr(record, what)) for record in records}
        if len(set(values.values())) > 1:
            said = ", ".join(f"{name} {value}" for name, value in values.items())
            rule = f"sweeps in one report must have the same objective.{what}, got {said}"
            problems.append(Problem(place, rule, "Report on those apart that differ"))
    if problems:
        raise SpecError(*problems)


def _task_names(sweeps: Sequence[Sweep]) -> dict[str, dict[str, str]]:
    """By sweep, what its tasks are called: one name for one set of rows."""
    rows: dict[str, set[str]] = {}
    for sweep in sweeps:
        for task in sweep.record.tasks:
            rows.setdefault(task, set()).add(_fingerprint(sweep.record, task))
    return {
        sweep.record.name: {
            task: task if len(rows[task]) == 1 else f"{sweep.record.name}/{task}" for task in sweep.record.tasks
        }
        for sweep in sweeps
    }


def _arm_names(sweeps: Sequence[Sweep]) -> dict[str, dict[str, str]]:
    """By sweep, what its arms are called."""
    own = {arm for sweep in sweeps for arm in sweep.record.arms if _is_one_thing([s.record for s in sweeps], arm)}
    return {
        sweep.record.name: {arm: arm if arm in own else f"{sweep.record.name}/{arm}" for arm in sweep.record.arms}
        for sweep in sweeps
    }


def _is_one_thing(records: Sequence[SweepRecord], arm: str) -> bool:
    """Whether one sweep has the arm, or several have the same one, each on rows of its own."""
    having = [record for record in records if arm in record.arms]
    definitions = [(r.experiment.get("base"), r.experiment.get("arms", {}).get(arm, {}).get("patch")) for r in having]
    rows = [(task, _fingerprint(r, task)) for r in having for task in r.tasks if r.runs_on(arm, task)]
    return all(each == definitions[0] for each in definitions) and len(set(rows)) == len(rows)


def _fingerprint(record: SweepRecord, task: str) -> str:
    return str(record.datasets.get(task, {}).get("fingerprint", ""))


def _trial(trial: TrialRecord, sweep: str, tasks: Renamed, arms: Renamed) -> TrialRecord:
    return replace(
        trial,
        key=f"{sweep}/{trial.key}",
        task=tasks[trial.task],
        arm=arms[trial.arm],
        source=trial.source and f"{sweep}/{trial.source}",
    )


def _record(records: Sequence[SweepRecord], tasks: Mapping[str, Renamed], arms: Mapping[str, Renamed]) -> SweepRecord:
    first = records[0]

    def renamed(names: Mapping[str, Renamed], of: Callable[[SweepRecord], Sequence[str]]) -> list[str]:
        return list(dict.fromkeys(names[record.name][name] for record in records for name in of(record)))

    return replace(
        first,
        name=" + ".join(record.name for record in records),
        question="\n".join(dict.fromkeys(record.question for record in records if record.question)),
        experiment=_experiment(records, tasks, arms),
        arms=renamed(arms, lambda record: record.arms),
        tasks=renamed(tasks, lambda record: record.tasks),
        budget=first.budget if all(record.budget == first.budget for record in records) else {},
        planned_trials=sum(record.planned_trials for record in records),
        datasets={tasks[r.name][task]: data for r in records for task, data in r.datasets.items() if task in r.tasks},
        command="\n".join(record.command for record in records),
        code=first.code if all(record.code == first.code for record in records) else {},
        environment=_environment(records),
        created=min(record.created for record in records),
        elapsed_seconds=sum(record.elapsed_seconds for record in records),
        finished=all(record.finished for record in records),
        exhausted=[_study(name, tasks[r.name], arms[r.name]) for r in records for name in r.exhausted],
        costs=[
            replace(cost, arm=arms[record.name][cost.arm], task=tasks[record.name][cost.task])
            for record in records
            for cost in record.costs
        ],
        store="",
        unlike=_unlike(records, tasks),
    )


def _experiment(
    records: Sequence[SweepRecord], tasks: Mapping[str, Renamed], arms: Mapping[str, Renamed]
) -> dict[str, Any]:
    """What all experiments have alike, with every arm on the tasks that it ran on."""
    first = records[0].experiment
    alike = {key: value for key, value in first.items() if all(r.experiment.get(key) == value for r in records)}
    known: dict[str, dict[str, Any]] = {}
    for record in records:
        for arm in record.arms:
            its = [tasks[record.name][task] for task in record.tasks if record.runs_on(arm, task)]
            asked = record.experiment.get("arms", {}).get(arm, {})
            before = known.get(arms[record.name][arm], {"tasks": []})
            known[arms[record.name][arm]] = {**asked, "tasks": before["tasks"] + its}
    match = first.get("match") or {}
    reference = arms[records[0].name].get(match.get("to") or records[0].arms[0])
    return {**alike, "arms": known, "match": {**match, "to": reference}}


def _environment(records: Sequence[SweepRecord]) -> dict[str, Any]:
    """What they ran on, with every value that occurs."""
    names = dict.fromkeys(name for record in records for name in record.environment)
    every = {name: [r.environment[name] for r in records if name in r.environment] for name in names}
    return {
        name: found[0] if all(value == found[0] for value in found) else " or ".join(dict.fromkeys(map(str, found)))
        for name, found in every.items()
    }


def _study(name: str, tasks: Renamed, arms: Renamed) -> str:
    task, arm, phase = name.split("/")
    return f"{tasks[task]}/{arms[arm]}/{phase}"


def _unlike(records: Sequence[SweepRecord], tasks: Mapping[str, Renamed]) -> dict[str, str]:
    """By task, what speaks against comparing arms that are from several sweeps."""
    found = {}
    for task in dict.fromkeys(name for record in records for name in tasks[record.name].values()):
        having = [record for record in records if task in tasks[record.name].values()]
        budgets = {record.name: _budget(record) for record in having}
        if len(set(budgets.values())) > 1:
            said = listing([f"{budget} in {name}" for name, budget in budgets.items()])
            found[task] = f"the sweeps gave their trials different budgets ({said})"
    return found


def _budget(record: SweepRecord) -> str:
    axis, size = record.budget.get("axis"), record.budget.get("amount")
    return amount(float(size), str(axis)) if axis and size is not None else "an unknown budget"


def _part(sweep: Sweep, tasks: Mapping[str, Renamed], arms: Mapping[str, Renamed]) -> Part:
    record = sweep.record
    return Part(
        name=record.name,
        question=record.question,
        finished=record.finished,
        trials=len(sweep.trials),
        arms=list(arms[record.name].values()),
        tasks=list(tasks[record.name].values()),
        budget=dict(record.budget),
        code=dict(record.code),
        command=record.command,
    )
