"""What becomes of a failure: the rule, apart from whatever runs the trials."""

from __future__ import annotations

import pytest

from hrm.errors import InfrastructureError, Problem, SpecError, TrialError
from orchestrator.failures import Failure, decide, describe, same_reason


@pytest.mark.parametrize(
    ("error", "origin", "reason"),
    [
        (TrialError("not_finite", "the loss is nan"), "trial", "not_finite: the loss is nan"),
        (SpecError(Problem("trial: model", "is wrong")), "trial", "spec: trial: model: is wrong."),
        (InfrastructureError("a worker died"), "infrastructure", "InfrastructureError: a worker died"),
        (OSError(28, "No space left on device"), "infrastructure", "OSError: [Errno 28] No space left on device"),
        (ConnectionResetError("gone"), "infrastructure", "ConnectionResetError: gone"),
        (TypeError("no"), "unexpected", "TypeError: no"),
        (AssertionError("never"), "unexpected", "AssertionError: never"),
    ],
)
def test_an_exception_has_an_origin_and_a_reason(error: Exception, origin: str, reason: str) -> None:
    failure = describe(error)
    assert (failure.origin, failure.reason) == (origin, reason)


def test_the_details_are_the_traceback() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        _ = 1 / 0
    assert "test_failures.py" in describe(caught.value).details


@pytest.mark.parametrize(
    ("origin", "attempts", "fate"),
    [
        ("infrastructure", 1, "retry"),
        ("infrastructure", 2, "retry"),
        ("infrastructure", 3, "fail"),
        ("trial", 1, "fail"),
        ("unexpected", 1, "fail"),
    ],
)
def test_only_the_clusters_failures_are_retried_while_attempts_are_left(origin: str, attempts: int, fate: str) -> None:
    assert decide(Failure(origin, "x"), attempts, max_attempts=3) == fate  # type: ignore[arg-type]


def test_four_first_failures_alike_are_one_reason_whatever_their_numbers_say() -> None:
    start = "CalledProcessError: the tokenizer could not be"
    assert same_reason([f"{start} read at {n}" for n in range(4)], 4)
    assert not same_reason([f"{start} read"] * 3, 4)
    assert not same_reason(["a", "a", "a", "b"], 4)
    assert same_reason(["a", "a", "a", "a", "b"], 4)
