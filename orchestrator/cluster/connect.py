"""Connect to Ray: a cluster of this sweep's own on this machine, or a standing one by its address.

Settings here answer measured traps: a stale cluster file makes a bare `ray.init` fail (so `address="local"`), and two
clusters on one machine confuse Ray's clean-up of placement groups unless the dashboard's address is pinned.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

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
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_OBJECT_STORE_BYTES = 100 * 2**20
"""Reports are small; the default of 30 % of memory would fill a small /dev/shm."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """A connected cluster."""

    cpus: float
    gpus: float
    dashboard: str
    """Its address, empty if there is none."""


@contextlib.contextmanager
def connect(address: str | None, num_cpus: int | None = None) -> Generator[Cluster]:
    """Connect, and disconnect at the end. `address` None: a cluster of our own, on 127.0.0.1, gone with the driver.

    Raises ConnectionError when there is no cluster at `address`.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    logging.getLogger("ray").setLevel(logging.ERROR)
    if address is None:
        port = _free_port()
        os.environ["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{port}"
        context = ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            dashboard_port=port,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
            object_store_memory=_OBJECT_STORE_BYTES,
        )
    else:
        context = _join(address)
    resources = ray.cluster_resources()  # type: ignore[no-untyped-call]
    dashboard = f"http://{context.dashboard_url}" if context.dashboard_url else ""
    try:
        yield Cluster(resources.get("CPU", 0.0), resources.get("GPU", 0.0), dashboard)
    finally:
        ray.shutdown()


def _join(address: str) -> Any:
    """Connect to a standing cluster. Ray itself would wait for minutes where nobody listens, so that is tried first."""
    import ray

    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if port.isdigit():
            socket.create_connection((host, int(port)), timeout=5.0).close()
        return ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, configure_logging=False)
    except Exception as error:
        way_out = "Is it running, and is RAY_AUTH_MODE here the same as there (token or disabled)?"
        raise ConnectionError(f"no Ray cluster answers at {address!r} ({error}). {way_out}") from error


def _free_port(preferred: int = 8265) -> int:
    """The dashboard's usual port if it is free, else any."""
    for port in (preferred, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise ConnectionError("no free port on 127.0.0.1")
