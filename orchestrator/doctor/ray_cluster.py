"""The doctor on Ray: what earlier clusters left behind, and which run on this machine now.

Only looks at files, ports and processes: it starts no Ray, joins none and ends none.
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterable, Sequence
from pathlib import Path

import psutil

from orchestrator.doctor.finding import Finding


def examine_ray() -> Iterable[Finding]:
    """What earlier Ray clusters left behind, and which run now."""
    note = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
    address = note.read_text().strip() if note.exists() else ""
    yield judge_ray_note(note, address, bool(address) and answers(address))
    clusters = _running_clusters()
    yield judge_clusters(clusters)
    has_token = "RAY_AUTH_TOKEN" in os.environ or (Path.home() / ".ray" / "auth_token").exists()
    yield judge_ray_auth(os.environ.get("RAY_AUTH_MODE"), has_token, bool(clusters))


def judge_ray_note(note: Path, address: str, alive: bool) -> Finding:
    """`ray_current_cluster` of a dead cluster makes a bare `ray.init()` fail and Ray's State API hang."""
    if not address:
        return Finding("ray cluster file", "none")
    if not alive:
        return Finding("ray cluster file", f"names {address}, where nothing answers", "warn", f"rm {note}")
    return Finding("ray cluster file", f"names {address}, which answers")


def judge_clusters(addresses: Sequence[str]) -> Finding:
    """Clusters that run on this machine already share its cores and memory with a sweep."""
    if not addresses:
        return Finding("ray clusters here", "none running")
    fix = "A sweep beside them shares the cores. `ray stop` ends all of them: only if they are yours."
    return Finding("ray clusters here", f"{len(addresses)} running: {', '.join(addresses)}", "warn", fix)


def judge_ray_auth(mode: str | None, has_token: bool, has_cluster: bool) -> Finding:
    """A token left by an earlier `ray.init` protects clusters started later; nodes that disagree fail after 20 s."""
    text = f"RAY_AUTH_MODE {mode or 'unset'}, {'a' if has_token else 'no'} token (~/.ray/auth_token)"
    if mode is None and has_token and has_cluster:
        return Finding("ray authentication", text, "warn", "Set RAY_AUTH_MODE=token on every node and driver.")
    if mode == "token" and not has_token:
        return Finding("ray authentication", text, "warn", "Copy ~/.ray/auth_token from the head node.")
    return Finding("ray authentication", text)


def answers(address: str) -> bool:
    """Whether something listens at `HOST:PORT`."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1):
            return True
    except (OSError, ValueError):
        return False


def _running_clusters() -> list[str]:
    """The addresses of the heads of the raylets on this machine."""
    found = set()
    for process in psutil.process_iter(["name", "cmdline", "pid"]):
        if process.info["name"] == "raylet":
            match = re.search(r"--gcs-address=(\S+)", " ".join(process.info["cmdline"] or []))
            found.add(match[1] if match else f"process {process.info['pid']}")
    return sorted(found)
