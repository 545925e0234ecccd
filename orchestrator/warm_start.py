"""What earlier sweeps have found, for a sampler to learn from: their completed trials of the same arms and tasks.

They are logged in the study as known, once, before the first trial: they are not run, do not count, and no pruner and
no replica looks at them. Their budget may have been another; their objective and the space's kind may not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import TrialState

from analysis.records import TrialRecord, read_sweep_record, read_trial_records
from hrm.errors import Problem, SpecError, TrialError
from hrm.records import Progress, TrialResult
from hrm.spec import parse_spec
from orchestrator.changes import Change, refused
from orchestrator.experiment import Arm, Experiment, ExperimentSpec
from orchestrator.objectives import Objectives
from orchestrator.store import SweepStore
from orchestrator.studies import KNOWN, SearchStudy


@dataclass(frozen=True, slots=True)
class Earlier:
    """A sweep to learn from."""

    name: str
    directory: Path
    spec: ExperimentSpec

    def problems(self, experiment: Experiment, place: str) -> list[Problem]:
        """Why nothing can be learnt from it."""
        changes: list[Change] = []
        for name in ("metric", "direction"):
            old, new = getattr(self.spec.objective, name), getattr(experiment.spec.objective, name)
            changes += [Change(("objective", name), old, new)] if old != new else []
        arms = {arm.name: arm for arm in experiment.arms if arm.name in self.spec.arms}
        if not arms:
            rule = f"{self.name} has none of the arms {', '.join(experiment.spec.arms)}"
            return [Problem(place, rule, f"It has {', '.join(self.spec.arms)}; name the arms alike")]
        for arm in arms.values():
            changes += self._differences(arm)
        return [
            Problem(place, f"{each.name} was {each.old!r} in {self.name}, and is {each.new!r} here", "Make them alike")
            for each in dict.fromkeys(changes)
        ]

    def _differences(self, arm: Arm) -> Iterator[Change]:
        old = {**self.spec.space, **self.spec.arms[arm.name].space}
        for path in dict.fromkeys([*old, *arm.space]):
            place = ("arms", arm.name, "space", path)
            if path in old and path in arm.space:
                yield from refused(Change(place, old[path].model_dump(), arm.space[path].model_dump()))
            else:
                words = {True: "searched", False: "fixed"}
                yield Change(place, words[path in old], words[path in arm.space])

    def found(self, arm: Arm) -> list[TrialRecord]:
        """Its completed trials of an arm, as far as they lie in the space."""
        return [
            trial
            for trial in read_trial_records(self.directory)
            if (trial.task, trial.arm, trial.phase, trial.state) == (arm.task, arm.name, "search", "completed")
            and not any(arm.space[path].refusal(value) for path, value in trial.parameters.items())
        ]


def earlier_sweeps(experiment: Experiment, store: SweepStore) -> list[Earlier]:
    """The sweeps that `search.warm_start` names. Raises SpecError with all that cannot be learnt from, and why."""
    found, problems = [], []
    for index, name in enumerate(experiment.spec.search.warm_start):
        place = f"search.warm_start[{index}]"
        directory = Path(name) if "/" in name else store.storage / "sweeps" / name
        try:
            record = read_sweep_record(directory)
        except FileNotFoundError:
            way_out = "Give the name of a sweep in this storage, or its directory"
            problems.append(Problem(place, f"there is no sweep at {directory}", way_out))
            continue
        earlier = Earlier(name, directory, parse_spec(ExperimentSpec, record.experiment, f"{directory}/sweep.json"))
        found.append(earlier)
        problems += earlier.problems(experiment, place)
    if problems:
        raise SpecError(*problems)
    return found


def learn(study: SearchStudy, arm: Arm, objectives: Objectives, sweeps: list[Earlier]) -> None:
    """Log what the sweeps found of an arm in its study; a driver that was killed at it goes on."""
    there = {t.user_attrs[KNOWN] for t in study.known_trials()}
    for earlier in sweeps:
        for trial in earlier.found(arm):
            name = f"{earlier.name}/{trial.key}"
            if name in there or trial.result is None:
                continue
            result = TrialResult(**{**trial.result, "progress": Progress(**trial.result["progress"])})
            try:
                values = objectives.values(trial.spec, result)
            except TrialError:
                continue
            draft = study.configured(arm.space, {path: trial.parameters[path] for path in arm.space})
            study.add(draft, {KNOWN: name, "spec": trial.spec}, TrialState.COMPLETE, values)
