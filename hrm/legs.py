"""A leg: the part of a training between two decisions of its population (`orchestrator.population`).

It says after which report to leave, whose state to go on from, and which checkpoint others may still take over. A
trial without a population has one leg, `Leg()`, which changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Leg:
    """Plain data, so that it goes to a worker as JSON."""

    after_report: int = 0
    """The report at which it begins, and at which the state is that it takes over."""
    until_report: int | None = None
    """Leave right after this report; None: go to the end of the budget."""
    first_attempt: int = 1
    """The trial's own checkpoints of earlier attempts are of a state that was given up."""
    source: str = ""
    """The key of the trial whose state is taken over where there is no own checkpoint yet; empty: none."""
    source_attempts: tuple[int, int] = (1, 1)
    """The first and the last of the source's attempts whose checkpoints count: the newest is the state."""
    kept_attempt: int = 0
    """The newest checkpoint of the attempts up to this one stays, since others may take it over; 0: none has to."""


WHOLE = Leg()
"""A training without a population."""
