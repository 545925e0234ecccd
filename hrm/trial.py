"""TrialSpec: everything that changes the numbers of one training; equal specs are equal trials.

What changes only the speed or the place (devices, threads, workers) is not here. The id of a trial is the hash of its
canonical form (`hrm.spec.Spec.canonical`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from hrm.changes import ChangeSpec, changed, unchangeable
from hrm.errors import Problem, SpecError
from hrm.guards import GuardsSpec
from hrm.models import ModelSpec
from hrm.nn.losses import LossKind, LossTerms
from hrm.optim import OptimizerSpec
from hrm.records import Progress
from hrm.schedule import ScheduleSpec
from hrm.spec import Spec, parse_spec
from hrm.start import StartSpec
from hrm.tasks import TaskShape, TaskSpec
from hrm.variants import union

if TYPE_CHECKING:
    AnyTaskSpec = TaskSpec
    AnyModelSpec = ModelSpec
    AnyOptimizerSpec = OptimizerSpec
else:
    AnyTaskSpec = union("hrm.tasks", TaskSpec)
    AnyModelSpec = union("hrm.models", ModelSpec)
    AnyOptimizerSpec = union("hrm.optim", OptimizerSpec)


class BudgetSpec(Spec):
    """How long a trial trains, and what arms are matched by."""

    axis: Literal["steps", "examples", "tokens", "flops", "seconds"] = "steps"
    """`examples`: rows that enter the carry. `flops`: training FLOPs by the model's formula. `seconds` is not exactly
    resumable, and says so."""
    amount: float = Field(1000.0, gt=0.0)

    def spent(self, progress: Progress) -> float:
        """The share of the budget that is used up; 1 or more when it is done."""
        used = progress.step if self.axis == "steps" else getattr(progress, self.axis)
        return float(used) / self.amount


class ObjectiveSpec(Spec):
    """The validation metric that chooses checkpoints and configurations."""

    metric: str = "loss"
    direction: Literal["minimize", "maximize"] = "minimize"

    def better(self, new: float, old: float | None) -> bool:
        """True if `new` is strictly better than `old` (None: nothing yet)."""
        if old is None:
            return True
        return new < old if self.direction == "minimize" else new > old


class TrialSpec(Spec):
    """One training: task, model, optimizer, schedule, batch, precision, budget, seed."""

    task: AnyTaskSpec
    model: AnyModelSpec
    optimizer: AnyOptimizerSpec
    schedule: ScheduleSpec = ScheduleSpec()
    budget: BudgetSpec = BudgetSpec()
    objective: ObjectiveSpec = ObjectiveSpec()
    batch_size: int = Field(32, ge=1)
    """Rows in the global batch, over all workers."""
    accumulation: int = Field(1, ge=1)
    """In how many parts, one after the other, each worker computes its share of a step's batch. The numbers are those
    of one part to rounding; activations take so much less memory."""
    activation_checkpointing: bool = False
    """True: blocks are computed again in the backward pass instead of keeping what they computed. Equal gradients, less
    memory; the blocks' further forward pass counts as FLOPs."""
    clip_norm: float | None = Field(None, gt=0.0)
    """The largest global gradient norm; null for no clipping."""
    ema: float | None = Field(None, gt=0.0, lt=1.0)
    """Decay of an average of the weights (TRM: 0.999) with which all evaluations are done; null for none."""
    loss: LossKind = "softmax"
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0)
    """The share of the training's target that is spread evenly over the vocabulary. Every `loss` that is reported stays
    the plain cross-entropy, so that arms compare."""
    z_loss: float = Field(0.0, ge=0.0)
    """The weight of a further loss, the mean of log^2 Z, Z being what probabilities are divided by (PaLM: 1e-4): it
    keeps logits from drifting away. The step metric `z_loss` is that mean without its weight."""
    q_loss_weight: float = Field(0.5, ge=0.0)
    """The weight of the Q's losses beside the language loss (0.5 in the originals)."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of activations and matrix products; weights and optimizer stay float32. `auto`: bfloat16 where the hardware
    computes it fast."""
    sampling: Literal["sequential", "original"] = "sequential"
    """`sequential`: every row once per epoch. `original`: every step draws a whole batch, and rows that meet a slot
    which has not halted are dropped, as the original counts them."""
    epochs_per_iteration: int | None = Field(None, ge=1)
    """Where `sampling` is `original`: epochs that run on without a seam (its `eval_interval`); null for at least 100
    batches."""
    num_reports: int = Field(8, ge=1)
    """Evaluations on validation, evenly spaced over the budget; a checkpoint is written at each."""
    guards: GuardsSpec = GuardsSpec()
    """What ends the training at a report, before its budget is spent."""
    seed: int = Field(0, ge=0, lt=2**31)
    initialize_from: StartSpec | None = None
    """The checkpoint whose weights a fresh training starts from; null: weights drawn from the seed."""
    changes: tuple[ChangeSpec, ...] = ()
    """Parameters that change at reports, in their order: the schedule that a population found."""

    @property
    def loss_terms(self) -> LossTerms:
        """What the training minimises."""
        return LossTerms(self.loss, self.label_smoothing, self.z_loss, self.q_loss_weight)

    def training_flops(self, shape: TaskShape, spent: float = 1.0) -> float:
        """Of one segment on one row, `spent` of the budget into the training."""
        flops = self.model.flops(shape, spent)
        return flops.training + (flops.recomputed if self.activation_checkpointing else 0.0)

    def at(self, report: int) -> Self:
        """The trial as it trains from the end of this report on."""
        made = [change for change in self.changes if change.report <= report]
        if not made:
            return self
        data = self.model_dump(mode="json", exclude={"changes"})
        for change in made:
            data = changed(data, change.parameters)
        return parse_spec(type(self), data, f"the trial after report {report}")

    @model_validator(mode="after")
    def _iterations_are_the_originals(self) -> Self:
        if self.epochs_per_iteration is not None and self.sampling != "original":
            raise ValueError(
                f"epochs_per_iteration must be null where sampling is {self.sampling!r}, got "
                f"{self.epochs_per_iteration}; set sampling: original"
            )
        return self

    @model_validator(mode="after")
    def _parts_hold_rows(self) -> Self:
        if self.accumulation > self.batch_size:
            most = f"batch_size, which is {self.batch_size}"
            raise ValueError(f"accumulation must be at most {most}, got {self.accumulation}; lower it")
        return self

    @model_validator(mode="after")
    def _guards_can_act(self) -> Self:
        for field, reports in self.guards.idle(self.num_reports).items():
            raise ValueError(
                f"guards.{field} must be below num_reports, which is {self.num_reports}, got {reports}; lower it, or "
                "raise num_reports"
            )
        return self

    @model_validator(mode="after")
    def _changes_can_be_made(self) -> Self:
        reports, last = [change.report for change in self.changes], self.num_reports - 1
        if reports != sorted(set(reports)) or not all(report <= last for report in reports):
            raise ValueError(f"changes: their reports must rise and be at most {last}, got {reports}; order them")
        for path in dict.fromkeys(path for change in self.changes for path in change.parameters):
            if problem := unchangeable(path, path):
                raise ValueError(f"changes: {path} {problem.rule}, got a change of it; {problem.way_out}")
        try:
            self.at(last)
        except SpecError as error:
            raise ValueError(f"changes must leave a valid trial, got {error}") from error
        return self


