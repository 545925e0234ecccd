"""A stage that starts from an earlier sweep: its best checkpoint, its tokenizer, what is said of where it came from.

The sweeps are written by hand (sweep_fixture.py), with real checkpoints in the places that their trials name.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_experiment import HRM, TRANSFORMER, changed, write
from sweep_fixture import write_sweep

from analysis.records import read_trial_records, write_json
from analysis.report import write_report
from analysis.sweep import load_sweep
from hrm.checkpoint import Checkpoint, read_manifest, weights_sha256, write_checkpoint
from hrm.data.dataset import build_dataset
from hrm.errors import Problem, SpecError
from hrm.models.hrm import HRMSpec
from hrm.models.transformer import TransformerSpec
from hrm.spec import parse_spec
from hrm.start import StartSpec
from hrm.tasks import TaskShape
from hrm.tasks.text import TextSpec
from orchestrator.cli import DONE, main
from orchestrator.experiment import Experiment, load_experiment

VALUES = {"hrm": [0.3, 0.2, 0.4], "transformer": [0.5, 0.6, 0.7]}
"""Replicas: the second seed of the hrm is the best on validation."""


def pretraining(storage: Path, name: str = "pretrain", **fields: Any) -> Path:
    """A finished sweep whose trials' best checkpoints are there, each with other weights."""
    directory = write_sweep(storage / "sweeps" / name, VALUES, **fields)
    for trial in read_trial_records(directory):
        if trial.result is not None:
            add_checkpoint(directory / "trials" / trial.key / trial.result["best_checkpoint"], trial.arm)
    return directory


def add_checkpoint(path: Path, arm: str) -> None:
    spec = (
        parse_spec(HRMSpec, HRM, "here") if arm.startswith("hrm") else parse_spec(TransformerSpec, TRANSFORMER, "here")
    )
    manifest = {
        "spec": {"model": spec.model_dump(mode="json")},
        "progress": {"step": 440},
        "trial_id": "0123456789abcdef",
        "validation": {},
        "num_parameters": 1,
    }
    write_checkpoint(path, Checkpoint(spec.build(TaskShape(20, 8)).state_dict(), {}, {}, manifest))


def load(storage: Path, start: Any, **changes: Any) -> Experiment:
    path = write(storage / "tune.yaml", changed(arms={"tuned": {"patch": {"initialize_from": start}}}, **changes))
    return load_experiment(path, storage=storage)


def start_of(experiment: Experiment, arm: int = 0) -> StartSpec:
    start = experiment.arms[arm].trial({}, 0).initialize_from
    assert start is not None
    return start


def refusal(storage: Path, start: Any, **changes: Any) -> Problem:
    with pytest.raises(SpecError) as caught:
        load(storage, start, **changes)
    [problem] = caught.value.problems
    return problem


def test_a_sweep_gives_the_checkpoint_that_its_report_calls_best(tmp_path: Path) -> None:
    directory = pretraining(tmp_path)
    start = start_of(load(tmp_path, {"sweep": "pretrain", "arm": "hrm"}))
    report = write_report(load_sweep(directory), tmp_path)
    best = next(arm for arm in report.arms if arm.name == "hrm")
    assert Path(start.path) == directory / best.best_checkpoint
    assert (start.sweep, start.arm, start.task, start.trial) == ("pretrain", "hrm", "text", "text-hrm-replica-0001")
    assert start.sha256 == weights_sha256(read_manifest(Path(start.path)))


def test_the_directory_of_a_sweep_in_another_storage_and_a_sweep_of_one_arm_will_do(tmp_path: Path) -> None:
    directory = write_sweep(tmp_path / "other/sweeps/pretrain", {"hrm": [0.2]}, search={})
    [trial] = read_trial_records(directory)
    assert trial.result is not None
    add_checkpoint(directory / "trials" / trial.key / trial.result["best_checkpoint"], "hrm")
    start = start_of(load(tmp_path, {"sweep": str(directory)}))
    assert start.path.startswith(str(directory))
    assert start.arm == "hrm"


def test_the_id_of_a_trial_follows_the_weights_and_not_the_words_that_found_them(tmp_path: Path) -> None:
    pretraining(tmp_path)
    named = load(tmp_path, {"sweep": "pretrain", "arm": "hrm"})
    placed = load(tmp_path, start_of(named).path)
    assert named.arms[0].trial({}, 0).hash() == placed.arms[0].trial({}, 0).hash()
    assert named.spec.science() == placed.spec.science()
    assert start_of(placed).trial == "text-hrm-replica-0001", "a path in a sweep says which sweep, too"
    alone = tmp_path / "alone"
    shutil.copytree(start_of(named).path, alone)
    assert load(tmp_path, str(alone)).arms[0].trial({}, 0).hash() == named.arms[0].trial({}, 0).hash()
    other = Path(start_of(named).path.replace("replica-0001", "replica-0000"))
    assert load(tmp_path, str(other)).arms[0].trial({}, 0).hash() != named.arms[0].trial({}, 0).hash()


