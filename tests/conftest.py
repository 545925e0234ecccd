"""Shared by all tests: tiny data and trials. Threads are pinned before torch is imported."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
