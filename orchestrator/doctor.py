"""Examines this machine before a sweep does: every line has a value, a verdict, and the fix where one is needed.

Looking (`examine_*`) is apart from judging (`judge_*`, pure functions of what was seen). What cannot be looked at is a
line too: the doctor never crashes, and it works without a GPU, without a network and without a running Ray.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import resource
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Literal

import psutil
from packaging.requirements import Requirement
from rich.console import Console
from rich.markup import escape
from rich.table import Table

Verdict = Literal["ok", "warn", "fail"]

PRODUCT = "hrm-orchestrator"
PACKAGES = ("torch", "ray", "optuna", "mlflow", "pyarrow", "pydantic")
CONTAINER = "nvcr.io/nvidia/pytorch:25.10-py3"
OLDEST_PYTHON = (3, 11)
GIB = 2**30
DEFAULT_JOB = "the default job's 10 minutes"
"""Measured on two cores with bfloat16 matrix instructions."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: what was looked at, what was seen, and what to do about it."""

    name: str
    value: str
    verdict: Verdict = "ok"
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU as NVML or torch sees it. The two may number them differently."""

    name: str
    capability: tuple[int, int]
    memory_bytes: int | None
    """None: not supported, thus memory shared with the CPU (GB10, Jetson)."""


@dataclass(frozen=True, slots=True)
class TorchBuild:
    """What this torch was built for."""

    version: str
    cuda: str | None
    architectures: tuple[str, ...]
    devices: tuple[Gpu, ...]


def examine(storage: Path) -> list[Finding]:
    """All findings, for a sweep that would keep its files under `storage`. Creates nothing that stays."""
    parts: dict[str, Callable[[], Iterable[Finding]]] = {
        "software": examine_software,
        "cpu": examine_cpu,
        "memory": examine_memory,
        "storage": lambda: examine_storage(storage),
        "gpu": examine_gpus,
        "ray": examine_ray,
        "limits": examine_limits,
    }
    return [finding for name, part in parts.items() for finding in looked_at(name, part)]


def looked_at(name: str, part: Callable[[], Iterable[Finding]]) -> list[Finding]:
    """The findings of one part; a part that breaks ends in a line that says so."""
    findings: list[Finding] = []
    try:
        findings.extend(part())
    except Exception as error:  # a broken driver or an odd system must show as a line
        value = f"could not be examined: {type(error).__name__}: {error}"
        findings.append(Finding(name, value, "warn", "Look at this part by hand; the other lines hold."))
    return findings


def worst(findings: Sequence[Finding]) -> Verdict:
    """`fail` if anything fails, else `warn` if anything warns."""
    verdicts = {finding.verdict for finding in findings}
    return "fail" if "fail" in verdicts else "warn" if "warn" in verdicts else "ok"


def render(findings: Sequence[Finding], console: Console | None = None) -> None:
    """Print the findings as a table, by default to the terminal."""
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    table = Table(box=None, pad_edge=False)
    for title in ("", "what", "seen", "fix"):
        table.add_column(title, overflow="fold")
    for finding in findings:
        colour = colours[finding.verdict]
        table.add_row(f"[{colour}]{finding.verdict}[/]", *map(escape, (finding.name, finding.value, finding.fix)))
    (console or Console()).print(table)


def as_json(findings: Sequence[Finding]) -> str:
    """The findings with the worst verdict, for programs."""
    return json.dumps({"verdict": worst(findings), "findings": [asdict(finding) for finding in findings]}, indent=1)


def examine_software() -> Iterable[Finding]:
    """Python, the packages against what the product asks for, flash-attention, git."""
    yield judge_python(sys.version_info[:3])
    wanted = _requirements()
    for name in PACKAGES:
        yield judge_package(name, _version(name), wanted.get(name))
    flash = _version("flash-attn")
    yield Finding("flash-attention", flash or "not installed: torch's own attention is used")
    yield judge_git(shutil.which("git"))


def judge_python(seen: tuple[int, ...]) -> Finding:
    """The interpreter against the oldest that is supported."""
    text = ".".join(map(str, seen))
    if seen[:2] < OLDEST_PYTHON:
        return Finding("python", text, "fail", "Use Python {}.{} or newer.".format(*OLDEST_PYTHON))
    return Finding("python", text)


def judge_package(name: str, seen: str | None, wanted: str | None) -> Finding:
    """An installed version against its requirement, such as `torch>=2.8`; None: not installed, nothing asked."""
    if seen is None:
        return Finding(name, "not installed", "fail", f"pip install '{wanted or name}'")
    if wanted and not Requirement(wanted).specifier.contains(seen, prereleases=True):
        return Finding(name, f"{seen}, but {wanted} is needed", "fail", f"pip install '{wanted}'")
    return Finding(name, seen)


def judge_git(path: str | None) -> Finding:
    """Whether a sweep can record its commit."""
    if path is None:
        return Finding("git", "not found", "warn", "Install git: without it no sweep records its commit.")
    return Finding("git", path)


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
    text = f"{_gib(min(available_bytes, total_bytes))} available of {_gib(total_bytes)}"
    if min(available_bytes, total_bytes) < 4 * GIB:
        return Finding("memory", text, "warn", "Run one trial at a time, or free memory: under 4 GiB is tight.")
    return Finding("memory", text)


def judge_shared_memory(total_bytes: int, free_bytes: int) -> Finding:
    """Ray's object store and NCCL live in /dev/shm; containers give 64 MiB unless asked."""
    text = f"{_gib(free_bytes)} free of {_gib(total_bytes)}"
    if total_bytes < GIB:
        return Finding("/dev/shm", text, "warn", "Start the container with --ipc=host, or --shm-size=8g or more.")
    if free_bytes < GIB // 2:
        return Finding("/dev/shm", text, "warn", "Remove what dead processes left there: ls -l /dev/shm")
    return Finding("/dev/shm", text)