def refusals(trial: TrialSpec, place: str) -> list[Problem]:
    """Why this model must not be trained on this task, if so; `place` starts each problem."""
    problems = []
    if trial.task.next_token and trial.model.sees_the_future:
        problems.append(
            Problem(
                f"{place}: model.causal",
                f"a {trial.model.kind} that sees the future is refused on next-token data: position t would read the "
                "token that it has to predict",
                trial.model.way_to_causality,
            )
        )
    rule = trial.model.halting_rule().rule
    if trial.task.next_token and rule not in ("none", "q_loss"):
        problems.append(
            Problem(
                f"{place}: model.halting.rule",
                f"must be `none` or `q_loss` on next-token data, got {rule!r}: under a causal mask the Q reads "
                "position 0, which sees only itself, so it knows nothing of the row",
                "Set model.halting.rule: none and model.halting.segments to a small number, or q_loss for a Q of every "
                "position",
            )
        )
    if not trial.task.next_token and rule == "q_loss":
        problems.append(
            Problem(
                f"{place}: model.halting.rule",
                "must be `none`, `q` or `q_with_target` where data are not next-token data, got 'q_loss': it judges "
                "each position apart, and an answer of this task is right or wrong as a whole",
                "Set model.halting.rule: q",
            )
        )
    return problems
