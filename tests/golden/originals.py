"""Where the recordings of the original code are, and how its metrics are named here."""

from __future__ import annotations

from pathlib import Path

PARITY = Path(__file__).parents[3] / "shared" / "parity"
METRICS = {
    "count": "halted",
    "accuracy": "accuracy",
    "exact_accuracy": "exact",
    "steps": "segments",
    "q_halt_accuracy": "q_halt_correct",
    "q_halt_loss": "q_halt_loss",
    "q_continue_loss": "q_continue_loss",
}
"""The original's sums over rows, and ours."""
