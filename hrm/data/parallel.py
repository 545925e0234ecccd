"""Work on many items in worker processes, in order, with progress; the result does not depend on how many there are."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

BuildProgress = Callable[[str, int, int], None]
"""What is being made, how many are done, of how many."""
WORTH_PROCESSES_SECONDS = 4.0
"""Work of less than this is done here: a process takes a second to start."""
EVIDENCE_SECONDS = 0.2
"""How long is worked here before that is guessed."""

Item = TypeVar("Item")
Result = TypeVar("Result")


def usable_cpus() -> int:
    """The CPUs that this process may use; where the system does not say, all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parallel_map(
    function: Callable[[Item], Result], items: Sequence[Item], what: str, progress: BuildProgress | None = None
) -> Iterator[Result]:
    """`function` of every item, in order. It must be importable and depend on its item alone.

    The first items are worked on here, and tell whether the rest is worth processes.
    """
    began, processes, done = time.monotonic(), usable_cpus(), 0

    def counted(result: Result) -> Result:
        nonlocal done
        done += 1
        if progress is not None:
            progress(what, done, len(items))
        return result

    while done < len(items):
        yield counted(function(items[done]))
        elapsed = time.monotonic() - began
        expected = elapsed / done * (len(items) - done)
        if processes > 1 and elapsed > EVIDENCE_SECONDS and expected > WORTH_PROCESSES_SECONDS:
            break
    if done == len(items):
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads and Ray's connections
    with ProcessPoolExecutor(processes, mp_context=context, initializer=_end_with_parent) as pool:
        try:
            for result in pool.map(function, items[done:], chunksize=1):
                yield counted(result)
        finally:
            pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """Be killed when the building process is, instead of waiting for work for ever."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