def examine_storage(storage: Path) -> Iterable[Finding]:
    """Whether sweeps can be kept under `storage`, and how much of them."""
    place = storage.absolute()
    while not os.path.exists(place):  # Path.exists raises where a folder may not be entered
        place = place.parent
    yield judge_storage(storage.absolute(), _write_error(place))
    yield judge_disk(shutil.disk_usage(place).free)


def judge_storage(storage: Path, error: str) -> Finding:
    """`error`: why a file could not be written and locked there; empty if it could."""
    if error:
        fix = "Choose another storage root, or make this one writable; a sweep also needs flock on it."
        return Finding("storage", f"{storage}: {error}", "fail", fix)
    return Finding("storage", f"{storage}: can be written and locked")


def judge_disk(free_bytes: int) -> Finding:
    """Checkpoints are what fills a disk."""
    if free_bytes < GIB:
        return Finding("disk", f"{_gib(free_bytes)} free", "fail", "Free some space, or choose another storage root.")
    if free_bytes < 10 * GIB:
        return Finding("disk", f"{_gib(free_bytes)} free", "warn", "Keep fewer checkpoints, or free some space.")
    return Finding("disk", f"{_gib(free_bytes)} free")


def examine_gpus() -> Iterable[Finding]:
    """The torch build, and every GPU as NVML and as torch see it."""
    build = _torch_build()
    yield Finding("torch build", f"CUDA {build.cuda}: {' '.join(build.architectures)}" if build.cuda else "CPU only")
    seen, driver, driver_cuda, error = _nvml()
    if error:
        yield Finding("nvml", error)
    else:
        yield judge_driver(driver, driver_cuda, build.cuda)
    for index, gpu in enumerate(seen):
        yield judge_gpu(f"gpu {index} by NVML", gpu, build.architectures)
    for index, gpu in enumerate(build.devices):
        yield judge_gpu(f"gpu {index} by torch", gpu, build.architectures)
    yield judge_devices(len(seen), len(build.devices), build.cuda, os.environ.get("CUDA_VISIBLE_DEVICES"))


def judge_driver(driver: str, driver_cuda: tuple[int, int], torch_cuda: str | None) -> Finding:
    """A driver runs programs of its own CUDA major version and older."""
    text = "{}, up to CUDA {}.{}".format(driver, *driver_cuda)
    if torch_cuda and driver_cuda[0] < int(torch_cuda.split(".")[0]):
        fix = f"Update the driver, or install a torch built for CUDA {driver_cuda[0]}."
        return Finding("driver", f"{text}; torch needs CUDA {torch_cuda}", "fail", fix)
    return Finding("driver", text)


def judge_gpu(name: str, gpu: Gpu, architectures: Sequence[str]) -> Finding:
    """Whether torch has kernels for this GPU. `architectures`: torch's list; empty for a CPU build."""
    memory = "unified memory" if gpu.memory_bytes is None else _gib(gpu.memory_bytes)
    text = "{}, {}, compute capability {}.{}".format(gpu.name, memory, *gpu.capability)
    if architectures and not runs_on(architectures, gpu.capability):
        fix = f"Use a torch that knows this GPU, such as the one in {CONTAINER}."
        return Finding(name, f"{text}; torch was built for {' '.join(architectures)}", "fail", fix)
    return Finding(name, text)


