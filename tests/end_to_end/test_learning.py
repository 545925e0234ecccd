"""The models learn, on the experiments that say so: tested on what no training row holds, in minutes on one core."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from command import ROOT

from benchmarks.kneser_ney import bits_per_byte
from hrm.context import LocalContext
from hrm.data.dataset import build_dataset
from orchestrator.experiment import load_experiment
from tests.conftest import run

MANY_GIVENS = (
    "tasks=[{kind: sudoku, size: 4, num_train: 12000, num_validation: 500, num_test: 500, min_givens: 11}]",
    "base.optimizer={kind: muon, learning_rate: 0.01, weight_decay: 0.05, adamw_learning_rate: 2e-3, "
    "embedding_weight_decay: 0.0, vector_weight_decay: 0.0}",
    "base.batch_size=32",
    "base.num_reports=2",
    "budget.amount=5e12",
)
"""What makes the experiment learn in minutes without bfloat16: with five givens it takes 5e13 FLOPs."""
SHAKESPEARE = ROOT.parent / "shared" / "data" / "text" / "tinyshakespeare.txt"
pytestmark = pytest.mark.slow


def trained(name: str, arm: str, path: Path, *settings: str) -> dict[str, Any]:
    """The test metrics of an arm of an experiment as it stands."""
    experiment = load_experiment(ROOT / "experiments" / f"{name}.yaml", list(settings))
    trial = next(a for a in experiment.arms if a.name == arm).trial({}, 0)
    build_dataset(trial.task, path / "data")
    found = run(trial, LocalContext(path / "trial", path / "data"), test=True)[1].test
    assert found is not None
    return found


@pytest.mark.timeout(1800)
def test_most_4x4_sudoku_are_solved_on_grids_that_no_training_puzzle_has(tmp_path: Path) -> None:
    found = trained("sudoku_4x4", "hrm", tmp_path, *MANY_GIVENS)
    assert found["exact_accuracy"] > 0.5
    assert found["valid_grid"] >= found["exact_accuracy"]


@pytest.mark.timeout(1800)
@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="needs the text of ../shared")
def test_hrm_says_more_about_shakespeare_than_a_kneser_ney_3_gram(tmp_path: Path) -> None:
    """RESULTS.md has what longer trainings say."""
    tokenizer = "tokenizer: {kind: bpe, vocab_size: 2048}"
    recipe = f"tasks=[{{kind: text, source: {{path: {SHAKESPEARE}}}, sequence_length: 128, {tokenizer}}}]"
    rate = "base.optimizer.learning_rate=0.01"
    found = trained("hrm_for_text", "language_adapted", tmp_path, recipe, rate, "budget.amount=4e12")
    text = SHAKESPEARE.read_bytes()
    at = [len(text) * share // 20 for share in (18, 19)]
    assert found["bits_per_byte"] < bits_per_byte(text[: at[0]], text[at[1] :], 3)
