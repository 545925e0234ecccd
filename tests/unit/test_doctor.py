"""The doctor: it runs on this machine as it is, and its verdicts are pure functions of what was seen."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from orchestrator import doctor
from orchestrator.doctor.finding import GIB, Finding
from orchestrator.doctor.gpus import CONTAINER, Gpu, judge_devices, judge_driver, judge_gpu, runs_on
from orchestrator.doctor.machine import (
    DEFAULT_JOB,
    judge_matrix_instructions,
    judge_memory,
    judge_open_files,
    judge_shared_memory,
    judge_threads,
)
from orchestrator.doctor.ray_cluster import answers, judge_clusters, judge_ray_auth, judge_ray_note
from orchestrator.doctor.software import judge_package, judge_python
from orchestrator.doctor.storage import examine_storage, judge_disk

CUDA_BUILD = ("sm_80", "sm_90", "sm_120")


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> list[Finding]:
    return doctor.examine(tmp_path_factory.mktemp("storage") / "runs")


def test_this_machine_can_run_sweeps(findings: list[Finding]) -> None:
    assert [finding for finding in findings if finding.verdict == "fail"] == []
    names = {finding.name for finding in findings}
    assert {"python", "torch", "ray", "cpu", "bfloat16 instructions", "memory", "storage", "disk"} <= names
    assert {"torch build", "devices", "ray cluster file", "ray clusters here", "open files", "git"} <= names


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
