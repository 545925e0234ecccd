"""A trace is an evaluation that keeps every segment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MakeTrial

from hrm.context import LocalContext
from hrm.data.dataset import build_dataset
from hrm.evaluate import evaluate, to_device
from hrm.models import Model
from hrm.nn.draws import Draws
from hrm.nn.losses import LossKind, log_probabilities
from hrm.tasks.sudoku import SudokuSpec
from hrm.trace import Trace, trace, traces
from hrm.trial import TrialSpec

SIZES = {"hidden_size": 16, "num_heads": 2}
MODELS: dict[str, dict[str, Any]] = {
    "hrm": {"kind": "hrm", "H_layers": 1, "L_layers": 1, "halting": {"rule": "q_with_target", "segments": 3}},
    "trm": {"kind": "trm", "start": "random", "halting": {"rule": "q", "segments": 3}},
    "urm": {"kind": "urm", "num_layers": 1, "halting": {"segments": 2}},
    "transformer": {"kind": "transformer", "num_layers": 1},
}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("puzzles")
    build_dataset(SudokuSpec.smoke(), root)
    return root


def built(make_trial: MakeTrial, storage: Path, kind: str) -> tuple[Model, Any, TrialSpec, LocalContext]:
    trial = make_trial(
        task=SudokuSpec.smoke().model_dump(mode="json"),
        model={**SIZES, **MODELS[kind]},
        loss="stablemax" if kind == "trm" else "softmax",
    )
    dataset = build_dataset(trial.task, storage)
    torch.manual_seed(0)
    model = trial.model.build(dataset.shape)
    if hasattr(model, "q_head"):
        torch.nn.init.normal_(model.q_head.weight, std=3.0)
        model.q_head.bias.data.zero_()
    return model, dataset, trial, LocalContext(storage / "trial", storage)


@pytest.mark.parametrize("kind", MODELS)
def test_the_last_segment_of_a_trace_is_what_an_evaluation_measures(
    make_trial: MakeTrial, storage: Path, kind: str
) -> None:
    model, dataset, trial, context = built(make_trial, storage, kind)
    parts = list(traces(model, dataset, "validation", trial, context))
    tokens = sum(int(part.scored.sum()) for part in parts)
    rows = sum(len(part.numbers) for part in parts)
    measured = evaluate(model, dataset, "validation", trial, context)
    assert rows == len(dataset.split("validation"))
    assert sum(part.losses[-1].sum() for part in parts) / tokens == pytest.approx(measured["loss"], rel=1e-5)
    assert sum(part.correct[-1].sum() for part in parts) / tokens == pytest.approx(measured["token_accuracy"])
    assert sum(part.exact[-1].sum() for part in parts) / rows == pytest.approx(measured["exact_accuracy"])


def one(make_trial: MakeTrial, storage: Path, kind: str, **options: Any) -> Trace:
    model, dataset, trial, _ = built(make_trial, storage, kind)
    return trace(model, dataset.split("validation").gather(np.arange(4)), trial, **options)


@pytest.mark.parametrize("kind", ["hrm", "trm"])
def test_deeper_traces_go_on_where_shorter_ones_end(make_trial: MakeTrial, storage: Path, kind: str) -> None:
    short, deep = one(make_trial, storage, kind), one(make_trial, storage, kind, segments=5)
    assert len(short.predictions) == 3
    assert len(deep.predictions) == 5
    assert np.array_equal(deep.predictions[:3], short.predictions)
    assert np.array_equal(deep.losses[:3], short.losses)
    assert not np.array_equal(deep.losses[2], deep.losses[4])


def test_a_row_halts_where_its_rule_first_says_so_and_else_at_the_last_segment_of_its_training(
    make_trial: MakeTrial, storage: Path
) -> None:
    seen = set()
    for kind in ("hrm", "trm"):
        for segments in (2, 3, 6):
            found = one(make_trial, storage, kind, segments=segments)
            assert found.q is not None
            assert found.halts is not None
            for row, halt in enumerate(found.halts):
                done = [halts > (go_on if kind == "hrm" else 0.0) for halts, go_on in found.q[:3, row]]
                assert halt == (done.index(True) + 1 if True in done else 3 if segments >= 3 else 0)
                seen.add((segments, int(halt)))
    assert {(2, 0), (3, 3), (6, 3)} <= seen, "some rows must never fire, or this shows nothing"
    assert one(make_trial, storage, "transformer").halts is None


def test_states_and_their_change_are_those_of_the_segments(make_trial: MakeTrial, storage: Path) -> None:
    model, dataset, trial, _ = built(make_trial, storage, "hrm")
    columns = dataset.split("validation").gather(np.arange(4))
    draws, batch = Draws(0, 0, torch.arange(4), training=False), to_device(columns, torch.device("cpu"))
    state, by_hand = model.initial_state(4, draws), []
    with torch.no_grad():
        for _ in range(3):
            state = model.eval().segment(state, batch, draws).state
            by_hand.append(state["z_H"])
    whole = trace(model, columns, trial, keep_states=True)
    assert set(whole.residuals) == set(whole.states) == {"z_H", "z_L"}
    assert whole.residuals["z_H"].shape == (3, 4)
    for row, state_there in enumerate(whole.states["z_H"]):
        everywhere = by_hand[2][row, -columns["labels"].shape[1] :][torch.from_numpy(whole.scored[row])]
        assert np.isclose(everywhere.numpy(), state_there, atol=1e-6).all(1).any()
    moved = [(now - before).norm() / now.norm() for before, now in zip(by_hand[1], by_hand[2], strict=True)]
    assert np.allclose(whole.residuals["z_H"][2], moved, rtol=1e-4)


def test_logits_give_the_predictions_and_their_probabilities(make_trial: MakeTrial, storage: Path) -> None:
    for kind in ("hrm", "trm"):
        found = one(make_trial, storage, kind, keep_logits=True)
        assert found.logits is not None
        loss: LossKind = "stablemax" if kind == "trm" else "softmax"
        shares = log_probabilities(torch.from_numpy(found.logits), loss).exp().numpy()
        assert np.allclose(shares.sum(-1), 1.0, atol=1e-5)
        assert np.array_equal(shares.argmax(-1), found.predictions[-1])
        assert np.allclose(shares.max(-1), found.probabilities[-1], atol=1e-6)
