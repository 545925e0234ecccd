"""Shared by all tests: tiny data and trials. Threads are pinned before torch is imported."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from xdist.scheduler import LoadScopeScheduling

from hrm.context import LocalContext
from hrm.data.dataset import build_dataset
from hrm.records import Report, TrialResult
from hrm.spec import parse_spec
from hrm.tasks.red_team import RedTeamSpec
from hrm.train import train
from hrm.trial import TrialSpec

TINY_HRM = {"kind": "hrm", "hidden_size": 16, "num_heads": 2, "H_layers": 1, "L_layers": 1, "causal": True}
TINY_TRANSFORMER = {"kind": "transformer", "hidden_size": 16, "num_heads": 2, "num_layers": 2, "causal": True}
MakeTrial = Callable[..., TrialSpec]
CLUSTERS = (
    "tests/end_to_end/",
    "tests/faults/",
    *(f"tests/integration/test_{name}.py" for name in ("ray", "standing_cluster", "sweep_limits", "watching")),
)
"""The tests that start Ray."""


def pytest_configure() -> None:
    """The tests that kill a driver at every commit flush thousands of small files: fifty times slower on a disk."""
    memory = Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free > 8 * 2**30:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(memory))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What starts clusters comes first: it takes longest, and the rest is spread over who is free."""
    items.sort(key=lambda item: _scope(item.nodeid) != "clusters")


def _scope(nodeid: str) -> str:
    place = nodeid.split("::")[0]
    return "clusters" if place.startswith(CLUSTERS) and place != "tests/end_to_end/test_learning.py" else place


class ClustersApart(LoadScopeScheduling):  # type: ignore[misc]
    """What starts clusters runs in one process, test after test, beside the rest, which goes by files."""

    def _split_scope(self, nodeid: str) -> str:
        return _scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ClustersApart:
    """Who runs which test."""
    return ClustersApart(config, log)


def run(trial: TrialSpec, context: LocalContext, **options: Any) -> tuple[list[Report], TrialResult]:
    """A whole training: its reports and its result."""
    reports, generator = [], train(trial, context, **options)
    while True:
        try:
            reports.append(next(generator))
        except StopIteration as end:
            return reports, end.value


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with the tiny red-team dataset built."""
    root = tmp_path_factory.mktemp("data")
    build_dataset(RedTeamSpec.smoke(), root)
    return root


@pytest.fixture
def make_trial() -> MakeTrial:
    """TrialSpecs over the tiny dataset: fields given override."""

    def make(**fields: Any) -> TrialSpec:
        data = {
            "task": RedTeamSpec.smoke().model_dump(mode="json"),
            "model": TINY_HRM,
            "optimizer": {"kind": "adamw", "learning_rate": 0.01},
            "budget": {"axis": "steps", "amount": 8},
            "batch_size": 4,
            "num_reports": 4,
        }
        return parse_spec(TrialSpec, {**data, **fields}, "trial")

    return make


@pytest.fixture
def make_context(tmp_path: Path, data_root: Path) -> Callable[..., LocalContext]:
    """LocalContexts whose trials live in a fresh folder by name."""

    def make(name: str = "trial", attempt: int = 1) -> LocalContext:
        return LocalContext(tmp_path / name, data_root, attempt=attempt)

    return make


@pytest.fixture(autouse=True)
def _nothing_is_left_running() -> Iterator[None]:
    """A failed test's driver and its Ray do not disturb the next one."""
    yield
    command = sys.modules.get("command")  # it imports MLflow, which takes seconds: for those tests alone that run it
    if command is None:
        return
    for driver in command.STARTED:
        if driver.poll() is None:
            for process in [*psutil.Process(driver.pid).children(recursive=True), psutil.Process(driver.pid)]:
                with contextlib.suppress(psutil.NoSuchProcess):  # it ends when it has lost its Ray
                    process.kill()
            driver.wait()
    command.STARTED.clear()


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """Where the sweep that fault tests disturb will be."""
    from command import STEADY

    (tmp_path / "steady.yaml").write_text(STEADY)
    return tmp_path


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The storage of that sweep when nothing disturbs it."""
    from command import STEADY, run

    root = tmp_path_factory.mktemp("undisturbed")
    (root / "steady.yaml").write_text(STEADY)
    run("sweep", root / "steady.yaml", "--storage", root)
    return root
