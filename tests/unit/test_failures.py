"""What becomes of a failure: the rule, apart from whatever runs the trials."""

from __future__ import annotations

import pytest
import torch
from ray.exceptions import OutOfMemoryError, RayTaskError

from hrm.errors import InfrastructureError, Problem, SpecError, TrialError
from orchestrator.failures import Failure, PreemptedError, counts, decide, describe, lost, same_reason


@pytest.mark.parametrize(
    ("error", "origin", "reason"),
    [
        (TrialError("not_finite", "the loss is nan"), "trial", "not_finite: the loss is nan"),
        (SpecError(Problem("trial: model", "is wrong")), "trial", "spec: trial: model: is wrong."),
        (InfrastructureError("a worker died"), "infrastructure", "InfrastructureError: a worker died"),
        (OSError(28, "No space left on device"), "storage", "OSError: [Errno 28] No space left on device"),
        (OSError(30, "Read-only file system"), "storage", "OSError: [Errno 30] Read-only file system"),
        (
            MemoryError(),
            "trial",
            "out_of_memory: the process could not get more memory. Lower batch_size or the model's size",
        ),
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
        ("preempted", 3, "retry"),
        ("storage", 1, "abort"),
        ("trial", 1, "fail"),
        ("unexpected", 1, "fail"),
    ],
)
def test_only_the_clusters_failures_are_retried_while_attempts_are_left(origin: str, attempts: int, fate: str) -> None:
    assert decide(Failure(origin, "x"), attempts, max_attempts=3) == fate  # type: ignore[arg-type]


def test_a_full_disk_is_the_storages_whatever_it_was_wrapped_in() -> None:
    error = InfrastructureError("the checkpoint was not written")
    error.__cause__ = OSError(122, "Disk quota exceeded")
    assert describe(error).origin == "storage"


def test_a_collective_that_has_lost_a_worker_is_the_clusters_failure() -> None:
    said = "[/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [127.0.0.1]:38040: Connection reset by peer"
    failure = describe(RuntimeError(said))
    assert (failure.origin, failure.reason.split(":")[0]) == ("infrastructure", "worker_lost")


def test_torch_that_gets_no_memory_is_the_trials_failure() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    failure = describe(caught.value)
    assert failure.origin == "trial"
    assert failure.reason.startswith("out_of_memory: ")
    assert describe(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")).origin == "trial"


def test_a_process_that_rays_memory_monitor_ended_is_named_and_counted() -> None:
    failure = lost(OutOfMemoryError("4 GiB of 4 GiB"))
    assert failure.reason.startswith("node_out_of_memory")
    assert counts(failure)
    assert lost(None).reason.startswith("worker_lost")


def test_a_worker_that_left_as_it_was_told_is_known_through_rays_wrapping() -> None:
    wrapped = RayTaskError("step", "Traceback", PreemptedError("told to leave"))
    assert lost(wrapped.as_instanceof_cause()) == lost(wrapped) == Failure("preempted", "preempted: told to leave")


def test_a_place_that_was_taken_away_costs_no_attempt() -> None:
    assert not counts(Failure("preempted", "x"))
    assert not counts(Failure("storage", "x"))
    assert counts(Failure("infrastructure", "x"))


def test_four_first_failures_alike_are_one_reason_whatever_their_numbers_say() -> None:
    start = "CalledProcessError: the tokenizer could not be"
    assert same_reason([f"{start} read at {n}" for n in range(4)], 4)
    assert not same_reason([f"{start} read"] * 3, 4)
    assert not same_reason(["a", "a", "a", "b"], 4)
    assert same_reason(["a", "a", "a", "a", "b"], 4)
