"""The lines of a sweep: each an arm on a task, with a study of its search and one of its replicas."""

from __future__ import annotations

from dataclasses import dataclass

from optuna.storages import JournalStorage

from analysis.records import Phase
from hrm.trial import TrialSpec
from orchestrator.experiment import Arm, Experiment
from orchestrator.objectives import Objectives
from orchestrator.population import Population
from orchestrator.store import SweepStore
from orchestrator.studies import SearchStudy
from orchestrator.warm_start import earlier_sweeps, learn


@dataclass(frozen=True, slots=True)
class Line:
    """An arm on a task with its two studies."""

    arm: Arm
    search: SearchStudy
    replica: SearchStudy
    name: str
    """What the keys of its trials begin with."""
    population: Population | None = None

    def study(self, phase: Phase) -> SearchStudy:
        """The study of a phase."""
        return self.search if phase == "search" else self.replica

    def key(self, phase: Phase, number: int) -> str:
        """The key of a trial."""
        return f"{self.name}-{phase}-{number:04d}"


def open_lines(
    experiment: Experiment, storage: JournalStorage, store: SweepStore, objectives: Objectives
) -> list[Line]:
    """Every arm on each of its tasks; a new one has learnt what earlier sweeps have found."""
    lines = [_line(experiment, storage, arm, objectives) for arm in experiment.arms]
    new = [line for line in lines if not line.search.trials()]
    sweeps = earlier_sweeps(experiment, store) if new else []
    for line in new:
        learn(line.search, line.arm, objectives, sweeps)
    return lines


def _line(experiment: Experiment, storage: JournalStorage, arm: Arm, objectives: Objectives) -> Line:
    spec, study = experiment.spec, f"{arm.task}/{arm.name}"
    reports = int(arm.template.get("num_reports", TrialSpec.model_fields["num_reports"].default))
    search = SearchStudy(storage, f"{study}/search", spec.search, objectives.directions, reports)
    replica = SearchStudy(storage, f"{study}/replica", spec.search, [spec.objective.direction], reports)
    name = f"{arm.task}-{arm.name}" if len(experiment.tasks) > 1 else arm.name
    of = spec.search.population
    population = None if of is None else Population(of, search, arm, f"{name}-search-")
    return Line(arm, search, replica, name, population)
