"""The doctor on the machine: cores, matrix instructions, threads, memory, shared memory and the limits of the shell.

Cores and memory are those that this process may use, thus a container's share and not the whole machine.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
from collections.abc import Iterable
from pathlib import Path

import psutil

from orchestrator.doctor.finding import GIB, Finding, gib

DEFAULT_JOB = "the default job's 10 minutes"
"""Measured on two cores with bfloat16 matrix instructions."""


def examine_cpu() -> Iterable[Finding]:
    """Model, usable cores, matrix instructions, threads."""
    import torch

    model, flags = _cpu_model()
    cores = usable_cores()
    yield Finding("cpu", f"{model}, {cores:g} usable cores")
    yield judge_matrix_instructions(flags, cores)
    yield judge_threads(os.environ.get("OMP_NUM_THREADS"), torch.get_num_threads(), cores)


def judge_matrix_instructions(flags: set[str], cores: float) -> Finding:
    """Whether training in bfloat16 is fast here, by the flags of /proc/cpuinfo."""
    name = "bfloat16 instructions"
    seen = sorted(flags & {"amx_bf16", "avx512_bf16", "bf16"})
    text = ", ".join(seen) or "none (no AMX, no AVX512-BF16)"
    if not seen:
        return Finding(name, text, "warn", f"Training uses float32: expect more than {DEFAULT_JOB}.")
    if cores < 2:
        return Finding(name, text, "warn", f"Under 2 cores: expect more than {DEFAULT_JOB}.")
    return Finding(name, f"{text}: {DEFAULT_JOB} apply")


def judge_threads(omp: str | None, torch_threads: int, cores: float) -> Finding:
    """Threads per process against cores: too many slow each other down."""
    text = f"OMP_NUM_THREADS {omp or 'unset'}, torch uses {torch_threads}"
    if torch_threads > max(cores, 1):
        fix = f"export OMP_NUM_THREADS={max(int(cores), 1)}"
        return Finding("threads", f"{text}, on {cores:g} cores", "warn", fix)
    return Finding("threads", text)


def examine_memory() -> Iterable[Finding]:
    """Memory, as far as this process may use it, and shared memory."""
    yield judge_memory(usable_memory_bytes(), psutil.virtual_memory().available)
    shared = Path("/dev/shm")
    if shared.is_dir():
        usage = shutil.disk_usage(shared)
        yield judge_shared_memory(usage.total, usage.free)
    else:
        yield Finding("/dev/shm", "none on this system")


def judge_memory(total_bytes: int, available_bytes: int) -> Finding:
    """Ray takes about 0.6 GiB and a warm training slot up to 1.6 GiB, before the model (measured)."""
    text = f"{gib(min(available_bytes, total_bytes))} available of {gib(total_bytes)}"
    if min(available_bytes, total_bytes) < 4 * GIB:
        return Finding("memory", text, "warn", "Run one trial at a time, or free memory: under 4 GiB is tight.")
    return Finding("memory", text)


def judge_shared_memory(total_bytes: int, free_bytes: int) -> Finding:
    """Ray's object store and NCCL live in /dev/shm; containers give 64 MiB unless asked."""
    text = f"{gib(free_bytes)} free of {gib(total_bytes)}"
    if total_bytes < GIB:
        return Finding("/dev/shm", text, "warn", "Start the container with --ipc=host, or --shm-size=8g or more.")
    if free_bytes < GIB // 2:
        return Finding("/dev/shm", text, "warn", "Remove what dead processes left there: ls -l /dev/shm")
    return Finding("/dev/shm", text)


def examine_limits() -> Iterable[Finding]:
    """Limits of the shell and of the container."""
    yield judge_open_files(*resource.getrlimit(resource.RLIMIT_NOFILE))
    yield judge_locked_memory(resource.getrlimit(resource.RLIMIT_MEMLOCK)[0], Path("/dev/nvidiactl").exists())
    yield judge_stack(resource.getrlimit(resource.RLIMIT_STACK)[0])
    of_container = _read("/sys/fs/cgroup/pids.max")
    yield judge_processes(
        resource.getrlimit(resource.RLIMIT_NPROC)[0], int(of_container) if of_container.isdigit() else -1
    )


def judge_open_files(soft: int, hard: int) -> Finding:
    """Ray opens a few hundred files per worker and raises its own limit as far as `hard` allows."""
    if 0 <= hard < 4096:
        return Finding("open files", f"{soft}, at most {hard}", "warn", "Raise the hard limit: --ulimit nofile=65536")
    if 0 <= soft < 1024:
        return Finding("open files", f"{soft}, at most {hard}", "warn", "ulimit -n 65536")
    return Finding("open files", f"{soft}, at most {hard}")


def judge_locked_memory(soft: int, has_gpu: bool) -> Finding:
    """NCCL locks memory that it shares with network cards. -1: no limit."""
    text = "unlimited" if soft < 0 else f"{soft / 2**20:.0f} MiB"
    if has_gpu and 0 <= soft < GIB:
        return Finding("locked memory", text, "warn", "ulimit -l unlimited; of a container: --ulimit memlock=-1")
    return Finding("locked memory", text)


def judge_stack(soft: int) -> Finding:
    """Threads of torch and Ray take their stacks from it. -1: no limit."""
    text = "unlimited" if soft < 0 else f"{soft / 2**20:.0f} MiB"
    if 0 <= soft < 8 * 2**20:
        return Finding("stack", text, "warn", "ulimit -s 65536; of a container: --ulimit stack=67108864")
    return Finding("stack", text)


def judge_processes(soft: int, of_container: int) -> Finding:
    """Processes and threads; Ray starts some hundreds of threads for each trial process. -1: no limit."""
    limits = [limit for limit in (soft, of_container) if limit >= 0]
    text = str(min(limits)) if limits else "unlimited"
    if limits and min(limits) < 4096:
        return Finding("processes", text, "warn", "ulimit -u 65536; of a container: --pids-limit=-1")
    return Finding("processes", text)


def usable_cores() -> float:
    """Cores that this process may use: by affinity and by the container's quota."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    return min(cores, int(quota[0]) / int(quota[1])) if len(quota) == 2 and quota[0] != "max" else cores


def usable_memory_bytes() -> int:
    """Memory that this process may use: the machine's, or the container's limit."""
    total = psutil.virtual_memory().total
    limit = _read("/sys/fs/cgroup/memory.max")
    return min(total, int(limit)) if limit.isdigit() else total


def _cpu_model() -> tuple[str, set[str]]:
    text = _read("/proc/cpuinfo")
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    model = fields.get("model name") or platform.processor() or platform.machine()
    return model, set(fields.get("flags", fields.get("Features", "")).split())


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
