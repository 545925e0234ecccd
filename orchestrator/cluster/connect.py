"""Connect to Ray: a cluster of this sweep's own on this machine, or a standing one by its address.

Settings here answer measured traps: a stale cluster file makes a bare `ray.init` fail (so `address="local"`), and two
clusters on one machine confuse Ray's clean-up of placement groups unless the dashboard's address is pinned.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hrm.errors import Problem, SpecError
from orchestrator.cluster.guard import guarded_own, guarded_standing

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING": "0",
    "RAY_TRAIN_ENABLE_WORKER_STRUCTURED_LOGGING": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_COLOR_PREFIX": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_MAX_PENDING_TRIALS_PG": "1000",  # else Tune starts its actors one after another; the ledger's searcher counts
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
NODES_SECONDS = 300.0
"""How long nodes that were promised may take."""
_OBJECT_STORE_BYTES = 100 * 2**20
"""Reports are small; the default of 30 % of memory would fill a small /dev/shm."""


@dataclass(frozen=True, slots=True)
class Where:
    """The cluster that is asked for."""

    address: str | None = None
    """Of a standing cluster. None: one of our own, on 127.0.0.1, gone with the driver."""
    nodes: int = 1
    """A standing cluster that is only starting up is given a while to have so many; then what there is has to do."""
    dashboard: bool = True
    """Whether a cluster of our own has one; it takes some seconds to start."""


OWN = Where()
"""A cluster of our own."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A connected cluster."""

    nodes: tuple[tuple[float, float], ...]
    """CPUs and GPUs of each node."""
    dashboard: str
    """Its address, empty if there is none."""

    @property
    def gpus(self) -> float:
        """GPUs of all nodes."""
        return sum(gpus for _, gpus in self.nodes)


@contextlib.contextmanager
def connect(where: Where, stopping: Callable[[], bool] = lambda: False) -> Generator[Cluster]:
    """Connect, and disconnect at the end.

    When the cluster dies the process does not come back from here: it ends with a sentence, or starts again
    (`orchestrator.cluster.guard`). stopping: whether the sweep was asked to stop. Raises ConnectionError when there is
    no cluster at the address, SpecError for an address of Ray Client.
    """
    address = where.address
    if address is not None and address.startswith("ray://"):
        rule = f"must be auto or host:port, got {address!r}: through Ray Client a driver cannot keep the sweep's log"
        raise SpecError(Problem("--address", rule, "Start the command on the cluster, or give its head's host:port"))
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    with _dashboard_port() as port:
        context = _own(port, where.dashboard) if address is None else _join(address)
        _wait_for(1 if address is None else where.nodes, stopping)
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        nodes = tuple((node.get("CPU", 0.0), node.get("GPU", 0.0)) for node in alive)
        head = ray.get_runtime_context().gcs_address
        try:
            with guarded_own(stopping) if address is None else guarded_standing(head):
                yield Cluster(nodes, f"http://{context.dashboard_url}" if context.dashboard_url else "")
        finally:
            ray.shutdown()


def _own(port: int, dashboard: bool) -> Any:
    """A cluster of our own on this machine. GPUs that torch cannot use are left out: the driver would count them."""
    import ray
    import torch

    os.environ["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{port}"
    try:
        return ray.init(
            address="local",
            num_gpus=None if torch.cuda.is_available() else 0,
            include_dashboard=dashboard,
            dashboard_host="127.0.0.1",
            dashboard_port=port,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
            object_store_memory=_OBJECT_STORE_BYTES,
        )
    except Exception as error:
        raise ConnectionError(f"Ray did not start here ({error}). `doctor` examines this machine") from error


def _join(address: str) -> Any:
    """Connect to a standing cluster. Ray itself would wait for minutes where nobody listens, so that is tried first."""
    import ray

    host, _, port = address.rpartition(":")
    try:
        if port.isdigit():
            socket.create_connection((host, int(port)), timeout=5.0).close()
        return ray.init(
            address=address,
            runtime_env={"env_vars": _ENVIRONMENT},
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    except Exception as error:
        way_out = "Is it running, and is RAY_AUTH_MODE here the same as there (token or disabled)?"
        raise ConnectionError(f"no Ray cluster answers at {address!r} ({error}). {way_out}") from error


def _wait_for(min_nodes: int, stopping: Callable[[], bool]) -> None:
    import ray

    deadline = time.monotonic() + NODES_SECONDS
    while sum(node["Alive"] for node in ray.nodes()) < min_nodes:  # type: ignore[no-untyped-call]
        if stopping() or time.monotonic() > deadline:
            return
        time.sleep(0.5)


@contextlib.contextmanager
def _dashboard_port(usual: int = 8265) -> Generator[int]:
    """The dashboard's usual port if nobody has it, else any free one. Of two sweeps that start at once, the lock lets
    one have the usual port: Ray takes it only seconds later."""
    with (Path(tempfile.gettempdir()) / f"hrm-orchestrator-{os.getuid()}-{usual}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            port = _bindable(usual)
        except OSError:
            port = _bindable(0)
        yield port


def _bindable(port: int) -> int:
    """`port`, or any free one for 0. Raises OSError if somebody has it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", port))
        return int(probe.getsockname()[1])
