"""The doctor: it runs on this machine as it is, and its verdicts are pure functions of what was seen.

NVML's C library is a fake where a driver is needed (`nvml_stub`).
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator import doctor
from orchestrator.doctor.finding import GIB, Finding
from orchestrator.doctor.gpus import (
    CONTAINER,
    Gpu,
    Nvml,
    TorchBuild,
    ask_nvml,
    examine_gpus,
    judge_devices,
    judge_driver,
    judge_gpu,
    judge_libraries,
    judge_nvml,
    runs_on,
)
from orchestrator.doctor.machine import (
    DEFAULT_JOB,
    judge_locked_memory,
    judge_matrix_instructions,
    judge_memory,
    judge_open_files,
    judge_processes,
    judge_shared_memory,
    judge_stack,
    judge_threads,
)
from orchestrator.doctor.ray_cluster import answers, judge_clusters, judge_ray_auth, judge_ray_note
from orchestrator.doctor.software import examine_software, judge_package, judge_python
from orchestrator.doctor.storage import examine_storage, judge_disk
from tests.unit.nvml_stub import FakeGpu, FakeNvml

CUDA_BUILD = ("sm_80", "sm_90", "sm_120")


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> list[Finding]:
    return doctor.examine(tmp_path_factory.mktemp("storage") / "runs")


def test_this_machine_can_run_sweeps(findings: list[Finding]) -> None:
    assert [finding for finding in findings if finding.verdict == "fail"] == []
    names = {finding.name for finding in findings}
    assert {"python", "torch", "ray", "cpu", "bfloat16 instructions", "memory", "storage", "disk"} <= names
    assert {"torch build", "devices", "ray cluster file", "ray clusters here", "open files", "git"} <= names
    assert {"nvml", "nccl, cudnn", "flash-attention", "/dev/shm", "clock"} <= names
    assert {"locked memory", "stack", "processes"} <= names


def test_every_warning_comes_with_a_fix(findings: list[Finding]) -> None:
    assert [finding for finding in findings if finding.verdict != "ok" and not finding.fix] == []


def test_the_json_form_says_the_same(findings: list[Finding]) -> None:
    data = json.loads(doctor.as_json(findings))
    assert data["verdict"] == doctor.worst(findings)
    assert [Finding(**line) for line in data["findings"]] == findings


def test_the_table_shows_every_line(findings: list[Finding]) -> None:
    page = io.StringIO()
    doctor.render([*findings, Finding("odd", "[not markup]")], Console(width=200, file=page))
    assert all(finding.name in page.getvalue() for finding in findings)
    assert "[not markup]" in page.getvalue()


def test_of_a_clusters_nodes_the_table_shows_what_is_not_well() -> None:
    page = io.StringIO()
    of_nodes = [
        Finding(name, name * 5, node=node) for node in ("10.0.0.1", "10.0.0.2") for name in ("cpu", "gpu", "disk")
    ]
    of_nodes[-1] = replace(of_nodes[-1], verdict="fail")
    doctor.render(of_nodes, Console(width=200, file=page))
    lines = page.getvalue().splitlines()
    assert [line.split()[:3] for line in lines[1:]] == [
        ["fail", "10.0.0.2", "disk"], ["ok", "10.0.0.1", "3"], ["ok", "10.0.0.2", "2"]]  # fmt: skip
    assert len(json.loads(doctor.as_json(of_nodes))["findings"]) == 6


def test_examining_leaves_nothing_behind(tmp_path: Path) -> None:
    list(examine_storage(tmp_path / "runs" / "deep"))
    assert list(tmp_path.iterdir()) == []


def test_a_storage_that_cannot_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    storage = next(iter(examine_storage(tmp_path / "file")))
    assert (storage.name, storage.verdict) == ("storage", "fail")
    assert "another storage root" in storage.fix


def test_a_part_that_breaks_is_a_line() -> None:
    def broken() -> Iterator[Finding]:
        yield Finding("first", "seen")
        raise RuntimeError("the driver is on fire")

    first, last = doctor.looked_at("gpu", broken)
    assert first == Finding("first", "seen")
    assert (last.name, last.verdict, "on fire" in last.value) == ("gpu", "warn", True)


def test_a_small_shm_names_ipc_host() -> None:
    finding = judge_shared_memory(64 * 2**20, 64 * 2**20)
    assert finding.verdict == "warn"
    assert "--ipc=host" in finding.fix
    assert judge_shared_memory(8 * GIB, 8 * GIB).verdict == "ok"
    assert judge_shared_memory(8 * GIB, 0).verdict == "warn"


@pytest.mark.parametrize(("free", "verdict"), [(GIB // 2, "fail"), (5 * GIB, "warn"), (50 * GIB, "ok")])
def test_a_full_disk_is_noticed(free: int, verdict: str) -> None:
    assert judge_disk(free).verdict == verdict


@pytest.mark.parametrize(
    ("flags", "cores", "verdict"),
    [({"amx_bf16"}, 2, "ok"), ({"avx512_bf16"}, 8, "ok"), ({"avx2"}, 8, "warn"), ({"amx_bf16"}, 1, "warn")],
)
def test_the_promise_of_ten_minutes_depends_on_the_cpu(flags: set[str], cores: float, verdict: str) -> None:
    finding = judge_matrix_instructions(flags, cores)
    assert finding.verdict == verdict
    assert DEFAULT_JOB in finding.value + finding.fix


def test_packages_are_held_against_the_requirements() -> None:
    assert judge_package("torch", "2.13.0+cpu", "torch>=2.8").verdict == "ok"
    assert judge_package("torch", "2.9.0a0+145a3a7bda.nv25.10", "torch>=2.8").verdict == "ok"
    old = judge_package("torch", "2.1.0", "torch>=2.8")
    assert (old.verdict, old.fix) == ("fail", "pip install 'torch>=2.8'")
    assert judge_package("ray", None, None).fix == "pip install 'ray'"
    assert judge_python((3, 9, 1)).verdict == "fail"


@pytest.mark.parametrize(
    ("architectures", "capability", "fits"),
    [
        (CUDA_BUILD, (9, 0), True),
        (CUDA_BUILD, (8, 6), True),
        (CUDA_BUILD, (12, 1), True),  # GB10: the binaries of sm_120 run on a later minor version
        (CUDA_BUILD, (10, 0), False),
        (CUDA_BUILD, (7, 5), False),
        (("sm_90a",), (9, 0), True),
        (("sm_120a",), (12, 1), False),
        (("sm_80", "compute_90"), (10, 0), True),
        ((), (9, 0), False),
    ],
)
def test_compatibility_follows_cudas_rules(
    architectures: tuple[str, ...], capability: tuple[int, int], fits: bool
) -> None:
    assert runs_on(architectures, capability) is fits


def test_a_gpu_that_torch_does_not_know_names_the_container() -> None:
    unknown = judge_gpu("gpu 0", Gpu("B200", (10, 0), 180 * GIB), CUDA_BUILD)
    assert unknown.verdict == "fail"
    assert CONTAINER in unknown.fix
    unified = judge_gpu("gpu 0", Gpu("NVIDIA GB10", (12, 1), None), CUDA_BUILD)
    assert unified.verdict == "ok"
    assert "unified memory" in unified.value


def test_a_driver_older_than_torchs_cuda_fails() -> None:
    assert judge_driver("550.54", (12, 4), "13.0").verdict == "fail"
    assert judge_driver("580.10", (13, 0), "12.8").verdict == "ok"
    assert judge_driver("580.10", (13, 0), None).verdict == "ok"


def test_gpus_that_torch_cannot_use_are_named() -> None:
    assert judge_devices(0, 0, None, None).verdict == "ok"
    assert judge_devices(2, 2, "13.0", None).verdict == "ok"
    assert judge_devices(1, 0, None, None).verdict == "warn"
    assert judge_devices(1, 0, "13.0", "").verdict == "warn"
    assert judge_devices(1, 0, "13.0", None).verdict == "fail"


def test_what_dead_ray_clusters_left_is_named() -> None:
    note = Path("/tmp/ray/ray_current_cluster")
    stale = judge_ray_note(note, "127.0.0.1:1", answers("127.0.0.1:1"))
    assert (stale.verdict, stale.fix) == ("warn", f"rm {note}")
    assert judge_ray_note(note, "", False).verdict == "ok"
    assert judge_clusters(["10.0.0.1:6379"]).verdict == "warn"
    assert judge_ray_auth(None, has_token=True, has_cluster=True).verdict == "warn"
    assert judge_ray_auth(None, has_token=True, has_cluster=False).verdict == "ok"


def test_limits_that_ray_outgrows_are_named() -> None:
    assert judge_open_files(1024, 1024).verdict == "warn"
    assert judge_open_files(1024, 1_048_576).verdict == "ok"
    assert judge_threads("8", 8, 2).fix == "export OMP_NUM_THREADS=2"
    assert judge_memory(8 * GIB, GIB).verdict == "warn"
    assert judge_locked_memory(65536, has_gpu=True).verdict == "warn"
    assert judge_locked_memory(65536, has_gpu=False).verdict == "ok"
    assert judge_locked_memory(-1, has_gpu=True).verdict == "ok"
    assert "stack=67108864" in judge_stack(2**20).fix
    assert judge_stack(-1).verdict == judge_stack(8 * 2**20).verdict == "ok"
    assert judge_processes(-1, 1024).verdict == judge_processes(1024, -1).verdict == "warn"
    assert judge_processes(-1, -1).value == "unlimited"


# --- GPUs through NVML -----------------------------------------------------------------------------------------------


def gpu_lines() -> dict[str, Finding]:
    return {finding.name: finding for finding in examine_gpus()}


def test_every_gpu_that_nvml_sees_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [FakeGpu(), FakeGpu("NVIDIA GB10", "GPU-2", (12, 1), total=None), FakeGpu(uuid="GPU-3", lost=True)]
    FakeNvml(gpus).install(monkeypatch)
    lines = gpu_lines()
    assert lines["driver"].value == "580.95.05, up to CUDA 13.0"
    assert lines["gpu 0 by NVML"].value == "NVIDIA H100 80GB HBM3, 80.0 GiB, compute capability 9.0"
    assert lines["gpu 1 by NVML"].value == "NVIDIA GB10, unified memory, compute capability 12.1"
    assert (lines["gpu 2 by NVML"].verdict, "GPU is lost" in lines["gpu 2 by NVML"].value) == ("fail", True)
    assert lines["nvml"] == Finding("nvml", "sees 3 GPU(s)")


def test_a_broken_nvml_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for code, words in ((9, "Driver Not Loaded"), (18, "version mismatch"), (999, "Unknown Error")):
        FakeNvml([FakeGpu()], init=code).install(monkeypatch)
        assert words in gpu_lines()["nvml"].value
        assert gpu_lines()["nvml"].verdict == "warn"
    monkeypatch.setattr(FakeNvml, "nvmlDeviceGetCount_v2", lambda self, count: 15)
    FakeNvml([FakeGpu()]).install(monkeypatch)
    assert "answers with an error" in gpu_lines()["nvml"].value


def test_without_a_driver_nvml_is_a_line() -> None:
    assert ask_nvml().error or ask_nvml().gpus  # as it is on this machine
    assert judge_nvml(Nvml(error="not available", absent=True), 0).verdict == "ok"
    assert judge_nvml(Nvml(error="not available", absent=True), 1).verdict == "warn"


def test_torchs_own_libraries_are_named() -> None:
    build = TorchBuild("2.9.0", "13.0", CUDA_BUILD, (), "2.27.3", "91300")
    assert judge_libraries(build).value == "NCCL 2.27.3, cuDNN 91300"
    assert judge_libraries(TorchBuild("2.9.0", "13.0", CUDA_BUILD, ())).verdict == "warn"
    assert judge_libraries(TorchBuild("2.9.0", None, (), ())).verdict == "ok"


@pytest.mark.parametrize(
    ("body", "verdict", "words"),
    [
        ("def flash_attn_func(): ...", "ok", "flash_attn loads"),
        ("raise ImportError('undefined symbol: _ZN3c104cuda')", "warn", "does not load: ImportError: undefined symbol"),
        ("import os; os.abort()", "warn", "does not load: exit code -6"),
    ],
)
def test_flash_attention_is_loaded_and_not_only_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, verdict: str, words: str
) -> None:
    (tmp_path / "flash_attn").mkdir()
    (tmp_path / "flash_attn" / "__init__.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    line = next(finding for finding in examine_software() if finding.name == "flash-attention")
    assert (line.verdict, words in line.value) == (verdict, True)
