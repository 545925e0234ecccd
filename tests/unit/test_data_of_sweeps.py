"""A sweep names the rows that it trains on, and goes on with them when its sources are gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from hrm.data.dataset import open_dataset
from hrm.errors import SpecError
from orchestrator.experiment import Experiment, load_experiment
from orchestrator.store import SweepStore
from orchestrator.sweep import _as_it_began, _sweep_record
from orchestrator.validation import check_built, with_data

EXPERIMENT = """\
tasks: [{kind: text, source: {path: TEXT}, validation_fraction: 0.2, test_fraction: 0.2, sequence_length: 16}]
base:
  model: {kind: transformer, hidden_size: 16, num_heads: 2, num_layers: 1, causal: true}
  optimizer: {kind: adamw, learning_rate: 1e-3}
arms: {transformer: {}}
"""
SUDOKU = "tasks=[{kind: sudoku, size: 4, num_train: 8, num_validation: 4, num_test: 4}]"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text("".join(f"line {number} says {number * number}\n" for number in range(40)))
    return path


@pytest.fixture
def file(tmp_path: Path, text: Path) -> Path:
    path = tmp_path / "question.yaml"
    path.write_text(EXPERIMENT.replace("TEXT", str(text)))
    return path


@pytest.fixture
def store(tmp_path: Path) -> SweepStore:
    store = SweepStore(tmp_path / "runs", "question")
    store.open()
    return store


def begun(file: Path, store: SweepStore, *settings: str) -> Experiment:
    """What the sweep command does before it connects to a cluster."""
    experiment = with_data(_as_it_began(load_experiment(file, list(settings)), store), store.data_root)
    _sweep_record(experiment, store)
    return experiment


def test_the_fingerprint_of_the_rows_is_part_of_a_trials_id(file: Path, store: SweepStore, text: Path) -> None:
    experiment = begun(file, store)
    trial = experiment.arms[0].trial({}, 0)
    dataset = open_dataset(trial.task, store.data_root)
    assert trial.task.fingerprint == dataset.manifest.fingerprint
    text.write_text(text.read_text().replace("says", "said"))
    others = with_data(load_experiment(file), store.data_root).arms[0].trial({}, 0)
    assert others.hash() != trial.hash()
    bare = trial.model_copy(update={"task": trial.task.recipe()})
    assert bare.hash() != trial.hash()


def test_a_sweep_goes_on_when_its_source_is_gone_or_changed(file: Path, store: SweepStore, text: Path) -> None:
    before = begun(file, store)
    text.write_text("something else\n" * 100)
    assert begun(file, store).tasks == before.tasks
    text.unlink()
    assert begun(file, store).arms[0].trial({}, 0) == before.arms[0].trial({}, 0)


def test_another_recipe_is_another_sweep(file: Path, store: SweepStore) -> None:
    begun(file, store)
    file.write_text(file.read_text().replace("sequence_length: 16", "sequence_length: 17"))
    with pytest.raises(SpecError, match=r"tasks\.0\.sequence_length: was 16 when the sweep began, and is 17"):
        begun(file, store)


def test_an_objective_that_no_validation_row_measures_is_refused(file: Path, tmp_path: Path) -> None:
    settings = [SUDOKU, "objective={metric: exact_accuracy_guesses_100_plus, direction: maximize}"]
    experiment = with_data(load_experiment(file, settings), tmp_path / "data")
    with pytest.raises(SpecError, match="is measured on no row of the validation split of sudoku"):
        check_built(experiment, tmp_path / "data")
