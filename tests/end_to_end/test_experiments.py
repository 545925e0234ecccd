"""Every experiment file that comes with the product: it loads as it stands, and its smoke runs here."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path

import pytest
from command import ROOT, report, run, trials
from conftest import run as run_trial

from analysis.records import SweepRecord, TrialRecord, write_json
from hrm.checkpoint import read_manifest
from hrm.context import LocalContext
from hrm.train import Training
from hrm.trial import BudgetSpec
from orchestrator.cli import DONE, main
from orchestrator.experiment import Experiment, load_experiment
from orchestrator.validation import check_built, with_data

EXPERIMENTS = sorted((ROOT / "experiments").glob("*.yaml"))
LIKE = {
    "arc_agi_2": "arc_agi_1",
    "hrm_for_text": "text_stages_pretrain",
    "maze_hard": "small_puzzles",
    "model_family": "small_puzzles",
    "red_team_ablation": "text_adapt",
    "red_team_campaign": "text_adapt",
    "roberta_text": "text_stages_pretrain",
    "shakespeare": "text_stages_pretrain",
    "sudoku_4x4": "small_puzzles",
    "sudoku_blackwell_smoke": "small_puzzles",
    "sudoku_cpu": "small_puzzles",
    "sudoku_extreme": "small_puzzles",
    "v9_sweep": "arc_agi_1",
}
HAVE_OWN_TESTS = {"text_adapt"}
FIRST_STAGE, SECOND_STAGE = (
    ROOT / "experiments/text_stages_pretrain.yaml",
    ROOT / "experiments/text_stages_finetune.yaml",
)
ONE_STAGE = [path for path in EXPERIMENTS if path != SECOND_STAGE]


@pytest.mark.parametrize("path", ONE_STAGE, ids=lambda path: path.stem)
def test_it_loads_and_each_arm_of_its_smoke_takes_a_step(path: Path, tmp_path: Path) -> None:
    load_experiment(path)
    each_arm_takes_a_step(load_experiment(path, smoke=True), tmp_path)


def each_arm_takes_a_step(experiment: Experiment, storage: Path) -> None:
    experiment = with_data(experiment, storage / "data")
    check_built(experiment, storage / "data")
    for number, arm in enumerate(experiment.arms):
        trial = arm.trial({}, 0).model_copy(update={"budget": BudgetSpec(amount=1), "num_reports": 1})
        training = Training(trial, LocalContext(storage / str(number), storage / "data"))
        training.step()
        assert all(math.isfinite(value) for value in training.state.pending[0].metrics.values()), arm.name


def test_the_second_stage_loads_and_takes_a_step_where_the_first_has_finished(tmp_path: Path) -> None:
    small = "tasks=[{kind: text, sequence_length: 16, tokenizer: {kind: bpe, vocab_size: 300}}]"
    finish(load_experiment(FIRST_STAGE, [small], storage=tmp_path), tmp_path)
    load_experiment(SECOND_STAGE, storage=tmp_path)
    finish(load_experiment(FIRST_STAGE, smoke=True, storage=tmp_path), tmp_path)
    each_arm_takes_a_step(load_experiment(SECOND_STAGE, smoke=True, storage=tmp_path), tmp_path)


def finish(experiment: Experiment, storage: Path) -> None:
    """The experiment's sweep as it lies there when it has finished: its first arm alone, after one step."""
    experiment = with_data(experiment, storage / "data")
    [arm, *_], key = experiment.arms, "hrm_text-replica-0000"
    directory = storage / "sweeps" / experiment.name
    trial = arm.trial({}, 0).model_copy(update={"budget": BudgetSpec(amount=1), "num_reports": 1})
    _, result = run_trial(trial, LocalContext(directory / "trials" / key, storage / "data"), test=True)
    data, spec = trial.task.model_dump(mode="json"), trial.model_dump(mode="json")
    best, source = result.best_validation["bits_per_byte"], "hrm_text-search-0000"
    record = TrialRecord(key, arm.task, arm.name, "replica", 0, trial.hash(), spec, {}, source=source)
    ended = {"state": "completed", "objective": best, "result": asdict(result)}
    write_json(directory / "trials" / key / "trial.json", TrialRecord(**{**asdict(record), **ended}))
    facts = {arm.task: {"recipe": data, "fingerprint": trial.task.fingerprint}}
    plan = (experiment.spec.budget.model_dump(mode="json"), 1, facts, "python -m orchestrator sweep", {}, {}, 0.0)
    told = (experiment.name, "", experiment.spec.model_dump(mode="json"), [arm.name], [arm.task])
    write_json(directory / "sweep.json", SweepRecord(*told, "bits_per_byte", "minimize", *plan, finished=True))


@pytest.mark.slow
@pytest.mark.parametrize("path", ONE_STAGE, ids=lambda path: path.stem)
def test_its_smoke_gives_an_answer(path: Path, tmp_path: Path) -> None:
    if path.stem in HAVE_OWN_TESTS:
        pytest.skip("a test of its own runs it")
    if path.stem in LIKE:
        pytest.skip(f"{LIKE[path.stem]} asks in the same way, and each arm takes a step above")
    if path == FIRST_STAGE:
        pytest.skip("the test of both stages runs it")
    smoke_gives_an_answer(path, tmp_path)


def smoke_gives_an_answer(path: Path, storage: Path) -> None:
    run("sweep", f"experiments/{path.name}", "--smoke", "--storage", storage)
    found = report(storage, f"{path.stem}-smoke")
    assert found["trials"]["failed"] == 0
    assert found["arms"]
    assert all(arm["metric"]["n"] >= 1 for arm in found["arms"])


@pytest.mark.slow
def test_the_smoke_of_two_stages_is_a_chain_with_its_lineage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    smoke_gives_an_answer(FIRST_STAGE, tmp_path)
    smoke_gives_an_answer(SECOND_STAGE, tmp_path)
    first = f"{FIRST_STAGE.stem}-smoke"
    arms = {arm["name"]: arm for arm in report(tmp_path, f"{SECOND_STAGE.stem}-smoke")["arms"]}
    best = next(arm for arm in report(tmp_path, first)["arms"] if arm["name"] == "hrm_text")
    assert f"hrm_text of the sweep {first} ({best['best_trial']}" in arms["finetuned"]["started_from"]
    assert arms["direct"]["started_from"] == ""
    checkpoint = tmp_path / "sweeps" / f"{SECOND_STAGE.stem}-smoke" / arms["finetuned"]["best_checkpoint"]
    lineage = read_manifest(checkpoint)["lineage"]
    ids = {record.key: record.trial_id for record in trials(tmp_path, first).values()}
    assert (lineage["sweep"], lineage["arm"], lineage["trial_id"]) == (first, "hrm_text", ids[best["best_trial"]])
    assert main(["checkpoint", "show", str(checkpoint)]) == DONE
    assert f"sweep {first}, arm hrm_text on text, trial {best['best_trial']}" in capsys.readouterr().out
