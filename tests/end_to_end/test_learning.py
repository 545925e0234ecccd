"""The models learn, on the experiments that say so: tested on what no training row holds, in minutes, each alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from command import ROOT

from benchmarks.kneser_ney import bits_per_byte
from hrm.context import LocalContext
from hrm.data.dataset import build_dataset
from orchestrator.experiment import load_experiment
from tests.conftest import run

SHAKESPEARE = ROOT.parent / "shared" / "data" / "text" / "tinyshakespeare.txt"
pytestmark = pytest.mark.slow


def trained(name: str, arm: str, path: Path, *settings: str) -> dict[str, Any]:
    """The test metrics of an arm of an experiment as it stands."""
    experiment = load_experiment(ROOT / "experiments" / f"{name}.yaml", list(settings))
    trial = next(a for a in experiment.arms if a.name == arm).trial({}, 0)
    build_dataset(trial.task, path / "data")
    context = LocalContext(path / "trial", path / "data", threads=len(os.sched_getaffinity(0)))
    found = run(trial, context, test=True)[1].test
    assert found is not None
    return found


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("arm", ["hrm", "trm"])
def test_4x4_sudoku_is_solved_on_grids_that_no_training_puzzle_has(arm: str, tmp_path: Path) -> None:
    found = trained("sudoku_4x4", arm, tmp_path)
    assert found["exact_accuracy"] > 0.95
    assert found["valid_grid"] >= found["exact_accuracy"]


@pytest.mark.timeout(1800)
@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="needs the text of ../shared")
def test_hrm_says_more_about_shakespeare_than_a_kneser_ney_5_gram(tmp_path: Path) -> None:
    recipe = f"tasks=[{{kind: text, source: {{path: {SHAKESPEARE}}}, sequence_length: 256}}]"
    found = trained("shakespeare", "hrm", tmp_path, recipe, "budget={axis: steps, amount: 1200}")
    text = SHAKESPEARE.read_bytes()
    at = [len(text) * share // 20 for share in (18, 19)]
    assert found["bits_per_byte"] < bits_per_byte(text[: at[0]], text[at[1] :])
