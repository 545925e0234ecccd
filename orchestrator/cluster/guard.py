"""What becomes of the driver when its Ray cluster dies: it says so, and starts again with another cluster.

Ray itself lets the driver wait for ever when the raylet is gone; when the head's GCS is gone every call blocks, and
after 60 seconds the process ends without a word. So a thread watches. Starting again is `exec` of the same command: to
the sweep's files that is a kill of the driver, which costs nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Generator
from typing import NoReturn

import psutil

CLUSTERS = 4
"""How many clusters of its own one command uses up before it gives up."""
_COUNT = "HRM_ORCHESTRATOR_CLUSTERS_LOST"
_LOOK_SECONDS = 1.0
_UNREACHABLE_SECONDS = 30.0
"""How long a standing cluster's head may be unreachable: it may come back. Ray itself ends the driver after 60."""
_SERVERS = ("raylet", "gcs_server")
again: list[str] | None = None
"""The command to start again with a fresh cluster; None (not the command line): end instead."""


@contextlib.contextmanager
def guarded_own(stopping: Callable[[], bool]) -> Generator[None]:
    """While it lasts, the death of the cluster that this process started is noticed within seconds."""
    family = psutil.Process().children(recursive=True)
    servers = [process for process in family if _name(process) in _SERVERS and _is_alive(process)]

    def died() -> str:
        gone = [_name(server) for server in servers if not _is_alive(server)]
        return f"its {' and '.join(gone)} ended" if gone else ""

    with _watched(died, lambda reason: _start_again(reason, family, stopping)):
        yield


@contextlib.contextmanager
def guarded_standing(head: str) -> Generator[None]:
    """While it lasts, a head (its GCS, `host:port`) that nobody reaches ends the command with a sentence."""
    host, _, port = head.rpartition(":")
    heard = time.monotonic()

    def died() -> str:
        nonlocal heard
        with contextlib.suppress(OSError):
            socket.create_connection((host, int(port)), timeout=5.0).close()
            heard = time.monotonic()
        silent = time.monotonic() - heard
        return f"its head {head} was unreachable for {silent:.0f} s" if silent > _UNREACHABLE_SECONDS else ""

    with _watched(died, lambda reason: _end(3, f"the Ray cluster failed: {reason}; the same command goes on")):
        yield


@contextlib.contextmanager
def _watched(died: Callable[[], str], react: Callable[[str], None]) -> Generator[None]:
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_SECONDS):
            if (reason := died()) and not over.is_set():
                react(reason)

    threading.Thread(target=watch, name="cluster guard", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _start_again(reason: str, family: list[psutil.Process], stopping: Callable[[], bool]) -> None:
    for process in {*family, *psutil.Process().children(recursive=True)}:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(psutil.Process().children(), timeout=5.0)
    lost = int(os.environ.get(_COUNT, "0")) + 1
    if stopping():
        _end(130, "stopped: the Ray cluster ended first; the same command goes on from the newest checkpoints")
    if again is None or lost >= CLUSTERS:
        _end(3, f"the Ray cluster failed {lost} time(s), at last because {reason}; the same command goes on")
    print(f"the Ray cluster failed ({reason}); going on with another one", file=sys.stderr, flush=True)
    os.environ[_COUNT] = str(lost)
    os.execv(again[0], again)


def _end(code: int, sentence: str) -> NoReturn:
    """From a thread, since the main one may never return from a call to Ray."""
    print(sentence, file=sys.stderr, flush=True)
    os._exit(code)


def _name(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return ""


def _is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
