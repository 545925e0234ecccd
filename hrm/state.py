"""TrainState: everything that a training changes, and its way into a checkpoint and back.

Random draws are functions of (seed, step, slot), so there is no generator to save. The carry is saved for the whole
global batch, so that a resume may use another number of workers.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from hrm.checkpoint import Checkpoint
from hrm.context import TrainContext
from hrm.ema import EMA
from hrm.guards import Mark
from hrm.models import Model
from hrm.records import Progress, Report, StepRecord
from hrm.segments import Carry
from hrm.start import take_over
from hrm.tasks import TaskShape
from hrm.trial import TrialSpec

_CARRY_FIELDS = ("segments", "halted", "refills")


@dataclass(frozen=True, slots=True)
class Best:
    """The best report so far by the objective."""

    value: float
    step: int
    checkpoint: str
    """Relative to the trial's directory."""
    validation: dict[str, float]


@dataclass(slots=True)
class TrainState:
    """The whole state of a training between two steps."""

    model: Model
    optimizer: Optimizer
    carry: Carry
    ema: EMA | None = None
    progress: Progress = field(default_factory=Progress)
    best: Best | None = None
    pending: list[StepRecord] = field(default_factory=list)
    """Steps since the last report."""
    last_report: Report | None = None
    history: list[Mark] = field(default_factory=list)
    """What guards keep of every report so far."""
    lineage: dict[str, Any] | None = None
    """Whose weights the training started from; None: from its seed."""

    @classmethod
    def begin(
        cls,
        trial: TrialSpec,
        shape: TaskShape,
        resolved: dict[str, Any],
        context: TrainContext,
        checkpoint: Checkpoint | None,
    ) -> TrainState:
        """The state to go on from: the checkpoint's, else a fresh one with the weights that the trial starts from."""
        state = cls.fresh(trial, shape, resolved, context)
        if checkpoint is not None:
            state.restore(checkpoint, trial, context)
        elif trial.initialize_from is not None:
            state.lineage = take_over(trial.initialize_from, trial.model, state.model)
            if state.ema is not None:
                state.ema.load(state.model.state_dict())
        return state

    @classmethod
    def fresh(cls, trial: TrialSpec, shape: TaskShape, resolved: dict[str, Any], context: TrainContext) -> TrainState:
        """Weights drawn from the trial's seed, on the CPU, so that they do not depend on the device."""
        torch.manual_seed(trial.seed)
        model = trial.model.build(shape).to(context.device)
        how = getattr(torch, resolved["precision"]), resolved["attention"], resolved["compiled"]
        model.configure(*how, recomputes=trial.activation_checkpointing)
        model.train()
        slots = len(local_slots(trial, context))
        carry = Carry.empty(model, slots, shape.sequence_length, context.device)
        ema = None if trial.ema is None else EMA(model, trial.ema)
        return cls(model, trial.optimizer.build(model), carry, ema)

    def save(self, context: TrainContext, manifest: dict[str, Any]) -> Checkpoint:
        """A copy on the CPU. Every worker must call it (it gathers the carry); the first one writes the result."""
        carry = self._carry_tensors()
        training = {f"carry.{name}": _to_cpu(context.all_gather(value)) for name, value in carry.items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                training[f"optimizer.{name}.{key}"] = _to_cpu(value)
        state = {
            "progress": asdict(self.progress),
            "best": None if self.best is None else asdict(self.best),
            "pending": [asdict(record) for record in self.pending],
            "last_report": None if self.last_report is None else asdict(self.last_report),
            "history": [asdict(mark) for mark in self.history],
        }
        model = {name: _to_cpu(value) for name, value in self.model.state_dict().items()}
        ema = None if self.ema is None else {name: _to_cpu(value) for name, value in self.ema.means.items()}
        return Checkpoint(model, training, state, manifest, ema)

    def restore(self, checkpoint: Checkpoint, trial: TrialSpec, context: TrainContext) -> None:
        """Take over a checkpoint's state; the slice of the carry that is this worker's."""
        self.take_weights(checkpoint)
        self.lineage = checkpoint.manifest.get("lineage")
        self._take_moments(checkpoint.training)
        mine = local_slots(trial, context)
        self._take_carry({k: v[mine].to(context.device) for k, v in checkpoint.training.items() if k[:6] == "carry."})
        state = checkpoint.state
        self.progress = Progress(**state["progress"])
        self.best = None if state["best"] is None else Best(**state["best"])
        self.pending = [StepRecord(Progress(**r["progress"]), r["time"], r["metrics"]) for r in state["pending"]]
        self.last_report = None if state["last_report"] is None else Report.from_dict(state["last_report"])
        self.history = [Mark(**mark) for mark in state.get("history", [])]

    def take_weights(self, checkpoint: Checkpoint) -> None:
        """Take over a checkpoint's weights alone, the averaged ones among them."""
        self.model.load_state_dict(checkpoint.model)
        if self.ema is not None:
            self.ema.load(checkpoint.evaluation_weights)

    def settle_in(self, name: str, metric: str, lineage: dict[str, Any]) -> None:
        """Make another trial's state, taken over at a report, this trial's: under the checkpoint `name`, its best so
        far."""
        report = self.last_report
        assert report is not None, "a state is taken over at a report"
        self.best = Best(report.validation[metric], report.progress.step, name, report.validation)
        self.last_report = replace(report, checkpoint=name)
        self.lineage = lineage

    def with_evaluation_weights(self) -> AbstractContextManager[None]:
        """Inside, the model holds the weights to evaluate with: the averaged ones if the trial has them."""
        return nullcontext() if self.ema is None else self.ema.in_the_model()

    def _take_moments(self, training: dict[str, Tensor]) -> None:
        """Through torch's own loading, which knows what belongs on which device (`step` does not always)."""
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        packed = self.optimizer.state_dict()
        in_order = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        for number, parameter in enumerate(in_order):
            moments = _below(f"optimizer.{names[parameter]}.", training)
            if moments:
                packed["state"][number] = moments
        self.optimizer.load_state_dict(packed)

    def _carry_tensors(self) -> dict[str, Tensor]:
        tensors = {name: getattr(self.carry, name) for name in _CARRY_FIELDS}
        tensors |= {f"state.{name}": value for name, value in self.carry.state.items()}
        return tensors | {f"rows.{name}": value for name, value in self.carry.rows.items()}

    def _take_carry(self, tensors: dict[str, Tensor]) -> None:
        plain = {name: tensors[f"carry.{name}"] for name in _CARRY_FIELDS}
        self.carry = Carry(state=_below("carry.state.", tensors), rows=_below("carry.rows.", tensors), **plain)


def local_slots(trial: TrialSpec, context: TrainContext) -> Tensor:
    """The places of this worker's rows in the global batch: a contiguous share, sizes differing by at most one."""
    return torch.arange(trial.batch_size).tensor_split(context.world_size)[context.rank]


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}


def _to_cpu(value: Tensor) -> Tensor:
    return value.detach().to("cpu", copy=True).contiguous()
