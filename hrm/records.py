"""What a trial writes while it trains: plain numbers, one JSON line per report.

A `Report` is made at every evaluation and carries the `StepRecord`s since the report before it. The worker makes it,
the driver alone appends it to the trial's `records.jsonl`, and every curve is drawn from there.
"""

from __future__ import annotations

import json
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
    """The checkpoint written with this report, relative to the trial's directory (`attempts/1/step-00000120`)."""

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


def read_reports(path: Path) -> Iterator[Report]:
    """The reports of a `records.jsonl`, in order. A last line torn by a kill is left out."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield Report.from_dict(json.loads(line))
