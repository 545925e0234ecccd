"""The training loop: train(trial, context) yields a Report at every evaluation and returns the TrialResult.

The same loop runs in this process, in a reused trial process and on Ray Train workers (`hrm.context`). It resumes from
the newest good checkpoint: 20 steps, a kill and 20 more steps give the numbers of 40 steps, bit for bit on one CPU.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Generator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hrm.accumulation import backward, too_many_parts
from hrm.checkpoint import DamagedCheckpointError
from hrm.collectives import mean_seconds, reduce_gradients, reduce_sums
from hrm.context import TrainContext
from hrm.data.dataset import Dataset, open_dataset
from hrm.data.order import row_order
from hrm.errors import SpecError, TrialError
from hrm.evaluate import evaluate, judge, to_device
from hrm.guards import mark_of, verdict
from hrm.legs import WHOLE, Leg
from hrm.models import Rows
from hrm.nn.draws import Draws
from hrm.nn.puzzle_table import PuzzleTable
from hrm.optim import scale_rates
from hrm.provenance import changes_since, code_version, environment
from hrm.records import Progress, Report, StepRecord, TrialResult
from hrm.resolve import resolve, resumed, take_effect
from hrm.saving import TrialCheckpoints, reports_in
from hrm.segments import means
from hrm.start import came_from
from hrm.state import Best, TrainState, local_slots
from hrm.tasks import IGNORE
from hrm.trial import TrialSpec, refusals

logger = logging.getLogger(__name__)


class StopRequested(Exception):  # noqa: N818  (not an error)
    """The trial was asked to stop and has saved where it is."""


class LegEnded(StopRequested):
    """The trial has come to the end of its leg and has saved where it is."""


def train(
    trial: TrialSpec, context: TrainContext, *, known_reports: int = 0, test: bool = False, leg: Leg = WHOLE
) -> Generator[Report, None, TrialResult]:
    """Train to the end of the budget. Raises TrialError, StopRequested, LegEnded, SpecError.

    known_reports: how many reports the caller has already; a report that a checkpoint holds beyond these is given
    again. test: measure the best checkpoint on the test split at the end. leg: the part of the training that this is.
    Every worker of the trial runs this.
    """
    training = Training(trial, context, leg)
    with training.checkpoints:
        report = training.state.last_report
        if report is not None and report.index > known_reports:
            yield report
        while not (training.ended_early or training.done):
            if training.reports == leg.until_report:
                raise LegEnded
            training.step()
            context.beat()
            if due := training.report_is_due:
                yield training.report()
                training.change()
            if context.should_stop():
                if not due:  # a report has saved
                    training.save()
                logger.info("asked to stop: saved at step %d", training.state.progress.step)
                raise StopRequested
        return training.finish(test)


class Training:
    """One trial at work on one worker: its state, its data and the order of events in a step."""

    def __init__(self, trial: TrialSpec, context: TrainContext, leg: Leg = WHOLE) -> None:
        self.whole, self.context = trial, context
        self.dataset: Dataset = open_dataset(trial.task, context.data_root)
        problems = refusals(trial, "trial") + too_many_parts(trial, context.world_size, "trial")
        if problems:
            raise SpecError(*problems)
        self.checkpoints = TrialCheckpoints(context, leg)
        found = self.checkpoints.newest()
        self.trial = trial = self.whole.at(reports_in(found))
        now = resolve(trial, self.dataset.shape, context)
        self.resolved: dict[str, Any] = resumed(found[1].manifest["resolved"], now) if found else now
        take_effect(self.resolved)
        if found:
            self._resume(found[1].manifest, found[0], now)
        self.state = TrainState.begin(trial, self.dataset.shape, self.resolved, context, found and found[1])
        self.rows = self.dataset.split("train")
        self.order = row_order(self.rows, trial)
        self.slots = local_slots(trial, context)
        self._facts_told = False
        if found and not self.checkpoints.is_own(found[0]):
            name = self.checkpoints.name(self.state.progress.step)
            self.state.settle_in(name, trial.objective.metric, came_from(*found))
            self.save()

    def _resume(self, manifest: dict[str, Any], path: Path, now: dict[str, Any]) -> None:
        if manifest["dataset_fingerprint"] != self.dataset.manifest.fingerprint:
            raise TrialError("dataset_changed", f"{path} was trained on other data than {self.trial.task.kind} is now")
        changed = changes_since(manifest, now)
        if self.trial.budget.axis == "seconds":
            changed.append("the budget is in seconds")
        logger.info("resumed from %s%s", path, f"; not exact: {'; '.join(changed)}" if changed else "")

    @property
    def ended_early(self) -> str:
        """Why a guard ends the training here, in a sentence; empty where it goes on. Raises TrialError: diverged."""
        return verdict(self.trial.guards, self.trial.objective, self.state.history)

    @property
    def done(self) -> bool:
        """True when the budget is spent."""
        return self.trial.budget.spent(self.state.progress) >= 1.0

    @property
    def reports(self) -> int:
        """How many reports there were so far."""
        return 0 if self.state.last_report is None else self.state.last_report.index

    def change(self) -> None:
        """Go on with the parameters that change at the last report, as a resume from its checkpoint would."""
        now = self.whole.at(self.reports)
        if now != self.trial and self.whole.changes:
            here = self.state.save(self.context, self._manifest())
            self.trial = now
            self.state = TrainState.begin(now, self.dataset.shape, self.resolved, self.context, here)

    @property
    def reports_earned(self) -> int:
        """How many reports the spent share of the budget is worth."""
        share = self.trial.budget.spent(self.state.progress)
        return min(self.trial.num_reports, int(share * self.trial.num_reports + 1e-9))

    @property
    def report_is_due(self) -> bool:
        """True when a further share of the budget is spent since the last report."""
        return self.reports_earned > self.reports

    def step(self) -> None:
        """One optimizer step: refill, segment, backward, guard, update, record."""
        started = time.perf_counter()
        state, step = self.state, self.state.progress.step + 1
        draws = Draws(self.trial.seed, step, self.slots.to(self.context.device))
        state.model.spent = self.trial.budget.spent(state.progress)
        step_flops = self.trial.training_flops(self.dataset.shape, state.model.spent) * self.trial.batch_size
        entered = state.carry.halted.sum()
        state.carry.refill(state.model, self._next_rows(), draws)
        row_weight, normaliser = self._loss_weights()
        try:
            found = backward(state.model, state.carry, self.trial, row_weight, normaliser, draws)
        except torch.OutOfMemoryError as error:
            raise TrialError(
                "out_of_memory",
                f"at step {step}: {error}. Lower batch_size or the model's size, "
                "raise accumulation, or set activation_checkpointing: true",
            ) from error
        sums = reduce_sums({**found, "entered": entered}, self.context)
        reduce_gradients(state.model, self.context)
        norm = self._guarded_norm(sums["objective"], step)
        state.progress = Progress(
            step=step,
            examples=state.progress.examples + int(sums["entered"]),
            tokens=state.progress.tokens + int(sums["tokens"]),
            flops=state.progress.flops + step_flops,
            seconds=state.progress.seconds,
        )
        rate = self._update()
        elapsed = mean_seconds(time.perf_counter() - started, self.context)
        state.progress = replace(state.progress, seconds=state.progress.seconds + elapsed)
        metrics = {**means(sums, normaliser, self.trial.batch_size), "learning_rate": rate, "gradient_norm": norm}
        state.pending.append(StepRecord(state.progress, time.time(), metrics))

    def _next_rows(self) -> Rows:
        """The row that each slot would take now (only halted slots do)."""
        refills = self.state.carry.refills.cpu().numpy()
        numbers = self.order.rows(self.state.progress.step, refills, self.slots.numpy())
        return to_device(self.rows.gather(numbers), self.context.device)

    def _loss_weights(self) -> tuple[Tensor, float]:
        """The weight of each row's summed loss, and what the global sum is divided by (`TaskSpec.reduction`)."""
        tokens = (self.state.carry.rows["labels"] != IGNORE).sum(-1)
        if self.trial.task.reduction == "row":
            return 1.0 / tokens.clamp(min=1), float(self.trial.batch_size)
        total = self.context.all_reduce(tokens.sum().float())
        return torch.ones_like(tokens, dtype=torch.float32), max(float(total), 1.0)

    def _guarded_norm(self, objective: float, step: int) -> float:
        """Clip, and give the norm before clipping. Raises TrialError before the optimizer moves."""
        limit = self.trial.clip_norm or math.inf
        norm = float(torch.nn.utils.clip_grad_norm_(self.state.model.parameters(), limit, foreach=True))
        for name, value in (("loss", objective), ("gradient norm", norm)):
            if not math.isfinite(value):
                raise TrialError("not_finite", f"the {name} is {value} at step {step}; the weights were not changed")
        return norm

    def _update(self) -> float:
        """Move the weights and the puzzle rows at the rate of the step that `progress` counts; gives the rate."""
        state, settings = self.state, self.trial.optimizer
        factor = self.trial.schedule.factor(state.progress.step, self.trial.budget.spent(state.progress))
        scale_rates(state.optimizer, factor)
        state.optimizer.step()
        state.optimizer.zero_grad(set_to_none=True)
        if state.ema is not None:
            state.ema.update()
        gather = self.context.all_gather if self.context.world_size > 1 else None
        for module in state.model.modules():
            if isinstance(module, PuzzleTable):
                module.sign_step(settings.puzzle_learning_rate * factor, settings.puzzle_weight_decay, gather)
        return settings.learning_rate * factor

    def report(self) -> Report:
        """Evaluate on validation, note the best, write a checkpoint."""
        state, context = self.state, self.context
        validation = self._evaluate("validation")
        metric = self.trial.objective.metric
        if metric not in validation:
            raise TrialError("no_such_metric", f"objective.metric {metric!r} is none of {', '.join(validation)}")
        if not math.isfinite(validation[metric]):
            step = state.progress.step
            raise TrialError("not_finite", f"the validation {metric} is {validation[metric]} at step {step}")
        name = self.checkpoints.name(state.progress.step)
        if self._is_best(validation):
            state.best = Best(validation[metric], state.progress.step, name, validation)
        state.last_report = Report(
            index=self.reports_earned,
            progress=state.progress,
            time=time.time(),
            validation=validation,
            steps=tuple(state.pending),
            system=context.system_metrics() | self.checkpoints.metrics,
            checkpoint=name,
            facts=self._facts(),
        )
        state.history.append(mark_of(state.last_report, self.trial.objective))
        state.pending = []
        self.save()
        return state.last_report

    def _is_best(self, validation: dict[str, float]) -> bool:
        """Whether it betters all before by the objective; of equals (a puzzle's 0.0), the lower loss is the best."""
        best, objective = self.state.best, self.trial.objective
        if best is not None and validation[objective.metric] == best.value:
            return validation["loss"] < best.validation["loss"]
        return objective.better(validation[objective.metric], best.value if best else None)

    def _evaluate(self, split: str, whole: bool = False) -> dict[str, float]:
        """Metrics; with `whole` also those of the predictions for the whole split. These, and how each row went, are
        kept beside the trial then."""
        at_hand = self.state.model, self.dataset, split, self.trial, self.context
        rows, said = (self.context.trial_directory / f"{name}.{split}.arrow" for name in ("rows", "predictions"))
        with self.state.with_evaluation_weights():
            return evaluate(*at_hand, rows if whole else None) | (judge(*at_hand, said) if whole else {})

    def save(self) -> None:
        """Begin to write a checkpoint of this moment; it, the one before it and the best one are kept."""
        checkpoint = self.state.save(self.context, self._manifest())
        if self.context.rank == 0:
            best = self.state.best.checkpoint if self.state.best else None
            self.checkpoints.write(self.checkpoints.name(self.state.progress.step), checkpoint, best)

    def _facts(self) -> dict[str, Any]:
        """What the first report that an attempt makes says of the trial."""
        told, self._facts_told = self._facts_told, True
        return {} if told else {"num_parameters": self.state.model.num_parameters(), "resolved": self.resolved}

    def _manifest(self) -> dict[str, Any]:
        state = self.state
        return {
            "trial_id": self.whole.hash(),
            "spec": self.whole.model_dump(mode="json"),
            "progress": asdict(state.progress),
            "validation": state.last_report.validation if state.last_report else {},
            "best": None if state.best is None else asdict(state.best),
            "num_parameters": state.model.num_parameters(),
            "dataset_fingerprint": self.dataset.manifest.fingerprint,
            "lineage": state.lineage,
            "resolved": self.resolved,
            "code": code_version(),
            "environment": environment(),
        }

    def finish(self, test: bool) -> TrialResult:
        """The result; with `test`, the best checkpoint measured on the test split."""
        best, early = self.state.best, "" if self.done else self.ended_early
        assert best is not None, "the last step of a budget always earns a report"
        self.checkpoints.wait_together()
        measured = None
        if test:
            best = self._load(best)
            measured = self._evaluate("test", whole=True)
        return TrialResult(self.state.progress, best.step, best.checkpoint, best.validation, measured, early)

    def _load(self, best: Best) -> Best:
        """Take the best checkpoint's weights. If it is damaged, keep the last weights, and say so."""
        try:
            checkpoint = self.checkpoints.read(best.checkpoint)
        except DamagedCheckpointError as error:
            last = self.state.last_report
            assert last is not None
            logger.warning("%s; the last checkpoint is measured instead of the best", error)
            return Best(
                last.validation[self.trial.objective.metric], last.progress.step, last.checkpoint, last.validation
            )
        self.state.take_weights(checkpoint)
        return best
