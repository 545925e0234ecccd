"""What becomes of a trial that failed: a pure rule, apart from whatever runs the trials.

`TrialError` is the science's: recorded, never retried as it is. Everything that is the cluster's is retried from the
newest good checkpoint until the attempts are used up. An unexpected exception is a defect of the code or of the
configuration: retrying it would repeat it.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Literal

from hrm.errors import InfrastructureError, SpecError, TrialError

Fate = Literal["retry", "fail"]


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt ended. `origin`: `trial`, `infrastructure` or `unexpected`."""

    origin: Literal["trial", "infrastructure", "unexpected"]
    reason: str
    """One line: a stable first word and the message."""
    details: str = ""
    """The traceback."""


def describe(error: BaseException) -> Failure:
    """The failure that an exception in a worker stands for."""
    details = "".join(traceback.format_exception(error))
    if isinstance(error, TrialError):
        return Failure("trial", str(error), details)
    if isinstance(error, SpecError):
        return Failure("trial", f"spec: {error}", details)
    if isinstance(error, (InfrastructureError, OSError)):
        return Failure("infrastructure", f"{type(error).__name__}: {error}", details)
    return Failure("unexpected", f"{type(error).__name__}: {error}", details)


def decide(failure: Failure, attempts: int, max_attempts: int) -> Fate:
    """`retry` for the cluster's failures while attempts are left, else `fail`."""
    return "retry" if failure.origin == "infrastructure" and attempts < max_attempts else "fail"


def same_reason(reasons: list[str], needed: int) -> bool:
    """True if the first `needed` failures have one reason (its first 40 characters): the sweep is misconfigured."""
    first = [reason[:40] for reason in reasons[:needed]]
    return len(first) >= needed and len(set(first)) == 1
