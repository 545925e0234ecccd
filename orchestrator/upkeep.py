"""`stop` and `clean`: ending a sweep from outside, and freeing what it no longer needs."""

from __future__ import annotations

import shutil
import time
from typing import Any

from analysis.arms import measure_arms
from analysis.records import read_trial_records
from analysis.sweep import load_sweep
from hrm.errors import Problem, SpecError
from orchestrator.store import SweepStore

STOP_SECONDS = 120.0
"""How long `stop` waits for the driver to leave."""


def stop(store: SweepStore) -> dict[str, Any]:
    """Ask the driver to end and wait until it has. Raises SpecError if none is at work."""
    if not store.is_locked():
        rule = "no driver is at work on this sweep"
        raise SpecError(Problem(str(store.directory), rule, "There is nothing to stop; `status` shows where it is"))
    store.request_stop()
    deadline = time.monotonic() + STOP_SECONDS
    while store.is_locked() and time.monotonic() < deadline:
        time.sleep(0.2)
    if store.is_locked():
        return {"stopped": False, "message": f"asked to stop; still saving after {STOP_SECONDS:.0f} s"}
    return {"stopped": True, "message": f"stopped, everything saved in {store.directory}; run `sweep` again to go on"}


def clean(store: SweepStore) -> dict[str, Any]:
    """Remove all checkpoints but each arm's best and those that an unfinished trial needs to go on."""
    if store.is_locked():
        rule = "a driver is at work on this sweep"
        raise SpecError(Problem(str(store.directory), rule, "Wait for it, or end it with `stop`"))
    sweep = load_sweep(store.directory)
    best = {arm.best_checkpoint for arm in measure_arms(sweep) if arm.best_checkpoint}
    freed, records = 0, read_trial_records(store.directory)
    unfinished = [record for record in records if record.state in ("waiting", "running")]
    sources = {taken["from"] for record in unfinished for taken in record.lineage[-1:]}
    for record in records:
        if record in unfinished or record.key in sources:
            continue
        own = (record.result or {}).get("best_checkpoint", "")
        is_best = sweep.record.place_of(f"trials/{record.key}/{own}") in best
        freed += store.drop_checkpoints(record.key, {own} if is_best else set())
        for attempt in (store.trial_directory(record.key) / "attempts").glob("*"):
            if not any(attempt.iterdir()):
                shutil.rmtree(attempt)
    return {"freed_bytes": freed, "message": f"freed {freed / 1e6:.1f} MB; kept {len(best)} best checkpoints"}
