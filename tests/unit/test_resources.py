"""Counts that find themselves, and several workers on one GPU. NVML's C library is a fake (`nvml_stub`)."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hrm.errors import InfrastructureError, SpecError
from hrm.spec import parse_spec
from orchestrator.gpu_memory import CONTEXT_BYTES, allowed, judge_memory, limit_to_share, read_memory, wait_until_free
from orchestrator.resources import Resources, ResourceSpec
from tests.unit.nvml_stub import FakeGpu, FakeNvml

GIB = 2**30
NO_GPU, ONE_GPU = [(8.0, 0.0)], [(16.0, 1.0)]


@pytest.mark.parametrize(
    ("asked", "nodes", "cpus", "gpus"),
    [
        ({}, NO_GPU, 1, 0),
        ({}, ONE_GPU, 16, 1),
        ({"gpus_per_worker": 0.25}, ONE_GPU, 4, 0.25),
        ({"gpus_per_worker": 0}, ONE_GPU, 1, 0),
        ({"cpus_per_worker": 2}, ONE_GPU, 2, 1),
        ({"gpus_per_worker": 2}, [(64, 8), (8, 0)], 16, 2),
        ({}, [(64, 8), (32, 8), (96, 0)], 4, 1),  # so that every GPU of every node can be used
        ({}, [(2, 8)], 1, 1),
        ({"launcher": "in_process"}, ONE_GPU, 1, 0),
    ],
)
def test_counts_find_themselves(
    asked: dict[str, Any], nodes: list[tuple[float, float]], cpus: int, gpus: float
) -> None:
    resources = parse_spec(ResourceSpec, asked, "resources").resolved(nodes)
    assert (resources.cpus_per_worker, resources.gpus_per_worker) == (cpus, gpus)
    assert resources.resolved_launcher == ("ray_train" if gpus else "in_process")
    assert resources.resolved([(1, 4)]) == resources  # once in numbers, nodes that come and go change nothing
    assert Resources(**resources.model_dump()) == resources  # as it travels to the workers


@pytest.mark.parametrize(
    ("asked", "nodes", "fit"),
    [
        ({"gpus_per_worker": 0.4, "cpus_per_worker": 1}, [(100, 2)], 4),  # two on each GPU: a share lies on one GPU
        ({"gpus_per_worker": 0.5, "cpus_per_worker": 1}, [(3, 8)], 3),
        ({"gpus_per_worker": 2, "cpus_per_worker": 1}, [(8, 3), (8, 1)], 1),
        ({"workers_per_trial": 3}, [(8, 2), (8, 2)], 1),  # over two nodes
        ({}, [(64, 8), (8, 2), (128, 0)], 4 + 2 + 0 + 4),
    ],
)
def test_as_many_fit_as_there_are_places(asked: dict[str, Any], nodes: list[tuple[float, float]], fit: int) -> None:
    assert parse_spec(ResourceSpec, asked, "resources").concurrency(nodes) == fit


def test_when_nodes_leave_fewer_fit_and_at_last_none() -> None:
    resources = ResourceSpec(workers_per_trial=2).resolved([(8, 2), (8, 2)])
    assert [resources.concurrency(nodes) for nodes in ([(8, 2), (8, 2)], [(8, 2)])] == [2, 1]
    with pytest.raises(SpecError, match=r"needs 2 worker\(s\) of 4 CPUs and 1 GPUs, the cluster's nodes have 8 CPUs"):
        resources.concurrency([(8, 0)])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"gpus_per_worker": "all"}, "gpus_per_worker: must be a number or 'auto', got 'all'"),
        ({"gpus_per_worker": 1.5}, "gpus_per_worker: must be a share of one GPU or a whole number, got 1.5. Round it"),
        ({"cpus_per_worker": 0}, "cpus_per_worker: must be >= 1, got 0. Raise it"),
        ({"launcher": "in_process", "gpus_per_worker": 1}, "runs one worker on CPUs, got 1 worker"),
    ],
)
def test_counts_that_cannot_be_are_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as refused:
        parse_spec(ResourceSpec, asked, "resources")
    assert len(refused.value.problems) == 1
    assert message in str(refused.value)


# --- the memory of a shared GPU --------------------------------------------------------------------------------------


def test_a_share_of_a_gpu_is_checked_against_its_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = [FakeGpu(uuid="GPU-a"), FakeGpu(uuid="GPU-b", free=30 * GIB, users=(41, 42))]
    FakeNvml(gpus).install(monkeypatch)
    assert wait_until_free("a", 0.5, 0, wait_seconds=0).startswith("80.0 GiB of GPU memory free")
    assert wait_until_free("b", 0.25, 0, wait_seconds=0)
    with pytest.raises(
        InfrastructureError, match=r"30\.0 GiB .* a share of 0\.5 needs 35\.5 GiB: processes 41, 42 use"
    ):
        wait_until_free("b", 0.5, 0, wait_seconds=0)
    assert wait_until_free("b", 0.5, 10 * GIB, wait_seconds=0)  # what the worker itself holds from the trial before


def test_the_memory_of_a_process_that_just_died_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = FakeGpu(free=GIB)
    library = FakeNvml([gpu])
    library.install(monkeypatch)
    monkeypatch.setattr("orchestrator.gpu_memory.time.sleep", lambda seconds: setattr(gpu, "free", 80 * GIB))
    assert wait_until_free("1", 1.0, 0)


def test_workers_within_their_shares_fit_side_by_side() -> None:
    total = 80 * GIB
    torchs = int(allowed(0.25, total) * total)
    free = total
    for _ in range(4):
        memory = type("Memory", (), {"total_bytes": total, "free_bytes": free, "users": ()})()
        assert judge_memory(memory, 0.25, 0)[1]
        free -= torchs + CONTEXT_BYTES
    assert free >= 0
    with pytest.raises(SpecError, match="leaves nothing beside CUDA's own memory"):
        allowed(0.01, 8 * GIB)


def test_without_figures_nothing_is_checked_and_the_log_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_memory("1") is None  # really: there is no driver here
    FakeNvml([FakeGpu("NVIDIA GB10", capability=(12, 1), total=None)]).install(monkeypatch)
    assert read_memory("1") is None
    assert "is not checked" in wait_until_free("1", 0.5, 0)
    assert limit_to_share(torch.device("cpu"), 0.5) == ""
