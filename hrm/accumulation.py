"""The gradient of a step: in one go, or in parts that are computed one after the other to save memory.

A part is some slots of the carry. The normaliser is the whole batch's, draws are functions of the slot and halting is
by row, so that parts give what the whole gives, to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hrm.errors import Problem
from hrm.models import Model
from hrm.nn.draws import Draws
from hrm.segments import Carry, train_segment
from hrm.trial import TrialSpec


def backward(
    model: Model, carry: Carry, trial: TrialSpec, row_weight: Tensor, normaliser: float, draws: Draws
) -> dict[str, Tensor]:
    """One segment on the refilled carry, which is updated in place, and its gradient; gives the sums of
    `hrm.segments.Scored` and the `objective`."""
    count = trial.accumulation
    if count == 1:
        return _backward(model, carry, trial, row_weight, normaliser, draws)
    parts = carry.parts(count)
    of_parts = [
        _backward(model, part, trial, weight, normaliser, draws.part(number, count))
        for number, (part, weight) in enumerate(zip(parts, row_weight.tensor_split(count), strict=True))
    ]
    carry.join(parts)
    return {name: torch.stack([sums[name] for sums in of_parts]).sum(0) for name in of_parts[0]}


def _backward(
    model: Model, carry: Carry, trial: TrialSpec, row_weight: Tensor, normaliser: float, draws: Draws
) -> dict[str, Tensor]:
    scored = train_segment(model, carry, trial.model.halting_rule(), trial.loss_terms, row_weight, draws)
    (scored.loss / normaliser).backward()  # type: ignore[no-untyped-call]
    return {**scored.sums, "objective": scored.loss.detach()}


def too_many_parts(trial: TrialSpec, workers: int, place: str) -> list[Problem]:
    """Why one of so many workers cannot compute its rows in the parts that are asked for, if so."""
    rows = trial.batch_size // workers
    if trial.accumulation <= max(rows, 1):
        return []
    of = f"batch_size {trial.batch_size} over {workers} workers"
    rule = f"must be at most the rows of a worker, which are {rows} ({of}), got {trial.accumulation}"
    return [Problem(f"{place}: accumulation", rule, "Lower accumulation, or raise batch_size")]
