"""Parameters that change in mid-training, at a report: the schedules that population based training finds.

Only what leaves shapes, rows and the budget alone may change; a change is a resume from the report's checkpoint with
other values, so it keeps every promise of a resume.
"""

from __future__ import annotations

from typing import Any

from pydantic import Field

from hrm.errors import Problem
from hrm.spec import Spec

Scalar = bool | int | float | str | None

CHANGEABLE = (
    "optimizer.*",
    "schedule.*",
    "clip_norm",
    "label_smoothing",
    "z_loss",
    "q_loss_weight",
    "model.dropout",
    "model.noise",
    "model.damping",
    "model.halting.exploration",
)
"""What may change in mid-training; `optimizer.*`: every field but the kind."""
_REASONS = {
    "optimizer.kind": "another optimizer keeps other moments",
    "accumulation": "the memory that it saves is needed from the start",
    "activation_checkpointing": "the memory that it saves is needed from the start",
    "batch_size": "the rows under way and their order hang on it",
    "sampling": "the order of rows hangs on it",
    "epochs_per_iteration": "the order of rows hangs on it",
    "ema": "an average of weights cannot begin late or be taken up with another decay",
    "precision": "it is resolved once for a training",
    "num_reports": "changes are made at reports",
    "initialize_from": "a training starts once",
    "loss": "losses before and after could not be compared",
    "guards": "they judge a training as a whole",
    "model": "the weights' shapes, or what they mean, hang on it",
}


class ChangeSpec(Spec):
    """New values from the end of a report on."""

    report: int = Field(ge=1)
    parameters: dict[str, Scalar] = Field(min_length=1)
    """By dotted path, as in a search space."""


def unchangeable(path: str, place: str) -> Problem | None:
    """Why a parameter cannot change in mid-training, or None; `place` is where it was asked for."""
    group, _, field = path.partition(".")
    if path in CHANGEABLE or (f"{group}.*" in CHANGEABLE and field and path != "optimizer.kind"):
        return None
    reason = next((why for name, why in _REASONS.items() if path == name or path.startswith(f"{name}.")), "")
    rule = f"cannot change in mid-training{f': {reason}' if reason else ''}"
    return Problem(place, rule, f"What can: {', '.join(CHANGEABLE)}; fix {path} instead")


def changed(data: dict[str, Any], parameters: dict[str, Scalar]) -> dict[str, Any]:
    """A trial's data with these parameters set."""
    for path, value in parameters.items():
        data = _set(data, path.split("."), value)
    return data


def _set(data: dict[str, Any], path: list[str], value: Scalar) -> dict[str, Any]:
    head, *rest = path
    return {**data, head: _set(data.get(head) or {}, rest, value) if rest else value}
