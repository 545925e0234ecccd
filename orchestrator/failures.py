"""What becomes of a trial that failed: a pure rule, apart from whatever runs the trials.

`TrialError` is the science's: recorded, never retried as it is, and so is memory that did not suffice. What is the
cluster's is retried from the newest good checkpoint until the attempts are used up. A place that was taken away costs
no attempt. A store that cannot be written ends the sweep, which goes on when it can. An unexpected exception is a
defect of the code or of the configuration: retrying it would repeat it.
"""

from __future__ import annotations

import errno
import traceback
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from hrm.errors import InfrastructureError, SpecError, StorageError, TrialError

Origin = Literal["trial", "infrastructure", "storage", "preempted", "unexpected"]
Fate = Literal["retry", "fail", "abort"]
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_NO_MEMORY = ("DefaultCPUAllocator", "can't allocate memory", "CUDA out of memory", "Cannot allocate memory")
"""How torch's allocators and the kernel say it."""
_LOST_PEER = ("gloo/transport", "Connection closed by peer", "Connection reset by peer", "NCCL")
"""How the collectives of torch.distributed say that a worker is gone (NCCL's were not seen on real GPUs)."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an attempt ended."""

    origin: Origin
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
    if isinstance(error, PreemptedError):
        return Failure("preempted", f"preempted: {error}")
    if is_unwritable(error):
        return Failure("storage", f"{type(error).__name__}: {error}", details)
    if _lacks_memory(error):
        rule = str(error).strip() or "the process could not get more memory"
        return Failure("trial", f"out_of_memory: {rule}. Lower batch_size or the model's size", details)
    if isinstance(error, RuntimeError) and any(words in str(error) for words in _LOST_PEER):
        return Failure("infrastructure", f"{WORKER_LOST}: another worker of the trial was lost: {error}", details)
    if isinstance(error, (InfrastructureError, OSError)):
        return Failure("infrastructure", f"{type(error).__name__}: {error}", details)
    return Failure("unexpected", f"{type(error).__name__}: {error}", details)


class PreemptedError(InfrastructureError):
    """The trial's place was taken away, or never given: the worker was told to leave, and has saved."""


WORKER_LOST = "worker_lost"


def lost(error: BaseException | None) -> Failure:
    """The failure that the end of a trial's process stands for, by the exception that Ray gives."""
    details, cause = str(error or ""), getattr(error, "cause", error)
    if isinstance(cause, PreemptedError):
        return Failure("preempted", f"preempted: {cause}")
    if type(error).__name__ == "OutOfMemoryError":  # Ray's memory monitor ended it; others took the memory, maybe
        return Failure("infrastructure", "node_out_of_memory: Ray ended the process, its node ran out", details)
    return Failure("infrastructure", f"{WORKER_LOST}: the trial's process died", details)


def is_unwritable(error: BaseException) -> bool:
    """True if a full or read-only disk, or a store that does not answer, is behind it."""
    return any(
        isinstance(cause, StorageError) or (isinstance(cause, OSError) and cause.errno in _UNWRITABLE)
        for cause in _causes(error)
    )


def _lacks_memory(error: BaseException) -> bool:
    return isinstance(error, MemoryError) or (
        isinstance(error, (RuntimeError, OSError)) and any(words in str(error) for words in _NO_MEMORY)
    )


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what it was raised from, and so on."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def decide(failure: Failure, attempts_lost: int, max_attempts: int) -> Fate:
    """`retry`: from the newest checkpoint; `fail`: the trial is given up; `abort`: it waits, and the sweep ends."""
    if failure.origin == "storage":
        return "abort"
    if failure.origin == "preempted":
        return "retry"
    return "retry" if failure.origin == "infrastructure" and attempts_lost < max_attempts else "fail"


def counts(failure: Failure) -> bool:
    """True if it uses up one of a trial's attempts."""
    return failure.origin not in ("storage", "preempted")


FAILURES_THAT_STOP = 4
"""When this many first trials fail, all for the same reason, the sweep is misconfigured."""


class SameFailureError(Exception):
    """The first trials all failed for the same reason."""


def check_first(trials: Iterable[tuple[str, str]]) -> None:
    """Raises SameFailureError if nothing but failures of one reason has ended. `trials`: state and reason of each."""
    ended = [(state, reason) for state, reason in trials if state in ("completed", "pruned", "failed")]
    reasons = [reason for state, reason in ended if state == "failed"]
    if len(ended) == len(reasons) and same_reason(reasons, FAILURES_THAT_STOP):
        raise SameFailureError(f"the first {len(reasons)} trials all failed: {reasons[0]}")


def same_reason(reasons: list[str], needed: int) -> bool:
    """True if the first `needed` failures have one reason (its first 40 characters): the sweep is misconfigured."""
    first = [reason[:40] for reason in reasons[:needed]]
    return len(first) >= needed and len(set(first)) == 1
