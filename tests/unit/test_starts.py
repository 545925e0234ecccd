"""`initialize_from` in an experiment file: found, named by its weights, held against the model before anything runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from small_experiment import HRM, changed, experiment, write

from hrm.checkpoint import Checkpoint, read_manifest, weights_sha256, write_checkpoint
from hrm.data.dataset import build_dataset
from hrm.errors import Problem, SpecError
from hrm.models.hrm import HRMSpec
from hrm.spec import parse_spec
from hrm.tasks import TaskShape
from orchestrator.experiment import load_experiment
from orchestrator.starts import check_starts


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """A checkpoint of the small experiment's HRM."""
    spec = parse_spec(HRMSpec, HRM, "here")
    manifest = {"spec": {"model": spec.model_dump(mode="json")}, "progress": {}}
    write_checkpoint(tmp_path / "start", Checkpoint(spec.build(TaskShape(20, 8)).state_dict(), {}, {}, manifest))
    return tmp_path / "start"


def problems(folder: Path, data: dict[str, Any], *overrides: str) -> dict[str, Problem]:
    path = write(folder / "x.yaml", data)
    with pytest.raises(SpecError) as caught:
        load_experiment(path, list(overrides))
    return {problem.place.removeprefix(f"{path}: "): problem for problem in caught.value.problems}


def test_a_path_becomes_absolute_and_gets_the_digest_of_its_weights(
    tmp_path: Path, start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = experiment(tmp_path, arms={"plain": {"patch": {"initialize_from": "start"}}, "scratch": {}})
    trial, scratch = (arm.trial({}, seed=0) for arm in loaded.arms)
    assert trial.initialize_from is not None
    assert trial.initialize_from.path == str(start)
    assert trial.initialize_from.sha256 == weights_sha256(read_manifest(start))
    assert scratch.initialize_from is None
    assert trial.hash() != scratch.hash()


def test_an_arm_may_leave_out_what_all_others_start_from_or_a_part_of_it(tmp_path: Path, start: Path) -> None:
    arms = {
        "scratch": {"patch": {"initialize_from": None}},
        "head": {"patch": {"initialize_from": {"without": ["lm_head"]}}},
    }
    loaded = experiment(tmp_path, base__initialize_from={"path": str(start)}, arms={**arms, "whole": {}})
    scratch, head, whole = (arm.trial({}, seed=0).initialize_from for arm in loaded.arms)
    assert scratch is None
    assert head is not None
    assert whole is not None
    assert (head.without, whole.without, head.sha256) == (("lm_head",), (), whole.sha256)


def test_other_weights_under_the_same_path_are_another_experiment(tmp_path: Path, start: Path) -> None:
    arms = {"plain": {"patch": {"initialize_from": str(start)}}}
    before = experiment(tmp_path, arms=arms).spec.science()
    assert experiment(tmp_path, arms=arms).spec.science() == before
    shutil.rmtree(start)
    spec = parse_spec(HRMSpec, HRM, "here")
    manifest = {"spec": {"model": spec.model_dump(mode="json")}, "progress": {}}
    write_checkpoint(start, Checkpoint(spec.build(TaskShape(20, 8)).state_dict(), {}, {}, manifest))
    assert experiment(tmp_path, arms=arms).spec.science() != before


def test_every_start_that_cannot_be_is_named_with_all_other_mistakes(tmp_path: Path, start: Path) -> None:
    (tmp_path / "foreign").mkdir()
    arms = {
        "lost": {"patch": {"initialize_from": str(tmp_path / "none")}},
        "foreign": {"patch": {"initialize_from": {"path": str(tmp_path / "foreign")}}},
        "other": {"patch": {"initialize_from": {"path": str(start), "sha256": "0" * 64}}},
        "heads": {"patch": {"initialize_from": str(start), "model": {"num_heads": 4}}},
        "nameless": {"patch": {"initialize_from": {"sha256": "0" * 64}}},
        "searched": {"space": {"initialize_from.path": {"choices": ["a", "b"]}}},
    }
    found = problems(tmp_path, changed(base__batch_size=0, arms=arms))
    assert found["arms.lost.patch.initialize_from.path"].rule.startswith("there is no such folder")
    assert "`checkpoint import` makes a checkpoint" in found["arms.lost.patch.initialize_from.path"].way_out
    foreign = found["arms.foreign.patch.initialize_from.path"].rule
    assert foreign.startswith("is no checkpoint of ours (")
    assert "no folder of Transformers (it has no config.json)" in foreign
    assert found["arms.other.patch.initialize_from.sha256"].rule.startswith("must be ")
    assert found["arms.nameless: initialize_from.path"].rule == "is required and missing"
    assert found["arms.searched.space.initialize_from.path"].rule == "a start cannot be searched"
    assert found["base.batch_size"].rule == "must be >= 1, got 0"


def test_a_model_that_the_weights_do_not_fit_is_refused_at_once(tmp_path: Path, start: Path) -> None:
    found = problems(tmp_path, changed(), f"base.initialize_from={start}", "base.model.num_heads=4")
    assert found["arms.plain: initialize_from"].rule == "the checkpoint's model.num_heads is 2, the trial's is 4"
    assert (
        found["arms.control: initialize_from"].rule == "the checkpoint's model.kind is hrm, the trial's is transformer"
    )


def test_data_of_another_shape_than_the_weights_are_refused_before_anything_runs(tmp_path: Path, start: Path) -> None:
    arms: dict[str, Any] = {"whole": {"patch": {"initialize_from": str(start)}}, "scratch": {}}
    loaded = experiment(tmp_path, arms=arms)
    shape = build_dataset(loaded.arms[0].trial({}, 0).task, tmp_path / "data").shape
    with pytest.raises(SpecError) as caught:
        check_starts(loaded.arms, tmp_path / "data")
    sizes = f"[{shape.vocab_size}, 16] in this model, got [20, 16] from the checkpoint"
    assert [str(problem).partition(" in this model")[0] for problem in caught.value.problems] == [
        f"arms.whole: initialize_from: {name} must be [{shape.vocab_size}, 16]"
        for name in ("embed_tokens.embedding_weight", "lm_head.weight")
    ]
    assert sizes in str(caught.value)
    arms["whole"]["patch"]["initialize_from"] = {"path": str(start), "without": ["embed_tokens", "lm_head"]}
    check_starts(experiment(tmp_path, arms=arms).arms, tmp_path / "data")
