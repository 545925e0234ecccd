"""What a sweep's directory says, as typed values: the form that the orchestrator writes and the analysis reads.

    SWEEP/sweep.json                          SweepRecord, written atomically
    SWEEP/trials/KEY/trial.json               TrialRecord, written atomically at every change of state
    SWEEP/trials/KEY/records.jsonl            hrm.records.Report, one line each, appended by the driver
    SWEEP/trials/KEY/attempts/N/step-*/       checkpoints (hrm.checkpoint)
    SWEEP/trials/KEY/log.txt                  what the trial printed and why it failed

The search's own log is Optuna's journal beside them; these files repeat from it what a reader needs without Optuna.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from hrm.errors import Problem, SpecError

SCHEMA = 1

Phase = Literal["search", "replica"]
TrialState = Literal["waiting", "running", "completed", "pruned", "failed"]


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial of a sweep, whatever its state."""

    key: str
    """Names its directory and its MLflow run: `baseline-search-0003`, `transformer-replica-0001`."""
    task: str
    arm: str
    phase: Phase
    """`search` trials choose configurations on validation; `replica` trials decide the comparison on test."""
    number: int
    """Its number in its Optuna study, from 0."""
    trial_id: str
    """The hash of its spec: equal specs, equal ids."""
    spec: dict[str, Any]
    """The whole TrialSpec as JSON data."""
    parameters: dict[str, Any]
    """What was searched: dotted path in the spec to value. A replica repeats those of its source."""
    state: TrialState = "waiting"
    reason: str = ""
    """Why it was pruned, failed or ended early, in a sentence; empty otherwise."""
    error: str = ""
    """The traceback of a failure."""
    source: str = ""
    """Replicas: the key of the search trial whose configuration this is."""
    lineage: list[dict[str, Any]] = field(default_factory=list)
    """Members of a population: each state that it took over, `{report, from, value, parameters}`: after which report,
    of which trial, the objective there, and what it changed of that trial's parameters."""
    no_more_seeds: str = ""
    """Replicas: why its configuration gets no further seeds, in a sentence; empty where it does."""
    attempts: int = 0
    started: float | None = None
    """Wall clock in seconds since the epoch."""
    ended: float | None = None
    num_parameters: int | None = None
    """Trainable values without puzzle tables."""
    resolved: dict[str, Any] = field(default_factory=dict)
    """What every `auto` became: precision, attention, threads, device."""
    objective: float | None = None
    """The best value of the sweep's objective metric on validation so far."""
    values: list[float] = field(default_factory=list)
    """Of a completed trial, the value of each objective of its search; of a replica, of the first."""
    result: dict[str, Any] | None = None
    """hrm.records.TrialResult as a dict, when completed."""
    spent: dict[str, float] = field(default_factory=dict)
    """What all its attempts took, of a running one up to its last report: `seconds`, `cpu_seconds`, `gpu_seconds`, and
    `joules` of its GPUs where they report them."""


@dataclass(frozen=True, slots=True)
class ArmCost:
    """What an arm's trial costs as the file states it, known before it runs: tokens are all positions of a row."""

    arm: str
    task: str
    parameters: int
    """Trainable values without puzzle tables."""
    table_values: int
    """Values of the puzzle tables."""
    forward_flops_per_token: float
    """Of one segment at full depth."""
    flops_per_token: float
    """Of one segment in training, a mean over the whole training: forward, backward, the halting target."""
    segments: int
    """How many segments a row gets at most, each an optimizer step and an evaluation's forward pass."""
    flops_per_step: float
    """`flops_per_token` of the whole batch."""
    steps: int | None
    """What the budget buys where no row halts early; None for a budget in seconds."""
    tokens: float | None
    """Scored tokens in these steps, by their share in the train split."""
    parameters_range: tuple[int, int] | None = None
    """The least and the most over the arm's space, where that changes it."""
    flops_per_token_range: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class SweepRecord:
    """One sweep: its question, what it resolved to, where it ran."""

    name: str
    question: str
    experiment: dict[str, Any]
    """The resolved experiment as JSON data, with every default written out."""
    arms: list[str]
    tasks: list[str]
    metric: str
    """The objective's name among the validation and test metrics: `loss`."""
    direction: Literal["minimize", "maximize"]
    budget: dict[str, Any]
    """`{axis, amount}`: what the arms are matched by."""
    planned_trials: int
    datasets: dict[str, dict[str, Any]]
    """By task: `{recipe, fingerprint, rows: {split: n}, facts: {...}}`; facts may hold `generator_cross_entropy`, the
    best loss per token that any model can reach."""
    command: str
    """The command line that reproduces the sweep."""
    code: dict[str, Any]
    """`{commit, dirty}`; empty outside a git checkout."""
    environment: dict[str, Any]
    """Versions, host, CPU, cores."""
    created: float
    elapsed_seconds: float = 0.0
    """Seconds that a driver was at work, over all starts."""
    finished: bool = False
    exhausted: list[str] = field(default_factory=list)
    """The searches (`task/arm/search`) that ended before their number of trials: no configuration was left to run."""
    costs: list[ArmCost] = field(default_factory=list)
    """Of every arm on each of its tasks; empty in sweeps of a version that did not know them."""

    unlike: dict[str, str] = field(default_factory=dict)
    """Of several sweeps that were made one: by task, what speaks against comparing its arms."""
    store: str = ""
    """The URI of its store: what lies in `trials/KEY/attempts` is in `sweeps/NAME` there. Empty: in its directory."""

    def place_of(self, path: str) -> str:
        """Where a folder of a trial is: in the store, as a URI, or as it was, relative to the sweep's directory."""
        if not self.store:
            return path
        base, mark, query = self.store.partition("?")
        return f"{base}/sweeps/{self.name}/{path}{mark}{query}"

    def runs_on(self, arm: str, task: str) -> bool:
        """Whether the experiment has this arm on this task."""
        tasks = self.experiment.get("arms", {}).get(arm, {}).get("tasks")
        return tasks is None or task in tasks


def compared_to(costs: Sequence[ArmCost], reference: str) -> dict[str, ArmCost]:
    """By task the costs that others are held against: those of the arm `reference`; where it does not run, of the
    first that does."""
    found: dict[str, ArmCost] = {}
    for cost in costs:
        if cost.task not in found or cost.arm == reference:
            found[cost.task] = cost
    return found


def write_json(path: Path, record: SweepRecord | TrialRecord) -> None:
    """Write a record so that a reader sees the old one or the new one, never half of it."""
    text = json.dumps({"schema": SCHEMA, **asdict(record)}, indent=1)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(text)
    temporary.replace(path)


def read_sweep_record(directory: Path) -> SweepRecord:
    """SWEEP/sweep.json. Raises FileNotFoundError where there is no sweep, SpecError for another schema."""
    data = _load(directory / "sweep.json")
    return SweepRecord(**{**data, "costs": [ArmCost(**cost) for cost in data.get("costs", [])]})


def read_trial_records(directory: Path) -> list[TrialRecord]:
    """Every trial of the sweep, in the order of their keys."""
    return [read_trial_record(path.parent) for path in sorted((directory / "trials").glob("*/trial.json"))]


def read_trial_record(directory: Path) -> TrialRecord:
    """One trial, by its directory. Raises FileNotFoundError where there is none."""
    return TrialRecord(**_load(directory / "trial.json"))


def _load(path: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(path.read_text())
    schema = data.pop("schema")
    if schema != SCHEMA:
        rule = f"was written with schema {schema}, this version reads schema {SCHEMA}"
        raise SpecError(Problem(str(path), rule, "Use the version that wrote it"))
    return data