def test_an_arm_may_start_elsewhere_than_the_base_says(tmp_path: Path) -> None:
    pretraining(tmp_path)
    place = tmp_path / "alone"
    add_checkpoint(place, "hrm")
    arms = {
        "first": {},
        "second": {"patch": {"initialize_from": {"arm": "transformer"}, "model": TRANSFORMER}},
        "third": {"patch": {"initialize_from": {"path": str(place)}}},
    }
    start = {"sweep": "pretrain", "arm": "hrm", "without": ["lm_head"]}
    path = write(tmp_path / "tune.yaml", changed(base__initialize_from=start, arms=arms))
    first, second, third = (start_of(load_experiment(path, storage=tmp_path), arm) for arm in range(3))
    assert (first.arm, first.without) == ("hrm", ("lm_head",))
    assert (second.arm, second.trial, second.without) == ("transformer", "text-transformer-replica-0000", ("lm_head",))
    assert (third.path, third.sweep, third.arm, third.trial) == (str(place), None, None, None)


def test_what_cannot_be_a_start_says_why_and_what_there_is(tmp_path: Path) -> None:
    directory = pretraining(tmp_path)
    assert refusal(tmp_path, {"sweep": "pretrian", "arm": "hrm"}).way_out == "The sweeps here are pretrain"
    unsaid = refusal(tmp_path, {"sweep": "pretrain"})
    assert (unsaid.rule, unsaid.way_out) == ("pretrain has 2 arms", "Give one of hrm, transformer")
    assert unsaid.place.endswith("arms.tuned.patch.initialize_from.arm")
    assert refusal(tmp_path, {"sweep": "pretrain", "arm": "trm"}).rule == "pretrain has no arm 'trm'"
    assert refusal(tmp_path, {"sweep": "pretrain", "arm": "hrm", "task": "x"}).way_out == "Give one of text"
    two = refusal(tmp_path, {"sweep": "pretrain", "path": str(directory)})
    assert two.rule.startswith("one of path, sweep and hub must be given, got path ")
    assert refusal(tmp_path, {"arm": "hrm"}).rule == "path, sweep or hub must be given, got only arm"
    record = load_sweep(directory).record
    write_json(directory / "sweep.json", replace(record, finished=False))
    running = refusal(tmp_path, {"sweep": "pretrain", "arm": "hrm"})
    assert running.rule == "pretrain has not finished: 18 of 18 planned trials have ended"
    assert record.command in running.way_out


def test_an_arm_of_which_nothing_has_completed_is_no_start(tmp_path: Path) -> None:
    directory = pretraining(tmp_path)
    for trial in read_trial_records(directory):
        write_json(directory / "trials" / trial.key / "trial.json", replace(trial, state="failed", result=None))
    assert refusal(tmp_path, {"sweep": "pretrain", "arm": "hrm"}).rule == "no trial of hrm has completed in pretrain"


def test_a_sweep_that_goes_on_keeps_its_start_when_the_earlier_one_has_found_a_better(tmp_path: Path) -> None:
    directory = pretraining(tmp_path)
    asked = {"sweep": "pretrain", "arm": "hrm"}
    began = load(tmp_path, asked)
    experiment = began.spec.model_dump(mode="json")
    write_sweep(tmp_path / "sweeps/tune", {"tuned": [0.1]}, experiment=experiment)
    better = next(trial for trial in read_trial_records(directory) if trial.key == "text-hrm-replica-0000")
    write_json(directory / "trials" / better.key / "trial.json", replace(better, objective=0.001))
    assert start_of(load(tmp_path, asked)) == start_of(began)
    assert load(tmp_path, asked).spec.science() == began.spec.science()
    path = tmp_path / "tune.yaml"
    fresh = start_of(load_experiment(path, name="another", storage=tmp_path))
    assert fresh.trial == "text-hrm-replica-0000"
    assert fresh.sha256 != start_of(began).sha256


