"""What a worker's node is doing now: sampled by the worker, sent with its reports."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import psutil
import torch

_process = psutil.Process()
psutil.cpu_percent()  # the first call only starts the clock


def node_metrics() -> dict[str, float]:
    """CPU and memory of the node and of this process; utilisation and memory of its GPUs where NVML has them."""
    memory = psutil.virtual_memory()
    metrics = {
        "cpu_percent": psutil.cpu_percent(),
        "memory_used_bytes": float(memory.total - memory.available),
        "process_memory_bytes": float(_process.memory_info().rss),
        "load_average": os.getloadavg()[0],
    }
    return metrics | _gpu_metrics()


@contextlib.contextmanager
def _nvml() -> Iterator[Any]:
    """The open library; None where NVML is absent, or its driver does not answer."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # pynvml raises what it finds: no library, no driver, a broken one
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _gpu_metrics() -> dict[str, float]:
    metrics: dict[str, float] = {}
    with _nvml() as nvml:
        if nvml is None:
            return {}
        with contextlib.suppress(nvml.NVMLError):  # unified memory reports no figures
            for index in range(nvml.nvmlDeviceGetCount()):
                device = nvml.nvmlDeviceGetHandleByIndex(index)
                metrics[f"gpu{index}_percent"] = float(nvml.nvmlDeviceGetUtilizationRates(device).gpu)
                metrics[f"gpu{index}_memory_bytes"] = float(nvml.nvmlDeviceGetMemoryInfo(device).used)
    return metrics


def gpu_names(devices: Sequence[torch.device]) -> list[str]:
    """As NVML calls these devices, for which `cuda:0` is any GPU of the node; CPUs are left out."""
    found = [str(torch.cuda.get_device_properties(device).uuid) for device in devices if device.type == "cuda"]
    return [name if name.startswith(("GPU-", "MIG-")) else f"GPU-{name}" for name in found]


class GpuEnergy:
    """The joules that a worker's GPUs took since it was last asked; None where NVML does not count them.

    `share`: of a GPU that several workers use, the part that is this one's: what they all took is divided so.
    """

    def __init__(self, names: Sequence[str], share: float = 1.0) -> None:
        self._names, self._share = names, min(share, 1.0)
        self._last = self._counter()

    def joules(self) -> float | None:
        """Since the last call, or since the start."""
        now, last = self._counter(), self._last
        self._last = now
        return None if now is None or last is None else max(now - last, 0.0) * self._share

    def _counter(self) -> float | None:
        """Millijoules since the drivers were loaded, here in joules."""
        with _nvml() as nvml:
            if nvml is None or not self._names:
                return None
            try:
                handles = [nvml.nvmlDeviceGetHandleByUUID(name) for name in self._names]
                return sum(float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) for handle in handles) / 1e3
            except nvml.NVMLError:
                return None


def energy_problem() -> str:
    """Why NVML does not count the energy of this node's GPUs; empty where it does."""
    with _nvml() as nvml:
        if nvml is None:
            return "NVML does not answer there"
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                nvml.nvmlDeviceGetTotalEnergyConsumption(nvml.nvmlDeviceGetHandleByIndex(index))
            except nvml.NVMLError as error:
                return f"NVML has no energy counter for GPU {index} ({error})"
    return ""
