"""`checkpoint states`: the same tokens under both rules, and a verdict only where the rows allow one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY_TRANSFORMER, run

from analysis.states import compare_states
from hrm.context import LocalContext
from hrm.data.checks import IGNORE
from hrm.data.dataset import build_dataset
from hrm.data.tag_lists import FEWEST, MOST, TOPICS, tag_lists
from hrm.errors import SpecError
from hrm.forcing import ToldText, told
from hrm.models.hrm import HRMSpec
from hrm.nn.draws import Draws
from hrm.spec import parse_spec
from hrm.tasks import TaskShape
from hrm.tasks.sudoku import SudokuSpec
from hrm.tasks.text import TextSpec
from hrm.trial import TrialSpec
from orchestrator.cli import main

MODEL: dict[str, Any] = {"hidden_size": 16, "num_heads": 2, "H_layers": 1, "L_layers": 1, "causal": True}
TEXTS = [
    ToldText([3, 1, 4, 1, 5, 9], [1, 4, 1, 5, 9, 2], 0),
    ToldText([2, 7, 1], [7, 1, 8], 1),
    ToldText([1, 6, 1, 8], [6, 1, IGNORE, 0], 2),
]


def test_reset_gives_what_one_pass_over_the_whole_text_gives() -> None:
    torch.manual_seed(0)
    model = HRMSpec(**MODEL).build(TaskShape(11, 8, next_token=True)).eval()
    found = told(model, TEXTS, state="reset", prefix=2, segments=2, loss="softmax", batch_size=2)
    for text, (nats, right, count) in zip(TEXTS, found, strict=True):
        length, draws = len(text.inputs), Draws(0, 0, torch.tensor([text.number]), training=False)
        rows = {"inputs": torch.tensor([text.inputs]), "puzzle_identifiers": torch.zeros(1, dtype=torch.int64)}
        state = {name: z[:, :length] for name, z in model.initial_state(1, draws).items()}
        with torch.no_grad():
            for _ in range(2):
                output = model.segment(state, rows, draws)
                state = output.state
        logs = output.logits[0].log_softmax(-1)
        scored = [place for place in range(2, length) if text.labels[place] != IGNORE]
        assert count == len(scored)
        assert nats == pytest.approx(-sum(logs[p, text.labels[p]].item() for p in scored), rel=1e-4)
        assert right == sum(int(logs[p].argmax()) == text.labels[p] for p in scored)
    carried = told(model, TEXTS, state="carry", prefix=2, segments=2, loss="softmax")
    assert (carried[:, 2] == found[:, 2]).all()
    assert not np.allclose(carried[:, 0], found[:, 0])


def test_a_verdict_is_given_only_where_the_interval_leaves_no_doubt() -> None:
    rng = np.random.default_rng(0)
    reset = np.stack([rng.normal(40, 4, 30), rng.integers(0, 20, 30), np.full(30, 20.0)], 1)
    worse = reset + np.array([2.0, 0.0, 0.0]) + np.outer(rng.normal(0, 0.2, 30), [1, 0, 0])
    noisy = reset + np.outer(rng.normal(0, 5, 30), [1, 0, 0])
    found = compare_states("prose", reset, worse, 9)
    assert found.better == "reset"
    assert found.loss.difference.value == pytest.approx(0.1, abs=0.01)
    assert found.sentence().startswith("prose: reset is better, by 0.1")
    assert compare_states("prose", worse, reset, 9).better == "carry"
    assert compare_states("prose", worse, reset, 9).sentence().startswith("prose: carry is better, by 0.1")
    assert compare_states("prose", reset, noisy, 9).better is None
    open_ = compare_states("prose", reset, noisy, 9).sentence()
    assert open_.startswith("prose: which is better cannot be told from 30 rows; carry minus reset is ")
    alone = compare_states("prose", reset[:1], worse[:1], 9).sentence()
    assert alone == "prose: which is better cannot be told from 1 row."


def test_a_loss_that_a_guess_would_beat_is_said() -> None:
    rows = np.stack([np.full(8, 40.0), np.zeros(8), np.full(8, 20.0)], 1)
    step = np.array([4.0, 0.0, 0.0])
    assert compare_states("tags", rows, rows + step, 8).warning() == ""
    found = compare_states("tags", rows, rows + step, 7)
    assert "2.000 nats per token are more than the 1.946 of a uniform guess over its 7 tokens" in found.warning()
    assert compare_states("tags", rows + step, rows, 7).to_data()["warning"] == found.warning()
    assert compare_states("tags", rows, rows - step, 7).warning() == "", "one rule does know them"


def test_a_list_names_tags_of_one_topic_none_twice() -> None:
    lists = list(tag_lists(200, 5))
    assert lists == list(tag_lists(200, 5))
    assert len(set(lists)) > 190
    for text in lists:
        tags = text.split(", ")
        assert FEWEST <= len(tags) == len(set(tags)) <= MOST
        assert any(set(tags) <= set(topic) for topic in TOPICS)


def test_lists_of_tags_are_a_sample_that_can_be_built(tmp_path: Path) -> None:
    spec = TextSpec(sample="tags", sequence_length=96)
    dataset = build_dataset(spec, tmp_path)
    shown = spec.render(dataset.split("train").gather(np.arange(1))["inputs"][0].tolist(), dataset.manifest.vocabulary)
    assert any(set(shown.split(", ")) <= set(topic) for topic in TOPICS)
    with pytest.raises(SpecError, match="sample must be left out where there is a source, or another format"):
        parse_spec(TextSpec, {"kind": "text", "sample": "tags", "format": {"kind": "instruction"}}, "recipe")


def checkpoint(storage: Path, **fields: Any) -> str:
    data = {
        "task": TextSpec(sample="tags", sequence_length=96).model_dump(mode="json"),
        "model": {"kind": "hrm", **MODEL},
        "optimizer": {"kind": "adamw", "learning_rate": 0.01},
        "budget": {"axis": "steps", "amount": 2},
        "batch_size": 8,
        "num_reports": 1,
        **fields,
    }
    trial = parse_spec(TrialSpec, data, "trial")
    build_dataset(trial.task, storage / "data")
    context = LocalContext(storage / trial.model.kind / trial.task.kind, storage / "data")
    reports, _ = run(trial, context)
    return str(context.trial_directory / reports[-1].checkpoint)


def test_the_command_measures_own_rows_and_lists_and_refuses_what_has_no_states(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, options = checkpoint(tmp_path), ["--storage", str(tmp_path), "--rows", "6", "--tokens", "4"]
    assert main(["checkpoint", "states", place, *options, "--json"]) == 0
    own, lists = json.loads(capsys.readouterr().out)["texts"]
    assert (own["name"], lists["name"]) == ("text, validation", "tag lists")
    assert (lists["rows"], lists["tokens"]) == (6, 24)
    for found in (own, lists):
        difference = found["loss"]["difference"]
        assert difference["low"] <= difference["value"] <= difference["high"]
        assert difference["value"] == pytest.approx(found["loss"]["carry"]["value"] - found["loss"]["reset"]["value"])
        assert math.isfinite(difference["value"])
    assert main(["checkpoint", "states", place, *options]) == 0
    out = capsys.readouterr().out
    assert "carry - reset" in out
    assert out.count("text, validation: ") == 2  # the heading and the verdict
    no_state = checkpoint(tmp_path, model=TINY_TRANSFORMER)
    puzzle = checkpoint(
        tmp_path, task=SudokuSpec.smoke().model_dump(mode="json"), model={"kind": "hrm", **MODEL, "causal": False}
    )
    for arguments, message in (
        ([no_state], "a transformer keeps no state between segments"),
        ([puzzle], "is a checkpoint of sudoku, whose rows are no text"),
        ([place, "--rows", "1"], "--rows: must be >= 2, got 1"),
        ([place, "--prefix", "95"], "--prefix: no row of"),
    ):
        assert main(["checkpoint", "states", *arguments[:1], *options, *arguments[1:]]) == 2, arguments
        assert message in capsys.readouterr().err
