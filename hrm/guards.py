"""Guards: rules that end a training whose reports say that it is not worth going on. Off unless a trial asks for them.

They are judged at reports only, by the history of reports alone, which every checkpoint holds: all workers agree, and a
resumed training decides what an unbroken one would. A value that is not finite always ends a trial (`hrm.train`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING

from pydantic import Field

from hrm.errors import TrialError
from hrm.spec import Spec

if TYPE_CHECKING:
    from hrm.records import Report
    from hrm.trial import ObjectiveSpec


class DivergedSpec(Spec):
    """The validation loss or the training loss is above `factor` times its best so far: the trial has failed."""

    factor: float = Field(gt=1.0)
    grace: int = Field(1, ge=0)
    """So many first reports are not judged."""


class PlateauSpec(Spec):
    """The last `reports` reports did not better the objective: the training ends early, with its best checkpoint."""

    reports: int = Field(ge=1)
    min_improvement: float = Field(0.0, ge=0.0)
    """In the objective's own unit: improvements up to this do not count."""


class GapSpec(Spec):
    """At each of the last `reports` reports validation loss minus training loss has grown, the one higher and the other
    lower than before these reports: the training ends early, with its best checkpoint."""

    reports: int = Field(ge=1)


class GuardsSpec(Spec):
    """The guards of a trial; null for none."""

    diverged: DivergedSpec | None = None
    plateau: PlateauSpec | None = None
    gap: GapSpec | None = None

    def idle(self, num_reports: int) -> dict[str, int]:
        """The fields that ask for more reports than a trial has before its last, with their values."""
        asked = {
            "diverged.grace": self.diverged and self.diverged.grace,
            "plateau.reports": self.plateau and self.plateau.reports,
            "gap.reports": self.gap and self.gap.reports,
        }
        return {field: reports for field, reports in asked.items() if reports and reports >= num_reports}


@dataclass(frozen=True, slots=True)
class Mark:
    """What guards keep of a report."""

    step: int
    objective: float
    validation_loss: float
    training_loss: float
    """The mean over the steps since the report before."""


def mark_of(report: Report, objective: ObjectiveSpec) -> Mark:
    """The report as guards see it."""
    training = fmean(step.metrics["loss"] for step in report.steps) if report.steps else report.validation["loss"]
    return Mark(report.progress.step, report.validation[objective.metric], report.validation["loss"], training)


def verdict(guards: GuardsSpec, objective: ObjectiveSpec, history: Sequence[Mark]) -> str:
    """Why the training ends here, in a sentence; empty where it goes on. Raises TrialError where it has diverged."""
    if guards.diverged is not None:
        _raise_if_diverged(guards.diverged, history)
    if guards.plateau is not None and _is_flat(guards.plateau, objective, history):
        return _plateau_in_words(guards.plateau, objective, history)
    if guards.gap is not None and _gap_grows(guards.gap, history):
        before, last = history[-guards.gap.reports - 1], history[-1]
        return (
            f"gap: over {guards.gap.reports} reports the training loss fell from {before.training_loss:.4g} to "
            f"{last.training_loss:.4g} and the validation loss rose from {before.validation_loss:.4g} to "
            f"{last.validation_loss:.4g}, up to step {last.step}"
        )
    return ""


def _raise_if_diverged(guard: DivergedSpec, history: Sequence[Mark]) -> None:
    if len(history) <= max(guard.grace, 1):
        return
    for name in ("validation_loss", "training_loss"):
        *earlier, last = (float(getattr(mark, name)) for mark in history)
        if last > guard.factor * min(earlier):
            raise TrialError(
                "diverged",
                f"the {name.replace('_', ' ')} is {last:.4g} at step {history[-1].step}, more than {guard.factor:g} "
                f"times its best so far, {min(earlier):.4g}",
            )


def _is_flat(guard: PlateauSpec, objective: ObjectiveSpec, history: Sequence[Mark]) -> bool:
    values = [mark.objective if objective.direction == "minimize" else -mark.objective for mark in history]
    before, recent = values[: -guard.reports], values[-guard.reports :]
    return bool(before) and min(before) - min(recent) <= guard.min_improvement


def _plateau_in_words(guard: PlateauSpec, objective: ObjectiveSpec, history: Sequence[Mark]) -> str:
    best = min if objective.direction == "minimize" else max
    value = best(mark.objective for mark in history[: -guard.reports])
    by = f" by more than {guard.min_improvement:g}" if guard.min_improvement else ""
    return (
        f"plateau: {guard.reports} reports did not better the validation {objective.metric} of {value:.4g}{by}, up to "
        f"step {history[-1].step}"
    )


def _gap_grows(guard: GapSpec, history: Sequence[Mark]) -> bool:
    recent = history[-guard.reports - 1 :]
    if len(recent) <= guard.reports:
        return False
    gaps = [mark.validation_loss - mark.training_loss for mark in recent]
    parted = recent[-1].validation_loss > recent[0].validation_loss and (
        recent[-1].training_loss < recent[0].training_loss
    )
    return parted and all(later > earlier for earlier, later in pairwise(gaps))
