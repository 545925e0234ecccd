"""A fake of NVML's C library, below the real pynvml: this machine has no NVIDIA driver.

Its functions have the names, arguments and error codes of the C functions; what NVML is asked for and not listed here
is answered as by an old driver, with "function not found".
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any

import pynvml
import pytest

SUCCESS, NOT_SUPPORTED, NOT_FOUND, INSUFFICIENT_SIZE, GPU_IS_LOST = 0, 3, 6, 7, 15


@dataclass
class FakeGpu:
    """One GPU; `total` None: it reports no memory figures. `lost`: it has fallen off the bus."""

    name: str = "NVIDIA H100 80GB HBM3"
    uuid: str = "GPU-1"
    capability: tuple[int, int] = (9, 0)
    total: int | None = 80 * 2**30
    free: int = 80 * 2**30
    users: tuple[int, ...] = ()
    lost: bool = False
    millijoules: int | None = 0
    """Its energy counter; None for a GPU without one."""


@dataclass
class FakeNvml:
    """The library. `init`: what initialising returns."""

    gpus: list[FakeGpu] = field(default_factory=list)
    driver: str = "580.95.05"
    cuda: int = 13000
    init: int = SUCCESS

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put it where pynvml keeps the loaded library."""
        monkeypatch.setattr(pynvml, "nvmlLib", self)
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})

    def nvmlInitWithFlags(self, flags: int) -> int:  # noqa: N802
        return self.init

    def nvmlShutdown(self) -> int:  # noqa: N802
        return SUCCESS

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:  # noqa: N802
        count._obj.value = len(self.gpus)
        return SUCCESS

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:  # noqa: N802
        handle._obj.contents = pynvml.struct_c_nvmlDevice_t()
        self._handles = getattr(self, "_handles", {}) | {_address(handle._obj): self.gpus[index.value]}
        return SUCCESS

    def nvmlDeviceGetHandleByUUID(self, uuid: Any, handle: Any) -> int:  # noqa: N802
        for gpu in self.gpus:
            if gpu.uuid == uuid.value.decode():
                handle._obj.contents = pynvml.struct_c_nvmlDevice_t()
                self._handles = getattr(self, "_handles", {}) | {_address(handle._obj): gpu}
                return SUCCESS
        return NOT_FOUND

    def nvmlDeviceGetName(self, handle: Any, name: Any, length: Any) -> int:  # noqa: N802
        gpu = self._gpu(handle)
        name.value = gpu.name.encode()
        return GPU_IS_LOST if gpu.lost else SUCCESS

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:  # noqa: N802
        gpu = self._gpu(handle)
        if gpu.lost or gpu.total is None:
            return GPU_IS_LOST if gpu.lost else NOT_SUPPORTED
        memory._obj.total, memory._obj.free, memory._obj.used = gpu.total, gpu.free, gpu.total - gpu.free
        return SUCCESS

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any, energy: Any) -> int:  # noqa: N802
        gpu = self._gpu(handle)
        if gpu.lost or gpu.millijoules is None:
            return GPU_IS_LOST if gpu.lost else NOT_SUPPORTED
        energy._obj.value = gpu.millijoules
        return SUCCESS

    def nvmlDeviceGetCudaComputeCapability(self, handle: Any, major: Any, minor: Any) -> int:  # noqa: N802
        gpu = self._gpu(handle)
        major._obj.value, minor._obj.value = gpu.capability
        return GPU_IS_LOST if gpu.lost else SUCCESS

    def nvmlDeviceGetComputeRunningProcesses_v3(self, handle: Any, count: Any, processes: Any) -> int:  # noqa: N802
        users = self._gpu(handle).users
        count._obj.value = len(users)
        if processes is None:
            return INSUFFICIENT_SIZE if users else SUCCESS
        for process, user in zip(processes, users, strict=False):
            process.pid = user
        return SUCCESS

    def nvmlSystemGetDriverVersion(self, version: Any, length: Any) -> int:  # noqa: N802
        version.value = self.driver.encode()
        return SUCCESS

    def nvmlSystemGetCudaDriverVersion_v2(self, version: Any) -> int:  # noqa: N802
        version._obj.value = self.cuda
        return SUCCESS

    def _gpu(self, handle: Any) -> FakeGpu:
        gpu: FakeGpu = self._handles[_address(handle)]
        return gpu


def _address(handle: Any) -> int:
    return ctypes.addressof(handle.contents)
