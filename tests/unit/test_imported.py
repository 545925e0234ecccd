"""`initialize_from` a Transformers model, in a folder or on a hub: imported into the storage once, then like any other.

The hub is a local server (hub_stub.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hub_stub import running_hub, use
from small_experiment import changed, write

from hrm.checkpoint import Checkpoint, read_checkpoint, weights_sha256, write_checkpoint
from hrm.data.dataset import build_dataset
from hrm.errors import SpecError
from hrm.huggingface.exporting import Export, export_transformers
from hrm.models.hrm_text import HRMTextSpec
from hrm.spec import parse_spec
from hrm.start import StartSpec, take_over
from hrm.tasks import TaskShape
from hrm.tasks.red_team import RedTeamSpec
from orchestrator.experiment import Experiment, load_experiment
from orchestrator.starts import check_starts

MODEL = {"kind": "hrm_text", "hidden_size": 16, "num_heads": 2, "num_layers_per_stack": 1}
TASK = {"kind": "red_team", "num_train": 16, "num_validation": 4, "num_test": 4, "phrasings": 1}


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> TaskShape:
    """Of the small experiment's data."""
    return build_dataset(parse_spec(RedTeamSpec, TASK, "here"), tmp_path_factory.mktemp("data")).shape


def model_folder(path: Path, shape: TaskShape) -> dict[str, torch.Tensor]:
    """A folder as Transformers saves it; gives its weights under our names."""
    spec = parse_spec(HRMTextSpec, MODEL, "here")
    manifest = {"spec": {"model": spec.model_dump(mode="json")}, "progress": {}, "validation": {}, "num_parameters": 1}
    weights = spec.build(shape).state_dict()
    write_checkpoint(path.with_name(f"{path.name}-ours"), Checkpoint(weights, {}, {}, manifest))
    held = read_checkpoint(path.with_name(f"{path.name}-ours"))
    export_transformers(Export(held, "here", shape), path)
    return weights


def load(storage: Path, start: Any) -> Experiment:
    arms = {"tuned": {"patch": {"initialize_from": start}}, "direct": {}}
    path = write(storage / "tune.yaml", changed(base__model=MODEL, arms=arms))
    return load_experiment(path, storage=storage / "runs")


def start_of(experiment: Experiment) -> StartSpec:
    start = experiment.arms[0].trial({}, 0).initialize_from
    assert start is not None
    return start


def test_a_folder_is_imported_once_and_its_weights_are_what_a_training_starts_with(
    tmp_path: Path, shape: TaskShape
) -> None:
    weights = model_folder(tmp_path / "model", shape)
    loaded = load(tmp_path, str(tmp_path / "model"))
    start = start_of(loaded)
    [imported] = (tmp_path / "runs/imported").iterdir()
    assert Path(start.path) == imported
    assert imported.name.startswith("model-")
    assert start.sha256 == weights_sha256(read_checkpoint(imported).manifest)
    before = (imported / "manifest.json").stat().st_mtime_ns
    assert start_of(load(tmp_path, {"path": str(tmp_path / "model"), "without": ["lm_head"]})).path == start.path
    assert (imported / "manifest.json").stat().st_mtime_ns == before

    build_dataset(loaded.tasks["red_team"], tmp_path / "runs/data")
    check_starts(loaded.arms, tmp_path / "runs/data")
    trial = loaded.arms[0].trial({}, 0)
    model = trial.model.build(shape)
    lineage = take_over(start, trial.model, model)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert lineage["lineage"]["format"].startswith("Transformers folder")
    assert lineage["lineage"]["path"] == str(tmp_path / "model")


def test_other_weights_in_the_same_folder_are_another_start(tmp_path: Path, shape: TaskShape) -> None:
    model_folder(tmp_path / "model", shape)
    first = load(tmp_path, str(tmp_path / "model"))
    (tmp_path / "model").rename(tmp_path / "old")
    model_folder(tmp_path / "other" / "model", shape)
    (tmp_path / "other" / "model").rename(tmp_path / "model")
    second = load(tmp_path, str(tmp_path / "model"))
    assert start_of(first).path != start_of(second).path
    assert first.arms[0].trial({}, 0).hash() != second.arms[0].trial({}, 0).hash()


def test_a_model_on_the_hub_is_a_start_that_a_sweep_keeps_without_a_network(
    tmp_path: Path, shape: TaskShape, monkeypatch: pytest.MonkeyPatch
) -> None:
    model_folder(tmp_path / "model", shape)
    files = {path.name: path.read_bytes() for path in (tmp_path / "model").iterdir()}
    with running_hub() as hub:
        use(hub, tmp_path / "cache", monkeypatch)
        hub.add("owner/model", files, kind="model")
        from_hub = load(tmp_path, {"hub": "owner/model"})
        with pytest.raises(SpecError, match=r"patch\.initialize_from\.hub: hub model owner/other"):
            load(tmp_path, {"hub": "owner/other"})
    from_folder = load(tmp_path, str(tmp_path / "model"))
    assert start_of(from_hub).hub == "owner/model"
    assert Path(start_of(from_hub).path).name == Path(start_of(from_folder).path).name
    assert from_hub.arms[0].trial({}, 0).hash() == from_folder.arms[0].trial({}, 0).hash()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "empty"))
    begun = tmp_path / "runs/sweeps/tune"
    begun.mkdir(parents=True)
    (begun / "sweep.json").write_text(sweep_of(from_hub))
    assert start_of(load(tmp_path, {"hub": "owner/model"})) == start_of(from_hub)


def sweep_of(experiment: Experiment) -> str:
    """What a sweep keeps of its experiment; the rest is made up."""
    from sweep_fixture import write_sweep

    place = Path(experiment.arms[0].template["initialize_from"]["path"]).parent / "made-up"
    write_sweep(place, {"tuned": [0.1]}, experiment=experiment.spec.model_dump(mode="json"))
    return (place / "sweep.json").read_text()


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        ("{}", "model_type must be hrm_text or"),
        ('{"model_type": "llama"}', "got 'llama'"),
        ("[1", "cannot be read as JSON"),
    ],
)
def test_a_model_that_we_cannot_compute_is_refused_with_its_place(tmp_path: Path, content: str, rule: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text(content)
    with pytest.raises(SpecError) as caught:
        load(tmp_path, str(tmp_path / "model"))
    [problem] = caught.value.problems
    assert rule in problem.rule
    assert problem.place.endswith("arms.tuned.patch.initialize_from.path")
    assert not (tmp_path / "runs/imported").exists()