def judge_devices(num_nvml: int, num_torch: int, torch_cuda: str | None, visible: str | None) -> Finding:
    """Whether torch can use the GPUs that are there."""
    if num_torch:
        return Finding("devices", f"{num_torch} GPU" + ("s" if num_torch > 1 else ""))
    if num_nvml and torch_cuda is None:
        fix = f"Install a torch built for CUDA, or use {CONTAINER}."
        return Finding("devices", f"CPU: torch is a CPU build, {num_nvml} GPU(s) stay idle", "warn", fix)
    if num_nvml and visible is None:
        fix = f"python -c 'import torch; torch.cuda.init()' says why; {CONTAINER} fits most drivers."
        return Finding("devices", f"CPU: torch cannot use the {num_nvml} GPU(s) that NVML sees", "fail", fix)
    if num_nvml:
        return Finding("devices", f"CPU: CUDA_VISIBLE_DEVICES={visible!r} hides {num_nvml} GPU(s)", "warn", "Unset it.")
    return Finding("devices", "CPU: no NVIDIA GPU here")


def runs_on(architectures: Sequence[str], capability: tuple[int, int]) -> bool:
    """Whether code built for `architectures` runs on a GPU of `capability`, by CUDA's rules of compatibility.

    Binaries (`sm_90`) run on later minor versions of their major; with an `a` only on exactly their own. PTX
    (`compute_90`) is compiled for any later GPU.
    """
    for architecture in architectures:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)([af]?)", architecture)
        if match is None:
            continue
        form, built, suffix = match[1], (int(match[2]), int(match[3])), match[4]
        if suffix == "a":
            fits = built == capability
        elif form == "sm" or suffix == "f":
            fits = built[0] == capability[0] and built[1] <= capability[1]
        else:
            fits = built <= capability
        if fits:
            return True
    return False


def examine_ray() -> Iterable[Finding]:
    """What earlier Ray clusters left behind, and which run now."""
    note = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray" / "ray_current_cluster"
    address = note.read_text().strip() if note.exists() else ""
    yield judge_ray_note(note, address, bool(address) and _answers(address))
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


def examine_limits() -> Iterable[Finding]:
    """Limits of the shell."""
    yield judge_open_files(*resource.getrlimit(resource.RLIMIT_NOFILE))


def judge_open_files(soft: int, hard: int) -> Finding:
    """Ray opens a few hundred files per worker and raises its own limit as far as `hard` allows."""
    if 0 <= hard < 4096:
        return Finding("open files", f"{soft}, at most {hard}", "warn", "Raise the hard limit: --ulimit nofile=65536")
    if 0 <= soft < 1024:
        return Finding("open files", f"{soft}, at most {hard}", "warn", "ulimit -n 65536")
    return Finding("open files", f"{soft}, at most {hard}")


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


def _requirements() -> dict[str, str]:
    """The product's requirements by package, without extras and markers; empty if it is not installed."""
    try:
        wanted = [Requirement(line) for line in requires(PRODUCT) or []]
    except PackageNotFoundError:
        return {}
    return {item.name: f"{item.name}{item.specifier}" for item in wanted if item.marker is None}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_model() -> tuple[str, set[str]]:
    text = _read("/proc/cpuinfo")
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}
    model = fields.get("model name") or platform.processor() or platform.machine()
    return model, set(fields.get("flags", fields.get("Features", "")).split())


def _torch_build() -> TorchBuild:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = []
    for index in range(count):
        properties = torch.cuda.get_device_properties(index)
        devices.append(Gpu(properties.name, (properties.major, properties.minor), properties.total_memory))
    return TorchBuild(torch.__version__, torch.version.cuda, tuple(torch.cuda.get_arch_list()), tuple(devices))


def _nvml() -> tuple[list[Gpu], str, tuple[int, int], str]:
    """GPUs, driver, the CUDA version it supports, and why NVML is not there (then the rest is empty)."""
    import pynvml

    try:
        pynvml.nvmlInit()
        try:
            gpus = [_nvml_gpu(index) for index in range(pynvml.nvmlDeviceGetCount())]
            driver, cuda = pynvml.nvmlSystemGetDriverVersion(), pynvml.nvmlSystemGetCudaDriverVersion_v2()
            return gpus, driver, (cuda // 1000, cuda % 1000 // 10), ""
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        return [], "", (0, 0), f"not available: {error}"


def _nvml_gpu(index: int) -> Gpu:
    import pynvml

    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    try:
        memory: int | None = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    except pynvml.NVMLError_NotSupported:
        memory = None
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    return Gpu(pynvml.nvmlDeviceGetName(handle), (major, minor), memory)


def _write_error(folder: Path) -> str:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
            file.flush()
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return f"{folder}: {error.strerror or error}"
    return ""


def _answers(address: str) -> bool:
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


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.1f} GiB"
