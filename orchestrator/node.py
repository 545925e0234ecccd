"""What a worker's node is doing now: sampled by the worker, sent with its reports."""

from __future__ import annotations

import os

import psutil

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


def _gpu_metrics() -> dict[str, float]:
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # NVML absent, or a driver that does not answer: a node without GPU figures
        return {}
    metrics: dict[str, float] = {}
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            device = pynvml.nvmlDeviceGetHandleByIndex(index)
            metrics[f"gpu{index}_percent"] = float(pynvml.nvmlDeviceGetUtilizationRates(device).gpu)
            metrics[f"gpu{index}_memory_bytes"] = float(pynvml.nvmlDeviceGetMemoryInfo(device).used)
    except pynvml.NVMLError:  # unified memory reports no figures
        pass
    finally:
        pynvml.nvmlShutdown()
    return metrics
