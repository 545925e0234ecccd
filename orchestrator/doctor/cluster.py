"""The doctor on a cluster: every node is examined from inside, by a task that is pinned on it.

Tasks ask for no CPU, so that a busy cluster answers, too. A node that gives no answer is a line.
"""

from __future__ import annotations

import contextlib
import platform
import shutil
import time
import uuid
from collections.abc import Generator, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from hrm.provenance import code_version
from orchestrator.doctor.clock import examine_clock, judge_skew
from orchestrator.doctor.finding import Finding
from orchestrator.doctor.gpus import examine_gpus
from orchestrator.doctor.machine import examine_cpu, examine_limits, examine_memory
from orchestrator.doctor.parts import looked_at
from orchestrator.doctor.reach import examine_reach
from orchestrator.doctor.software import PACKAGES, PRODUCT, installed
from orchestrator.doctor.storage import existing, judge_disk, write_error

ANSWER_SECONDS = 90.0
"""How long a node may take; a first task starts a process and imports torch."""


def examine_cluster(address: str, storage: Path, store: str | None, tracker: str | None) -> Iterable[Finding]:
    """Connect, and examine every node: itself, its versions, its clock, what it reaches, what it shares with us."""
    import ray

    from orchestrator.cluster.connect import Where, connect

    try:
        with connect(Where(address)) as cluster, _mark(storage) as mark:
            yield Finding("cluster", f"{address}: {len(cluster.nodes)} node(s), {cluster.gpus:g} GPU(s)")
            head = str(ray.get_runtime_context().gcs_address)
            found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
            names = {node["NodeID"]: node["NodeManagerAddress"] for node in found if node["Alive"]}
            for node in found:
                if not node["Alive"]:
                    yield Finding("node", "has left the cluster", "warn", "Start it again.", node["NodeManagerAddress"])
            yield from _examine_nodes(_distinct(names), (str(mark), store, tracker, head))
    except ConnectionError as error:
        yield Finding("cluster", str(error), "fail", "Start it with `ray start --head`, or correct --address.")


def look(mark: str, store: str | None, tracker: str | None, head: str) -> dict[str, Any]:
    """What a node sees; runs on it. Plain data: findings and versions."""
    parts = {
        "cpu": examine_cpu,
        "memory": examine_memory,
        "gpu": examine_gpus,
        "limits": examine_limits,
        "clock": examine_clock,
        "disk": lambda: [judge_disk(_free_bytes(Path(mark).parent))],
        "storage": lambda: [judge_shared(Path(mark).parent, _mark_error(Path(mark)), bool(store))],
        "reach": lambda: examine_reach(store, tracker if (tracker or "").startswith("http") else None, head),
    }
    findings = [finding for name, part in parts.items() for finding in looked_at(name, part)]
    return {"findings": [asdict(finding) for finding in findings], "versions": versions()}


def versions() -> dict[str, str]:
    """What must be the same on every node; empty where it is not known."""
    packages = {name: installed(name) or "none" for name in (*PACKAGES, PRODUCT)}
    return {"python": platform.python_version(), **packages, "commit": str(code_version().get("commit", ""))[:12]}


def judge_versions(here: dict[str, str], there: dict[str, str]) -> Finding:
    """A node's versions against the driver's."""
    known = {name: version for name, version in here.items() if version and there.get(name)}
    other = [f"{name} {there[name]} instead of {version}" for name, version in known.items() if there[name] != version]
    if other:
        return Finding("versions", ", ".join(other), "fail", "Use one image, or one environment, on every node.")
    return Finding("versions", "as the driver's")


def judge_shared(folder: Path, error: str, has_store: bool) -> Finding:
    """`error`: why the node does not see what the driver wrote there; empty if it does. With a store it need not."""
    if error and has_store:
        return Finding("storage", f"{folder}: {error}; the store is used")
    if error:
        fix = "Put --storage on a file system that all nodes share, or give --store URI."
        return Finding("storage", f"{folder}: {error}", "fail", fix)
    return Finding("storage", f"{folder}: shared with the driver, can be written")


def _examine_nodes(names: dict[str, str], arguments: tuple[Any, ...]) -> Iterable[Finding]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as On

    task: Any = ray.remote(look)
    pinned = {node: {"scheduling_strategy": On(node, soft=False), "num_cpus": 0, "max_retries": 0} for node in names}
    answers = {node: task.options(**pinned[node]).remote(*arguments) for node in names}
    ray.wait(list(answers.values()), num_returns=len(answers), timeout=ANSWER_SECONDS)
    here = versions()
    for node, answer in answers.items():
        try:
            seen = ray.get(answer, timeout=0)
            findings = [Finding(**data) for data in seen["findings"]]
            findings += [judge_versions(here, seen["versions"]), _skew(pinned[node])]
        except Exception as error:  # a node that died, hangs, or lacks the product
            words = str(error).strip().splitlines() or [""]
            value = f"gave no answer: {type(error).__name__}: {words[-1]}"
            findings = [Finding("node", value, "fail", "Is the product installed there, and the node alive?")]
        yield from (replace(finding, node=names[node]) for finding in findings)


def _skew(pinned: dict[str, Any]) -> Finding:
    """The node's clock against ours: of several round trips the quickest is the most certain."""
    import ray

    clock: Any = ray.remote(_now)
    trips = []
    for _ in range(5):
        sent = time.time()
        there = ray.get(clock.options(**pinned).remote(), timeout=30)
        back = time.time()
        trips.append((back - sent, there - (sent + back) / 2))
    trip, skew = min(trips)
    return judge_skew(skew, trip / 2)


def _now() -> float:
    return time.time()  # Ray takes no built-in function


@contextlib.contextmanager
def _mark(storage: Path) -> Generator[Path]:
    """A file that tells whether nodes see the driver's disk; gone at the end."""
    path = existing(storage) / f".doctor-{uuid.uuid4().hex}"
    path.write_text(path.name)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


def _mark_error(mark: Path) -> str:
    try:
        seen = mark.read_text()
    except FileNotFoundError:
        return "is not the driver's disk"
    except OSError as error:
        return error.strerror or str(error)
    return write_error(mark.parent) if seen == mark.name else "holds something else than the driver wrote"


def _free_bytes(folder: Path) -> int:
    return shutil.disk_usage(existing(folder)).free


def _distinct(names: dict[str, str]) -> dict[str, str]:
    """Nodes by address; where several have one, as in tests, with a part of their id."""
    addresses = list(names.values())
    return {n: a if addresses.count(a) == 1 else f"{a}/{n[:6]}" for n, a in names.items()}
