"""What a rendered job is made of, whatever it is rendered for: the experiment, the nodes, the command that they run.

Everything about it is proved while rendering: the file, that a trial fits the nodes, and names.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from hrm.errors import Problem, SpecError
from hrm.strict_yaml import read_yaml
from orchestrator.experiment import load_experiment

IN_IMAGE = "/opt/hrm-orchestrator"
"""Where the Dockerfile puts the repository."""
GRACE_SECONDS = 120
"""Between the notice and the end: time for a checkpoint of every running trial."""
RESTARTS = 5
"""Of the whole job after a failure of the cluster; each goes on from the newest checkpoints."""


@dataclass(frozen=True, slots=True)
class ClusterJob:
    """A sweep and the equal nodes that it is to run on."""

    experiment: Path
    name: str
    """The sweep's."""
    overrides: tuple[str, ...] = ()
    smoke: bool = False
    store: str | None = None
    nodes: int = 1
    cpus: int = 8
    """Of each node, as the next two."""
    gpus: int = 0
    memory_gib: int = 32

    @property
    def label(self) -> str:
        """The name as Kubernetes and file names like it."""
        return self.name.replace("_", "-").replace(".", "-").lower()

    def sweep(self, experiment: str, storage: str, *more: str) -> str:
        """The driver's command, quoted for a shell."""
        words = ["python", "-m", "orchestrator", "sweep", experiment, "--name", self.name, "--storage", storage]
        words += [word for override in self.overrides for word in ("--set", override)]
        words += ["--smoke"] if self.smoke else []
        words += ["--store", self.store] if self.store else []
        return shlex.join([*words, *more])


def check_job(job: ClusterJob, storage: Path) -> None:
    """Raises SpecError with everything that is wrong: the file, the name, the nodes.

    `storage`: where here the sweeps are that the file names.
    """
    problems = [
        Problem(option, f"must be >= {least}, got {value}", "Raise it")
        for option, value, least in (
            ("--nodes", job.nodes, 1),
            ("--cpus", job.cpus, 1),
            ("--gpus", job.gpus, 0),
            ("--memory", job.memory_gib, 1),
        )
        if value < least
    ]
    try:
        loaded = load_experiment(job.experiment, list(job.overrides), job.smoke, job.name, storage)
        if not problems:
            loaded.spec.resources.concurrency([(job.cpus, job.gpus)] * job.nodes)
    except SpecError as error:
        problems += error.problems
    if problems:
        raise SpecError(*problems)


def check_recipes(job: ClusterJob) -> None:
    """Raises SpecError for recipes by path: into a container goes the experiment's file, and what the image holds."""
    tasks = read_yaml(job.experiment).get("tasks", [])
    problems = [
        Problem(
            f"{job.experiment}: tasks[{number}]",
            f"is a file that the container does not have, {task!r}",
            "Put it into datasets/ and name it, or write the recipe out",
        )
        for number, task in enumerate(tasks)
        if isinstance(task, str) and task.endswith((".yaml", ".yml"))
    ]
    if problems:
        raise SpecError(*problems)


def check_label(place: str, value: str, longest: int = 63) -> None:
    """Raises SpecError where Kubernetes would not take a name (a DNS label of RFC 1123)."""
    if len(value) > longest or not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", value):
        rule = f"must be a DNS label of at most {longest} characters (a-z, 0-9, '-'), got {value!r}"
        raise SpecError(Problem(place, rule, "Give another"))
