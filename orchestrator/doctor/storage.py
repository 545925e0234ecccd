"""The doctor on storage: whether a sweep can keep its files there, and how much room is left.

Writing and locking are tried with a file that has no name, thus nothing stays behind.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from orchestrator.doctor.finding import GIB, Finding, gib


def examine_storage(storage: Path) -> Iterable[Finding]:
    """Whether sweeps can be kept under `storage`, and how much of them."""
    place = existing(storage)
    yield judge_storage(storage.absolute(), write_error(place))
    yield judge_disk(shutil.disk_usage(place).free)
    scratch = Path(os.environ.get("RAY_TMPDIR", "/tmp"))
    if scratch.exists() and scratch.stat().st_dev != place.stat().st_dev:
        yield judge_disk(shutil.disk_usage(scratch).free, f"disk of {scratch}")


def judge_storage(storage: Path, error: str) -> Finding:
    """`error`: why a file could not be written and locked there; empty if it could."""
    if error:
        fix = "Choose another storage root, or make this one writable; a sweep also needs flock on it."
        return Finding("storage", f"{storage}: {error}", "fail", fix)
    return Finding("storage", f"{storage}: can be written and locked")


def judge_disk(free_bytes: int, name: str = "disk") -> Finding:
    """Checkpoints are what fills a disk; Ray's logs lie under /tmp."""
    if free_bytes < GIB:
        return Finding(name, f"{gib(free_bytes)} free", "fail", "Free some space, or choose another place.")
    if free_bytes < 10 * GIB:
        return Finding(name, f"{gib(free_bytes)} free", "warn", "Keep fewer checkpoints, or free some space.")
    return Finding(name, f"{gib(free_bytes)} free")


def existing(folder: Path) -> Path:
    """A folder, or the nearest above it that exists."""
    place = folder.absolute()
    while not os.path.exists(place):  # Path.exists raises where a folder may not be entered
        place = place.parent
    return place


def write_error(folder: Path) -> str:
    """Why a file cannot be written and locked in a folder; empty if it can."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
            file.flush()
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    return ""
