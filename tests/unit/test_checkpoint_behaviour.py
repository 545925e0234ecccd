"""What `checkpoint report` measures with checkpoints is what an evaluation measures, for ours and for imported ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from analysis.checkpoints.behaviour import Subject, behaviour_of
from analysis.checkpoints.candidate_pool import Chooser, pool_of
from analysis.checkpoints.candidates import candidates_of
from analysis.checkpoints.measuring import Scales
from analysis.checkpoints.row_choice import choose_rows
from hrm.checkpoint import open_checkpoint
from hrm.context import LocalContext
from hrm.data.dataset import build_dataset
from hrm.evaluate import evaluate
from hrm.loading import load_model
from hrm.original.conversion import original_state_dict
from hrm.records import Report
from hrm.spec import parse_spec
from hrm.tasks.sudoku import SudokuSpec
from hrm.train import train
from hrm.trial import TrialSpec
from orchestrator.cli import main

HRM = {"kind": "hrm", "hidden_size": 16, "num_heads": 2, "H_layers": 1, "L_layers": 1, "puzzle_embedding_size": 16}
HALTING = {"rule": "q_with_target", "segments": 3}


class Trained:
    """A training of which every checkpoint was kept."""

    def __init__(self, trial: TrialSpec, storage: Path) -> None:
        self.trial, self.storage, self.reports, self.folders = trial, storage, list[Report](), list[Path]()
        self.dataset = build_dataset(trial.task, storage / "data")
        self.context = LocalContext(storage / "trial", storage / "data")
        for report in train(trial, self.context):
            self.reports.append(report)
            if len(self.reports) > 1:  # by now the checkpoint of the report before is whole
                self._keep(self.reports[-2])
        self._keep(self.reports[-1])

    def _keep(self, report: Report) -> None:
        folder = self.storage / "kept" / Path(report.checkpoint).name
        shutil.copytree(self.context.trial_directory / report.checkpoint, folder)
        self.folders.append(folder)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    fields: dict[str, Any] = {
        "task": {**SudokuSpec.smoke().model_dump(mode="json"), "num_validation": 24},
        "model": {**HRM, "halting": HALTING},
        "optimizer": {"kind": "adamw", "learning_rate": 0.01},
        "budget": {"axis": "steps", "amount": 9},
        "num_reports": 3,
        "batch_size": 4,
        "ema": 0.5,
        "loss": "stablemax",
        "precision": "float32",
        "objective": {"metric": "token_accuracy", "direction": "maximize"},
    }
    return Trained(parse_spec(TrialSpec, fields, "trial"), tmp_path_factory.mktemp("trained"))


def scales_of(trained: Trained, most: int = 1000) -> Scales:
    model = load_model(open_checkpoint(trained.folders[0]), trained.dataset.shape, "here")
    rows = choose_rows(trained.dataset, "validation", most)
    return Scales(model, trained.dataset, trained.trial, trained.context, rows)


def evaluated(trained: Trained, weights: Mapping[str, torch.Tensor]) -> dict[str, float]:
    model = trained.trial.model.build(trained.dataset.shape)
    model.load_state_dict(weights)
    return evaluate(model, trained.dataset, "validation", trained.trial, trained.context)


def test_weights_measure_what_an_evaluation_says_by_every_metric(trained: Trained) -> None:
    weights = open_checkpoint(trained.folders[-1]).evaluation_weights
    scales = scales_of(trained)
    found = scales.measure(weights, own=True).estimates(scales.rows.groups)
    said = evaluated(trained, weights)
    assert said == trained.reports[-1].validation
    assert {name: one.value for name, one in found.items()} == pytest.approx(
        {name: value for name, value in said.items() if name != "perplexity"}, rel=1e-5
    )
    assert all(one.low is not None and one.low <= one.value <= (one.high or 0.0) for one in found.values())


def test_an_ensemble_of_equals_is_its_member_and_of_different_ones_is_none_of_them(trained: Trained) -> None:
    scales = scales_of(trained)
    first, last = (open_checkpoint(folder).evaluation_weights for folder in (trained.folders[0], trained.folders[-1]))
    alone, twice, both = scales.measure(last), scales.ensemble([last, last]), scales.ensemble([first, last])
    assert np.allclose(twice.losses[-1], alone.losses[-1], rtol=1e-4)
    assert np.array_equal(twice.predictions, alone.predictions)
    average = (np.exp(-alone.losses[-1]) + np.exp(-scales.measure(first).losses[-1])) / 2
    assert (both.losses[-1] <= -np.log(average) + 10.0).all()
    assert not np.allclose(both.losses[-1], alone.losses[-1], rtol=1e-4)


def test_the_halves_of_the_rows_share_no_group_and_are_drawn_alike_again(trained: Trained) -> None:
    rows = choose_rows(trained.dataset, "validation", 6)
    assert len(rows.numbers) == len(set(rows.numbers)) == 6
    assert not set(rows.groups[rows.reports]) & set(rows.groups[~rows.reports])
    assert abs(int(rows.reports.sum()) - 3) < 1
    assert np.array_equal(rows.numbers, choose_rows(trained.dataset, "validation", 6).numbers)


def test_candidates_are_the_checkpoints_and_what_is_made_of_them(trained: Trained) -> None:
    scales = scales_of(trained)
    opened = [open_checkpoint(folder) for folder in trained.folders]
    subjects = [
        Subject(f"step {3 * at}", "one", 3 * at, scales, lambda c=c: c.evaluation_weights, lambda c=c: c.model)  # type: ignore[misc]
        for at, c in enumerate(opened, start=1)
    ]
    behaviour, measured = behaviour_of(subjects, "sudoku")
    found = candidates_of(subjects, measured).trainings[0]
    families = {one.name: one.family for one in found.candidates}
    assert found.candidates[0].name == "step 9"
    assert set(families.values()) >= {"checkpoint", "raw", "average", "ensemble", "depth", "halting", "precision"}
    assert {"step 9, as trained", "average of all 3", "ensemble of the best 2", "ensemble of the best 3"} <= set(
        families
    )
    assert [one.use for one in found.recommendations] == ["accuracy", "speed", "size"]
    few = [replace(one, scales=scales_of(trained, 9)) for one in subjects]
    assert candidates_of(few, behaviour_of(few, "sudoku")[1]).trainings[0].recommendations == []

    by_hand = {name: sum(c.evaluation_weights[name] for c in opened) / 3 for name in opened[0].evaluation_weights}
    mean = scales.measure(by_hand).metric("loss").of(scales.rows.reports).value
    average = next(one for one in found.candidates if one.name == "average of all 3")
    assert average.metrics["loss"].value == pytest.approx(mean, rel=1e-5)
    raw = next(one for one in found.candidates if one.name == "step 9, as trained")
    assert raw.metrics["loss"].value != found.candidates[0].metrics["loss"].value

    assert len(behaviour.checkpoints[0].by_segment) == 3
    assert behaviour.checkpoints[-1].calibration is not None
    ends = behaviour.pairs[0]
    assert (ends.first, ends.second) == ("step 3", "step 9")
    assert ends.barrier is not None
    assert set(ends.alike) == {"z_H", "z_L"}


def test_the_command_measures_ours_and_imports_with_a_task_and_says_why_it_does_not_otherwise(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: object) -> dict[str, Any]:
        capsys.readouterr()
        command = ["checkpoint", "report", *map(str, arguments), "--storage", str(trained.storage), "--json"]
        assert main([*command, "--output", str(tmp_path / "out")]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        return found

    ours = said(trained.folders[-1])
    loss = ours["behaviour"]["checkpoints"][0]["metrics"]["loss"]["value"]
    assert loss == pytest.approx(trained.reports[-1].validation["loss"], rel=1e-5)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Which to use" in page
    assert ours["command"].endswith("--split validation")
    assert "Is the halting Q to be believed" in page
    assert said(trained.folders[-1], "--no-behaviour")["behaviour"] is None

    checkpoint = open_checkpoint(trained.folders[-1])
    torch.save(original_state_dict(checkpoint, checkpoint.evaluation_weights, "here"), tmp_path / "step_9")
    told = [part for field in ("num_heads=2", "halt_max_steps=3", "forward_dtype=float32") for part in ("--set", field)]
    alone = said(tmp_path / "step_9", *told)
    assert alone["behaviour"] is None
    assert "Give --task" in alone["notes"][0]
    (tmp_path / "recipe.yaml").write_text(json.dumps(trained.trial.task.model_dump(mode="json")))
    imported = said(tmp_path / "step_9", *told, "--task", tmp_path / "recipe.yaml")
    assert imported["behaviour"]["checkpoints"][0]["metrics"]["loss"]["value"] == pytest.approx(loss, rel=1e-4)


def test_the_greedy_average_takes_in_what_helps_and_leaves_out_what_does_not(trained: Trained) -> None:
    scales = scales_of(trained)
    whole = open_checkpoint(trained.folders[-1]).evaluation_weights
    noise = {name: torch.randn(tensor.shape, generator=torch.manual_seed(1)) for name, tensor in whole.items()}
    near = {side: {name: whole[name] + 0.5 * side * noise[name] for name in whole} for side in (-1, 1)}
    far = {name: whole[name] + 5.0 * noise[name] for name in whole}
    made = {"minus": near[-1], "far": far, "plus": near[1]}
    subjects = [Subject(label, "one", at, scales, partial(dict, made[label])) for at, label in enumerate(made)]
    measured = {label: scales.measure(weights) for label, weights in made.items()}
    pool = {one.name: one for one in pool_of(subjects, measured, scales, Chooser("loss", False, ~scales.rows.reports))}
    soup = pool["greedy average of 2 of 3"].found
    assert np.allclose(soup.losses, scales.measure(whole).losses, rtol=1e-3)
    assert soup.losses[-1].sum() < min(measured["minus"].losses[-1].sum(), measured["plus"].losses[-1].sum())
