"""Every experiment file that comes with the product: it loads as it stands, and its smoke runs here."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from command import ROOT, report, run

from hrm.context import LocalContext
from hrm.train import Training
from hrm.trial import BudgetSpec
from orchestrator.experiment import load_experiment
from orchestrator.validation import check_built, with_data

EXPERIMENTS = sorted((ROOT / "experiments").glob("*.yaml"))
HAVE_OWN_TESTS = {"text_adapt"}


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_it_loads_and_each_arm_of_its_smoke_takes_a_step(path: Path, tmp_path: Path) -> None:
    load_experiment(path)
    experiment = with_data(load_experiment(path, smoke=True), tmp_path / "data")
    check_built(experiment, tmp_path / "data")
    for number, arm in enumerate(experiment.arms):
        trial = arm.trial({}, 0).model_copy(update={"budget": BudgetSpec(amount=1), "num_reports": 1})
        training = Training(trial, LocalContext(tmp_path / str(number), tmp_path / "data"))
        training.step()
        assert all(math.isfinite(value) for value in training.state.pending[0].metrics.values()), arm.name


@pytest.mark.slow
@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_its_smoke_gives_an_answer(path: Path, tmp_path: Path) -> None:
    if path.stem in HAVE_OWN_TESTS:
        pytest.skip("test_main_job.py runs it")
    run("sweep", f"experiments/{path.name}", "--smoke", "--storage", tmp_path)
    found = report(tmp_path, f"{path.stem}-smoke")
    assert found["trials"]["failed"] == 0
    assert found["arms"]
    assert all(arm["metric"]["n"] >= 1 for arm in found["arms"])
