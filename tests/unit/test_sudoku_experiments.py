"""The Sudoku experiments are what their sources say: sizes, settings, arms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from hrm.models import ModelSpec
from hrm.models.hrm import HRMSpec
from hrm.spec import parse_spec
from hrm.strict_yaml import read_yaml
from hrm.tasks import TaskShape
from hrm.tasks.sudoku import SudokuSpec

ROOT = Path(__file__).parents[2]
SHAPE = TaskShape(vocab_size=11, sequence_length=81, num_puzzle_identifiers=1)


def experiment(name: str) -> dict[str, Any]:
    data = read_yaml(ROOT / "experiments" / f"{name}.yaml")
    assert isinstance(data, dict)
    return data


def num_parameters(spec: ModelSpec) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in spec.build(SHAPE).parameters())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("sudoku_blackwell_smoke", 3_414_018), ("sudoku_cpu", 27_275_266), ("sudoku_extreme", 27_275_266)],
)
def test_the_hrm_is_of_the_size_that_the_source_counts(name: str, parameters: int) -> None:
    spec = parse_spec(HRMSpec, experiment(name)["base"]["model"], name)
    table = spec.puzzle_embedding_size  # the one row of the table is no weight in the source's count
    assert num_parameters(spec) - parameters in (0, table)


def test_the_blackwell_run_takes_1000_steps_with_a_checkpoint_every_100() -> None:
    data = experiment("sudoku_blackwell_smoke")
    assert data["budget"] == {"axis": "steps", "amount": 1000}
    assert data["base"]["num_reports"] == 10
    assert data["base"]["model"]["halting"]["segments"] == 8


def test_the_cpu_run_has_the_settings_of_its_source() -> None:
    base = experiment("sudoku_cpu")["base"]
    optimizer = base["optimizer"]
    assert (base["batch_size"], optimizer["learning_rate"], optimizer["weight_decay"]) == (64, 7e-5, 1.0)


def test_sudoku_extreme_is_1000_puzzles_in_1001_forms() -> None:
    recipe = parse_spec(SudokuSpec, read_yaml(ROOT / "datasets" / "sudoku_extreme.yaml"), "recipe")
    assert (recipe.num_train, recipe.forms("train"), recipe.forms("test")) == (1000, 1001, 1)
    assert recipe.source is not None
    assert recipe.test_source is not None
    assert recipe.source.hub == recipe.test_source.hub == "sapientinc/sudoku-extreme"
    assert (recipe.source.files, recipe.test_source.files) == ("train.csv", "test.csv")
