"""Whether a model's states had better start anew with each token or be carried over: measured on the same tokens.

The difference is paired row by row; its interval says how far it would move with other rows of the same kind.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from analysis.checkpoints.row_intervals import Estimate, Sums, difference, interval
from analysis.numbers import plural, significant


@dataclass(frozen=True, slots=True)
class Measure:
    """One metric under both rules."""

    reset: Estimate
    carry: Estimate
    difference: Estimate
    """Carry minus reset."""


@dataclass(frozen=True, slots=True)
class StatesCompared:
    """What both rules give on one sort of text."""

    name: str
    rows: int
    tokens: int
    vocabulary: int
    loss: Measure
    """Nats per token."""
    accuracy: Measure

    @property
    def better(self) -> Literal["reset", "carry"] | None:
        """By the loss; None where its interval leaves it open."""
        low, high = self.loss.difference.low, self.loss.difference.high
        if low is None or high is None or low <= 0.0 <= high:
            return None
        return "reset" if low > 0.0 else "carry"

    def sentence(self) -> str:
        """Which is better, by how much, or that these rows cannot tell."""
        found, rows = self.loss.difference, plural(self.rows, "row")
        if found.low is None or found.high is None:
            return f"{self.name}: which is better cannot be told from {rows}."
        if self.better is None:
            return (
                f"{self.name}: which is better cannot be told from {rows}; carry minus reset is {found} nats per token."
            )
        low, high = sorted((abs(found.low), abs(found.high)))
        gain = Estimate(abs(found.value), low, high, found.n)
        return f"{self.name}: {self.better} is better, by {gain} nats per token over {rows}."

    def warning(self) -> str:
        """What the comparison is worth where even the better rule's loss is worse than knowing nothing; else empty."""
        least, guess = min(self.loss.reset.value, self.loss.carry.value), math.log(self.vocabulary)
        if not least > guess:
            return ""
        told = f"{significant(least)} nats per token are more than the {significant(guess)} of a uniform guess"
        return (
            f"But {told} over its {self.vocabulary:,} tokens: the model does not know such texts, and what helps it "
            "there says little."
        )

    def to_data(self) -> dict[str, Any]:
        """As JSON data."""
        return {**asdict(self), "better": self.better, "warning": self.warning()}


def compare_states(name: str, reset: np.ndarray, carry: np.ndarray, vocabulary: int) -> StatesCompared:
    """From sums of the same rows under both rules (`hrm.forcing.told`) over a vocabulary of so many tokens."""
    groups = np.arange(len(reset))

    def measure(column: int, is_share: bool) -> Measure:
        first, second = (Sums(sums[:, column], sums[:, 2], is_share) for sums in (carry, reset))
        return Measure(interval(second, groups), interval(first, groups), difference(first, second, groups))

    tokens = int(reset[:, 2].sum())
    return StatesCompared(name, len(reset), tokens, vocabulary, measure(0, False), measure(1, True))
