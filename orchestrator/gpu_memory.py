"""Several workers on one GPU: each is limited to its share of the memory, and a trial starts only where that is free.

The GPU is asked through NVML by its UUID, since a worker's `cuda:0` is any GPU of the node. Without NVML, or where
memory is shared with the CPU (GB10, Jetson), nothing can be checked, and the log says so.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from hrm.errors import InfrastructureError, Problem, SpecError

CONTEXT_BYTES = 600 * 2**20
"""What CUDA itself takes of each process, outside of torch's account, with some reserve."""
NEEDED_FRACTION = 0.9
"""Of its share; a display and other small users are tolerated."""
WAIT_SECONDS = 30.0
"""For the memory of a process that just died, which the driver gives back after seconds."""


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """A GPU's memory as NVML sees it."""

    total_bytes: int
    free_bytes: int
    users: tuple[int, ...]
    """The processes on it; empty in a container, which sees none of the others."""


def limit_to_share(device: torch.device, share: float) -> str:
    """Limit this process to its share of its GPU, once that is free. Gives a sentence for the log, empty without GPU.

    Raises InfrastructureError where it stays taken, SpecError for a share that is too small for anything.
    """
    if device.type != "cuda" or not share:
        return ""
    properties = torch.cuda.get_device_properties(device)
    if share < 1:
        torch.cuda.set_per_process_memory_fraction(allowed(share, properties.total_memory), device)
    torch.cuda.empty_cache()
    uuid = str(getattr(properties, "uuid", ""))
    return wait_until_free(uuid, min(share, 1.0), torch.cuda.memory_reserved(device))


def wait_until_free(uuid: str, share: float, own_bytes: int, wait_seconds: float = WAIT_SECONDS) -> str:
    """Wait until a share of the GPU is free; a sentence for the log. Raises InfrastructureError where it is not."""
    deadline = time.monotonic() + wait_seconds
    while True:
        sentence, fits = judge_memory(read_memory(uuid), share, own_bytes)
        if fits:
            return sentence
        if time.monotonic() > deadline:
            raise InfrastructureError(f"gpu_memory: {sentence}")
        time.sleep(min(1.0, wait_seconds))


def allowed(share: float, total_bytes: int) -> float:
    """The fraction of the GPU's memory that torch may take: the share less what CUDA itself needs."""
    fraction = share - CONTEXT_BYTES / total_bytes
    if fraction <= 0:
        rule = f"a share of {share:g} of {total_bytes / 2**30:.1f} GiB leaves nothing beside CUDA's own memory"
        raise SpecError(Problem("resources.gpus_per_worker", rule, "Raise it"))
    return fraction


def judge_memory(memory: GpuMemory | None, share: float, own_bytes: int) -> tuple[str, bool]:
    """What is free against what a worker with this share needs: a sentence, and whether it fits.

    `own_bytes`: what this process holds already. None: not known, so that it counts as fitting.
    """
    if memory is None:
        return "GPU memory is not checked: NVML is absent, or reports no figures (memory shared with the CPU)", True
    needed = NEEDED_FRACTION * (share * memory.total_bytes - CONTEXT_BYTES)
    free = memory.free_bytes + own_bytes
    sentence = f"{free / 2**30:.1f} GiB of GPU memory free, a share of {share:g} needs {needed / 2**30:.1f} GiB"
    if free >= needed:
        return sentence, True
    users = f"processes {', '.join(map(str, memory.users))} use it" if memory.users else "others use it"
    return f"{sentence}: {users}. End them, or lower resources.gpus_per_worker", False


def read_memory(uuid: str) -> GpuMemory | None:
    """The memory of the GPU with this UUID; None where NVML cannot tell."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # not installed, no driver, or a driver that does not answer: there is nothing to check with
        return None
    try:
        device = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")
        memory = pynvml.nvmlDeviceGetMemoryInfo(device)
        users = tuple(process.pid for process in pynvml.nvmlDeviceGetComputeRunningProcesses(device))
        return GpuMemory(int(memory.total), int(memory.free), users)
    except pynvml.NVMLError:  # unified memory, or a slice of a GPU that has no such number
        return None
    finally:
        pynvml.nvmlShutdown()
