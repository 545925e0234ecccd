"""What a trial writes while it trains: plain numbers, one JSON line per report.

A `Report` is made at every evaluation and carries the `StepRecord`s since the report before it. The worker makes it,
the driver alone appends it to the trial's `records.jsonl`, and every curve is drawn from there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a trial has come, on every axis that a budget can be counted in."""

    step: int = 0
    """Optimizer steps."""
    examples: int = 0
    """Rows that entered the carry, over all workers (a row that stays for several segments counts once)."""
    tokens: int = 0
    """Scored tokens worked on; a row that stays for several segments counts at each of them."""
    flops: float = 0.0
    """Training floating-point operations by the model's formula (forward and backward, matrix products only)."""
    seconds: float = 0.0
    """Seconds of training steps over all attempts; evaluation and checkpoints are not counted."""


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One optimizer step. `metrics` holds `loss` (as trained), `learning_rate`, `gradient_norm` and more."""

    progress: Progress
    time: float
    """Wall clock when the step ended, in seconds since the epoch."""
    metrics: dict[str, float]


@dataclass(frozen=True, slots=True)
class Report:
    """The state of a trial at an evaluation point. `index` counts from 1 to the trial's `num_reports`."""

    index: int
    progress: Progress
    time: float
    validation: dict[str, float]
    """On the validation split: `loss` per scored token, `token_accuracy`, `exact_accuracy`, and the task's own."""
    steps: tuple[StepRecord, ...] = ()
    system: dict[str, float] = field(default_factory=dict)
    """The worker's node when the report was made: `cpu_percent`, `process_memory_bytes`, ..."""
    checkpoint: str = ""
    """The checkpoint begun with this report, relative to the trial's directory (`attempts/1/step-00000120`)."""
    facts: dict[str, Any] = field(default_factory=dict)
    """In the first report that an attempt makes: `num_parameters`, and `resolved`, what every `auto` became."""

    def to_json(self) -> str:
        """One line, without the line end."""
        return json.dumps(asdict(self), separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Report:
        """The inverse of `asdict`."""
        steps = tuple(
            StepRecord(Progress(**step["progress"]), step["time"], step["metrics"]) for step in data.get("steps", ())
        )
        return cls(**{**data, "progress": Progress(**data["progress"]), "steps": steps})


@dataclass(frozen=True, slots=True)
class TrialResult:
    """How a trial ended: its best checkpoint by the objective on validation, and that checkpoint's test metrics."""

    progress: Progress
    best_step: int
    best_checkpoint: str
    """Relative to the trial's directory."""
    best_validation: dict[str, float]
    test: dict[str, float] | None
    """None where the trial was not asked to look at the test split."""
    ended_early: str = ""
    """Why a guard ended the training before its budget was spent, in a sentence; empty otherwise."""


def read_reports(path: Path) -> Iterator[Report]:
    """The reports of a `records.jsonl`, in order. A last line torn by a kill is left out."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield Report.from_dict(json.loads(line))


def read_last_report(path: Path) -> Report | None:
    """The last whole line of a `records.jsonl`, without what is before it and without its steps. None if there is none.

    In a time and a memory that do not grow with the trial's length.
    """
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    with file:
        size, length = file.seek(0, os.SEEK_END), 2**14
        while True:
            file.seek(max(size - length, 0))
            lines = file.read().split(b"\n")  # the last part is empty, or torn by a kill; the first may be cut
            if len(lines) > 2 or length >= size:
                break
            length *= 8
    return Report.from_dict({**json.loads(lines[-2]), "steps": ()}) if len(lines) > 1 else None
