"""The doctor on GPUs: the driver, and every GPU as NVML and as torch see it.

Says whether this torch has code for each GPU, by CUDA's rules of compatibility. Without a GPU or a driver it says so
and finds nothing wrong.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from orchestrator.doctor.finding import Finding, gib

CONTAINER = "nvcr.io/nvidia/pytorch:25.10-py3"


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
    nccl: str = ""
    cudnn: str = ""


@dataclass(frozen=True, slots=True)
class Nvml:
    """What NVML tells, or why it tells nothing."""

    gpus: tuple[Gpu | str, ...] = ()
    """Text: why this one could not be read."""
    driver: str = ""
    cuda: tuple[int, int] = (0, 0)
    error: str = ""
    absent: bool = False
    """There is no NVIDIA driver at all."""


def examine_gpus() -> Iterable[Finding]:
    """The torch build, and every GPU as NVML and as torch see it."""
    build = _torch_build()
    yield Finding("torch build", f"CUDA {build.cuda}: {' '.join(build.architectures)}" if build.cuda else "CPU only")
    yield judge_libraries(build)
    nvml = ask_nvml()
    yield judge_nvml(nvml, len(build.devices))
    if nvml.driver:
        yield judge_driver(nvml.driver, nvml.cuda, build.cuda)
    for index, gpu in enumerate(nvml.gpus):
        yield judge_gpu(f"gpu {index} by NVML", gpu, build.architectures)
    for index, gpu in enumerate(build.devices):
        yield judge_gpu(f"gpu {index} by torch", gpu, build.architectures)
    yield judge_devices(len(nvml.gpus), len(build.devices), build.cuda, os.environ.get("CUDA_VISIBLE_DEVICES"))


def judge_libraries(build: TorchBuild) -> Finding:
    """NCCL joins workers on GPUs, cuDNN has kernels; both come with torch."""
    if build.cuda is None:
        return Finding("nccl, cudnn", "none: torch is a CPU build, whose workers are joined by gloo")
    text = f"NCCL {build.nccl or 'missing'}, cuDNN {build.cudnn or 'missing'}"
    if not build.nccl:
        fix = f"Several workers on GPUs need NCCL: install another build of torch, such as the one in {CONTAINER}."
        return Finding("nccl, cudnn", text, "warn", fix)
    return Finding("nccl, cudnn", text)


def judge_nvml(nvml: Nvml, num_torch: int) -> Finding:
    """Without NVML there are no checks of shared GPUs and no energy figures; without GPUs nothing is missed."""
    if nvml.error and (num_torch or not nvml.absent):
        fix = "Look at `nvidia-smi`: driver and library must be of one version; in a container, start it with --gpus."
        return Finding("nvml", nvml.error, "warn", fix)
    if nvml.error:
        return Finding("nvml", nvml.error)
    return Finding("nvml", f"sees {len(nvml.gpus)} GPU(s)")


def judge_driver(driver: str, driver_cuda: tuple[int, int], torch_cuda: str | None) -> Finding:
    """A driver runs programs of its own CUDA major version and older."""
    text = "{}, up to CUDA {}.{}".format(driver, *driver_cuda)
    if torch_cuda and driver_cuda[0] < int(torch_cuda.split(".")[0]):
        fix = f"Update the driver, or install a torch built for CUDA {driver_cuda[0]}."
        return Finding("driver", f"{text}; torch needs CUDA {torch_cuda}", "fail", fix)
    return Finding("driver", text)


def judge_gpu(name: str, gpu: Gpu | str, architectures: Sequence[str]) -> Finding:
    """Whether torch has kernels for this GPU. `architectures`: torch's list; empty for a CPU build."""
    if isinstance(gpu, str):
        return Finding(name, f"could not be read: {gpu}", "fail", "Look at `nvidia-smi -q` and `dmesg`; reset it.")
    memory = "unified memory" if gpu.memory_bytes is None else gib(gpu.memory_bytes)
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


def _torch_build() -> TorchBuild:
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    devices = []
    for index in range(count):
        properties = torch.cuda.get_device_properties(index)
        devices.append(Gpu(properties.name, (properties.major, properties.minor), properties.total_memory))
    nccl, cudnn = "", torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    if torch.version.cuda and torch.distributed.is_nccl_available():
        nccl = ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
    architectures = tuple(torch.cuda.get_arch_list())
    return TorchBuild(torch.__version__, torch.version.cuda, architectures, tuple(devices), nccl, str(cudnn or ""))


def ask_nvml() -> Nvml:
    """Everything that NVML tells. Never raises: a driver may be absent, broken, or silent about some figures."""
    try:
        import pynvml
    except ImportError as error:
        return Nvml(error=f"not available: {error}", absent=True)
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        absent = error.value == pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
        return Nvml(error=f"not available: {error}", absent=absent)
    try:
        gpus = tuple(_nvml_gpu(index) for index in range(pynvml.nvmlDeviceGetCount()))
        cuda = pynvml.nvmlSystemGetCudaDriverVersion_v2()
        return Nvml(gpus, pynvml.nvmlSystemGetDriverVersion(), (cuda // 1000, cuda % 1000 // 10))
    except pynvml.NVMLError as error:
        return Nvml(error=f"answers with an error: {error}")
    finally:
        pynvml.nvmlShutdown()


def _nvml_gpu(index: int) -> Gpu | str:
    """A GPU, or why it cannot be read: one that fell off the bus must not hide the others."""
    import pynvml

    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
        name = pynvml.nvmlDeviceGetName(handle)
    except pynvml.NVMLError as error:
        return str(error)
    try:
        memory = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total) or None
    except pynvml.NVMLError:
        memory = None
    return Gpu(name, (major, minor), memory)