def test_a_recipe_takes_the_tokenizer_of_an_earlier_sweep_with_its_numbers(tmp_path: Path) -> None:
    spec = TextSpec.model_validate({"tokenizer": {"kind": "bpe", "vocab_size": 300}, "sequence_length": 48})
    built = build_dataset(spec, tmp_path / "data")
    facts = {"recipe": built.task.model_dump(mode="json"), "fingerprint": built.manifest.fingerprint}
    write_sweep(tmp_path / "sweeps/pretrain", {"hrm": [0.2]}, datasets={"text": facts})
    task = {"kind": "text", "validation_fraction": 0.3, "tokenizer": {"sweep": "pretrain"}, "sequence_length": 32}
    path = write(tmp_path / "tune.yaml", changed(tasks=[task]))
    loaded = load_experiment(path, storage=tmp_path)
    again = build_dataset(loaded.tasks["text"], tmp_path / "data")
    assert again.manifest.vocabulary == built.manifest.vocabulary
    assert len(built.manifest.vocabulary) == 300
    assert again.directory != built.directory
    assert loaded.spec.tasks == [task], "the file's words are what the sweep keeps"
    for tokenizer, rule in (
        ({"sweep": "pretrain", "task": "other"}, "pretrain has no task 'other'"),
        ({"sweep": "pretrain", "kind": "bpe"}, "with sweep there may be task, store and kind: pretrained"),
        ({"sweep": "pretrian"}, "there is no sweep 'pretrian'"),
    ):
        with pytest.raises(SpecError) as caught:
            load_experiment(write(path, changed(tasks=[{**task, "tokenizer": tokenizer}])), storage=tmp_path)
        assert rule in str(caught.value)
        assert "tasks[0].tokenizer" in str(caught.value)


def test_a_report_says_what_an_arm_started_from(tmp_path: Path) -> None:
    pretraining(tmp_path)
    start = start_of(load(tmp_path, {"sweep": "pretrain", "arm": "hrm", "without": ["lm_head"]}))
    directory = write_sweep(tmp_path / "sweeps/tune", {"tuned": [0.1, 0.2], "direct": [0.3, 0.4]})
    for trial in read_trial_records(directory):
        if trial.arm == "tuned":
            spec = {**trial.spec, "initialize_from": start.model_dump(mode="json")}
            write_json(directory / "trials" / trial.key / "trial.json", replace(trial, spec=spec))
    write_report(load_sweep(directory), directory)
    said = (
        f"tuned starts from hrm of the sweep pretrain (text-hrm-replica-0001, step-00000440), weights "
        f"{start.sha256[:16]}, with lm_head drawn anew; what that took is not in its compute."
    )
    for name in ("report.md", "report.html"):
        text = (directory / name).read_text().replace("\\", "")
        assert said in text, name
        assert "direct starts from" not in text
    arms = {arm["name"]: arm["started_from"] for arm in json.loads((directory / "report.json").read_text())["arms"]}
    assert arms["direct"] == ""
    assert "pretrain" in arms["tuned"]


def test_a_checkpoint_may_be_named_by_its_trial_or_its_arm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = pretraining(tmp_path)
    key = "text-transformer-replica-0002"

    def found(named: str) -> str:
        assert main(["checkpoint", "show", named, "--storage", str(tmp_path), "--json"]) == DONE
        path = Path(json.loads(capsys.readouterr().out)["path"])
        return str(path.absolute().relative_to(directory / "trials"))

    best = "attempts/1/step-00000440"
    assert found(f"pretrain/{key}") == found(str(directory / "trials" / key)) == f"{key}/{best}"
    hrm = "text-hrm-replica-0001"
    assert found("pretrain:hrm") == found("pretrain:text:hrm") == f"{hrm}/{best}"
    monkeypatch.chdir(directory / "trials")
    assert found(f"{key}/{best}") == f"{key}/{best}"


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("pretrain/none", "pretrain/none: there is no such trial in this sweep. It has text-hrm-replica-0000, "),
        ("pretrain:none", "pretrain has no arm 'none'. Give one of hrm, transformer"),
        ("pretrain/text-hrm-search-0002", "is a trial that has not completed, so that none of its checkpoints is its"),
    ],
)
def test_a_trial_or_an_arm_that_has_no_best_checkpoint_is_refused(
    named: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pretraining(tmp_path)
    assert main(["checkpoint", "show", named, "--storage", str(tmp_path)]) == 2
    assert message in capsys.readouterr().err


def test_show_prints_every_stage_that_a_checkpoint_came_through(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = {"path": "/a", "sha256": "1" * 64, "trial_id": "1" * 16, "step": 7, "lineage": None}
    second = {"sweep": "pretrain", "arm": "hrm", "task": "text", "trial": "hrm-replica-0001"}
    lineage = {"path": "/b", "sha256": "2" * 64, "trial_id": "2" * 16, "step": 9, **second, "lineage": first}
    spec = parse_spec(HRMSpec, HRM, "here")
    manifest = {
        "spec": {"model": spec.model_dump(mode="json")},
        "progress": {"step": 3},
        "validation": {},
        "num_parameters": 1,
        "lineage": lineage,
    }
    write_checkpoint(tmp_path / "here", Checkpoint(spec.build(TaskShape(20, 8)).state_dict(), {}, {}, manifest))
    assert main(["checkpoint", "show", str(tmp_path / "here")]) == DONE
    shown = capsys.readouterr().out
    near = f"sweep pretrain, arm hrm on text, trial hrm-replica-0001, {'2' * 16}, step 9, sha256 {'2' * 16}"
    assert near in shown
    assert f"trial {'1' * 16}, step 7, sha256 {'1' * 16}" in shown
    assert shown.index("from /b") < shown.index("from /a")
