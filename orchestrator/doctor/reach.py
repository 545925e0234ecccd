"""The doctor on what lies outside of a machine: the store, the tracker, the head of a cluster.

They are really used: a file is written to the store, read and removed; the tracker is asked a question.
"""

from __future__ import annotations

import base64
import os
import socket
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterable
from pathlib import Path

from hrm.errors import SpecError
from orchestrator.doctor.finding import Finding
from orchestrator.doctor.storage import write_error

SECONDS = 10.0


def examine_reach(store: str | None, tracker: str | None, head: str | None = None) -> Iterable[Finding]:
    """A line for each of the three that is given: a store's URI, a tracker's URI, `host:port` of a head."""
    if head:
        yield judge_head(head, *_connected(head))
    if store:
        yield judge_store(store, _store_error(store))
    if tracker:
        yield judge_tracker(tracker, _tracker_error(tracker))


def judge_head(address: str, seconds: float, error: str) -> Finding:
    """`error`: why no connection could be made; empty if one could."""
    if error:
        return Finding("head", f"{address}: {error}", "fail", "Open the head's ports between the nodes.")
    return Finding("head", f"{address} answers in {1000 * seconds:.1f} ms")


def judge_store(uri: str, error: str) -> Finding:
    """`error`: why a file could not be written and read there; empty if it could."""
    if error:
        fix = "Set the store's credentials in the environment (AWS_ACCESS_KEY_ID, ...), on every node; check the URI."
        return Finding("store", f"{uri}: {error}", "fail", fix)
    return Finding("store", f"{uri}: a file was written, read and removed")


def judge_tracker(uri: str, error: str) -> Finding:
    """`error`: why it did not answer; empty if it did. A tracker that is down costs no trial, so it only warns."""
    if error:
        fix = "Start it, check the URI, or set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD."
        return Finding("tracker", f"{uri}: {error}", "warn", fix)
    return Finding("tracker", f"{uri} answers")


def _connected(address: str) -> tuple[float, str]:
    host, _, port = address.rpartition(":")
    began = time.perf_counter()
    try:
        socket.create_connection((host, int(port)), timeout=SECONDS).close()
    except (OSError, ValueError) as error:
        return 0.0, str(error)
    return time.perf_counter() - began, ""


def _store_error(uri: str) -> str:
    from hrm.remote import Archive

    name, content = f"doctor-{uuid.uuid4().hex}", os.urandom(1024)
    try:
        archive = Archive(uri, patience=SECONDS)
        archive.write(f"{name}/manifest.json", content)
        same = archive.read(f"{name}/manifest.json") == content
        archive.delete(name)
    except SpecError as error:
        return error.problems[0].rule
    except Exception as error:  # each file system of pyarrow has errors of its own
        return f"{type(error).__name__}: {error}"
    return "" if same else "what was read is not what was written"


def _tracker_error(uri: str) -> str:
    if not uri.startswith(("http://", "https://")):
        path = Path(uri.partition("///")[2]).absolute().parent
        while not path.exists():
            path = path.parent
        return write_error(path) if uri.startswith("sqlite:") else ""
    request = urllib.request.Request(f"{uri.rstrip('/')}/api/2.0/mlflow/experiments/search?max_results=1")
    user, password = (os.environ.get(f"MLFLOW_TRACKING_{name}") for name in ("USERNAME", "PASSWORD"))
    if user:
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode())
    elif token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    try:
        urllib.request.urlopen(request, timeout=SECONDS).close()
    except urllib.error.HTTPError as error:
        return f"it refuses: {error}" if error.code in (401, 403) else f"it answers {error}"
    except OSError as error:
        return str(getattr(error, "reason", error))
    return ""
