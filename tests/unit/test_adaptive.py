"""Rows that halt leave the batch, and what they answer is what the whole computation answers there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import MakeTrial
from torch.utils.flop_counter import FlopCounterMode

from hrm.adaptive import Adapted, Cost, Retry, adapt, cost_of
from hrm.contexts import contexts, cut
from hrm.data.dataset import Dataset, build_dataset
from hrm.depth import Depth, depth
from hrm.errors import SpecError
from hrm.evaluate import to_device
from hrm.halting_scores import READ_AT, Halt, Rule, rules_for
from hrm.models import Model
from hrm.nn.draws import Draws
from hrm.tasks import IGNORE, TaskShape
from hrm.tasks.sudoku import SudokuSpec
from hrm.tasks.text import TextSpec
from hrm.trial import TrialSpec

SIZES = {"hidden_size": 16, "num_heads": 2}
PUZZLE_MODELS: dict[str, dict[str, Any]] = {
    "hrm": {
        "kind": "hrm",
        "H_layers": 1,
        "L_layers": 1,
        "H_cycles": 1,
        "halting": {"rule": "q_with_target", "segments": 6},
    },
    "trm": {
        "kind": "trm",
        "L_layers": 1,
        "H_cycles": 1,
        "L_cycles": 1,
        "start": "random",
        "halting": {"rule": "q", "segments": 6},
    },
    "urm": {"kind": "urm", "num_layers": 1, "H_cycles": 1, "L_cycles": 1, "halting": {"segments": 6}},
}
TEXT = {"kind": "hrm", "H_layers": 1, "L_layers": 1, "H_cycles": 1, "causal": True}
TEXT_MODELS: dict[str, dict[str, Any]] = {
    "text": {**TEXT, "halting": {"segments": 4}},
    "text with a Q": {**TEXT, "halting": {"rule": "q_loss", "segments": 4}},
}


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("adaptive")


def built(make_trial: MakeTrial, storage: Path, kind: str) -> tuple[Model, Dataset, TrialSpec]:
    task = TextSpec.smoke() if kind in TEXT_MODELS else SudokuSpec.smoke()
    model = {**PUZZLE_MODELS, **TEXT_MODELS}[kind]
    trial = make_trial(task=task.model_dump(mode="json"), model={**SIZES, **model}, batch_size=5)
    dataset = build_dataset(trial.task, storage)
    torch.manual_seed(0)
    module = trial.model.build(dataset.shape)
    if hasattr(module, "q_head"):
        torch.nn.init.normal_(module.q_head.weight, std=1.0)
        module.q_head.bias.data.zero_()
    return module, dataset, trial


CASES: list[tuple[str, Rule]] = [
    ("hrm", "q"),
    ("hrm", "margin"),
    ("hrm", "residual"),
    ("trm", "q"),
    ("trm", "residual"),
    ("urm", "residual"),
    ("urm", "fixed"),
    ("text", "residual"),
    ("text with a Q", "q"),
]


def looked_at(make_trial: MakeTrial, storage: Path, kind: str, rule: Rule) -> tuple[Any, Depth, Halt, Adapted]:
    """A model and its rows, their full computation, a rule that ends about half of them early, and its run."""
    model, dataset, trial = built(make_trial, storage, kind)
    rows = dataset.split("train")
    numbers, gather = np.arange(3, 19), contexts(rows.gather) if kind in TEXT_MODELS else rows.gather
    whole = depth(model, gather, numbers, trial, [rule])
    scores = whole.scores.get(rule)
    threshold = 0.0 if scores is None else float(np.quantile(scores[1:4], 0.3 if rule == "residual" else 0.7))
    halt = Halt(rule, 4 if kind in TEXT_MODELS else 5, threshold)
    return (model, gather, numbers, trial), whole, halt, adapt(model, gather, numbers, trial, halt)


@pytest.mark.parametrize(("kind", "rule"), CASES)
def test_a_row_answers_what_the_whole_batch_computes_at_the_segment_where_it_halts(
    make_trial: MakeTrial, storage: Path, kind: str, rule: Rule
) -> None:
    _, whole, halt, found = looked_at(make_trial, storage, kind, rule)
    expected = whole.segments(halt)
    assert rule == "fixed" or len(set(expected)) > 1, "the threshold must tell rows apart, or this shows nothing"
    assert np.array_equal(found.segments, expected)
    assert np.array_equal(found.spent, expected)
    np.testing.assert_allclose(found.losses, whole.at(whole.losses, expected), rtol=1e-5)
    np.testing.assert_allclose(found.confidence, whole.at(whole.confidence, expected), rtol=1e-5)


@pytest.mark.parametrize(("kind", "rule"), CASES)
def test_neighbours_and_the_size_of_the_batch_change_no_answer(
    make_trial: MakeTrial, storage: Path, kind: str, rule: Rule
) -> None:
    (model, gather, numbers, trial), _, halt, found = looked_at(make_trial, storage, kind, rule)
    order = np.random.default_rng(0).permutation(len(numbers))
    other = adapt(model, gather, numbers[order], trial, halt, batch_size=8)
    alone = adapt(model, gather, numbers[4:5], trial, halt)
    assert np.array_equal(other.tokens, found.tokens[order])
    assert np.array_equal(other.segments, found.segments[order])
    np.testing.assert_allclose(other.losses, found.losses[order], rtol=1e-5)
    np.testing.assert_allclose(alone.losses, found.losses[4:5], rtol=1e-5)
    assert alone.segments[0] == found.segments[4]


@pytest.mark.parametrize(("kind", "rule"), CASES)
def test_what_is_claimed_to_be_computed_is_what_the_model_computes(
    make_trial: MakeTrial, storage: Path, kind: str, rule: Rule
) -> None:
    (model, gather, numbers, trial), _, halt, found = looked_at(make_trial, storage, kind, rule)
    rows: list[int] = []
    model.embed_tokens.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))  # type: ignore[union-attr]
    again = adapt(model, gather, numbers, trial, halt, batch_size=5)
    assert sum(rows) == again.spent.sum() == found.spent.sum()
    assert max(rows) <= 5
    assert again.flops(Cost(7.0, 2.0)).sum() == 7.0 * sum(rows) + 2.0 * len(numbers)
    full = len(numbers) * (4 if kind in TEXT_MODELS else 6)
    assert sum(rows) < full


@pytest.mark.parametrize("kind", ["trm", "text", "text with a Q"])
def test_the_flops_are_those_that_are_computed_though_answers_are_read_once_and_contexts_at_one_position(
    make_trial: MakeTrial, storage: Path, kind: str
) -> None:
    _, dataset, trial = built(make_trial, storage, kind)
    shape = TaskShape(4000, dataset.shape.sequence_length, dataset.shape.num_puzzle_identifiers)
    model, rows = trial.model.build(shape), dataset.split("train")
    model.configure(torch.float32, "explicit")
    gather = contexts(rows.gather) if kind in TEXT_MODELS else rows.gather
    for retry in (None, Retry(below=1.0, segments=1)):
        with FlopCounterMode(display=False) as counter:
            found = adapt(model, gather, np.arange(6), trial, Halt("residual", 3, 0.2), retry=retry)
        assert found.answers.sum() == 6 * (1 if retry is None else 2)
        counted, cost = counter.get_total_flops(), cost_of(trial.model, shape, kind in TEXT_MODELS)
        assert found.flops(cost).sum() == pytest.approx(counted, rel=1e-3)
    assert cost.answer * shape.sequence_length > cost.segment or kind not in TEXT_MODELS, "or the head hardly counts"


def test_a_free_place_is_taken_by_the_next_row(make_trial: MakeTrial, storage: Path) -> None:
    (model, gather, numbers, trial), _, halt, _ = looked_at(make_trial, storage, "hrm", "q")
    rows: list[int] = []
    model.embed_tokens.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))  # type: ignore[union-attr]
    adapt(model, gather, numbers, trial, halt, batch_size=5)
    running = rows[: rows.index(min(rows))]
    assert set(running[:-4]) == {5}, "a batch is full until no row waits any more"


def test_unsure_rows_go_on_and_the_surest_answer_is_kept(make_trial: MakeTrial, storage: Path) -> None:
    model, dataset, trial = built(make_trial, storage, "hrm")
    numbers, gather = np.arange(20), dataset.split("train").gather
    whole = depth(model, gather, numbers, trial, ["q"], segments=8)
    below = float(np.quantile(whole.confidence[:6], 0.6))
    found = adapt(model, gather, numbers, trial, Halt("fixed", 3), retry=Retry(below, segments=4))
    assert found.spent.min() == 3
    assert found.spent.max() == 7
    for row in range(len(numbers)):
        sure = whole.confidence[2:7, row]
        last = int((sure >= below).argmax()) if (sure >= below).any() else 4
        best = int(sure[: last + 1].argmax())
        assert (found.spent[row], found.segments[row]) == (3 + last, 3 + best)
        assert found.losses[row] == pytest.approx(whole.losses[2 + best, row], rel=1e-5)


def test_restarts_are_other_starts_of_the_row_itself_and_only_unsure_rows_get_them(
    make_trial: MakeTrial, storage: Path
) -> None:
    model, dataset, trial = built(make_trial, storage, "trm")
    numbers, gather = np.arange(20), dataset.split("train").gather
    once = adapt(model, gather, numbers, trial, Halt("fixed", 2))
    below = float(np.quantile(once.confidence, 0.5))
    found = adapt(model, gather, numbers, trial, Halt("fixed", 2), retry=Retry(below, restarts=3))
    sure = once.confidence >= below
    assert (found.restarts[sure] == 0).all()
    assert (found.restarts[~sure] > 0).all()
    assert np.array_equal(found.spent, 2 * (1 + found.restarts))
    assert (found.confidence >= once.confidence).all()
    assert (found.confidence > once.confidence).any()
    again = adapt(model, gather, numbers[::-1].copy(), trial, Halt("fixed", 2), retry=Retry(below, restarts=3))
    assert np.array_equal(again.tokens[::-1], found.tokens)


def test_a_model_without_a_q_says_the_least_probability_of_its_tokens(make_trial: MakeTrial, storage: Path) -> None:
    model, dataset, trial = built(make_trial, storage, "urm")
    numbers, gather = np.arange(6), dataset.split("train").gather
    least = adapt(model, gather, numbers, trial, Halt("fixed", 2))
    mean = adapt(model, gather, numbers, trial, Halt("fixed", 2), sure_by="mean")
    assert (least.confidence_is, mean.confidence_is) == ("least", "mean")
    assert (least.confidence < mean.confidence).all()


def test_a_context_ends_at_a_scored_position_and_holds_nothing_of_what_follows() -> None:
    labels = np.array([[IGNORE, 4, 5, IGNORE], [7, 8, 9, 3], [IGNORE] * 4])
    columns = {"inputs": np.arange(1, 13).reshape(3, 4), "labels": labels}
    places = set()
    for seed in range(30):
        found = cut(columns, np.array([10, 11, 12]), seed)
        at = found[READ_AT]
        places.add(int(at[0]))
        assert np.array_equal(found["labels"][:, 0], labels[np.arange(3), at])
        for row in range(3):
            assert np.array_equal(found["inputs"][row, : at[row] + 1], columns["inputs"][row, : at[row] + 1])
            assert (found["inputs"][row, at[row] + 1 :] == 0).all()
    assert places == {1, 2}
    one = cut({name: values[1:2] for name, values in columns.items()}, np.array([11]), 3)
    assert one[READ_AT][0] == cut(columns, np.array([10, 11, 12]), 3)[READ_AT][1]


def test_a_context_halts_by_the_q_of_its_last_position_and_its_confidence_is_not_that_q(
    make_trial: MakeTrial, storage: Path
) -> None:
    (model, gather, numbers, trial), whole, _, _ = looked_at(make_trial, storage, "text with a Q", "q")
    batch = to_device(gather(numbers), torch.device("cpu"))
    draws = Draws(trial.seed, 0, torch.from_numpy(numbers), training=False)
    with torch.no_grad():
        output = model.segment(model.initial_state(len(numbers), draws), batch, draws)
    assert output.q_positions is not None
    own = output.q_positions.sigmoid()[torch.arange(len(numbers)), batch[READ_AT]]
    np.testing.assert_allclose(whole.scores["q"][0], own, rtol=1e-4)
    assert adapt(model, gather, numbers, trial, Halt("q", 4, 0.5)).confidence_is == "least"


def test_rules_that_mean_nothing_for_a_model_are_refused_with_those_that_do(
    make_trial: MakeTrial, storage: Path
) -> None:
    for kind, wrong in (("trm", "margin"), ("urm", "q"), ("text", "q")):
        model, dataset, trial = built(make_trial, storage, kind)
        with pytest.raises(SpecError, match="residual"):
            adapt(model, dataset.split("train").gather, np.arange(2), trial, Halt(wrong, 2))  # type: ignore[arg-type]
    model, dataset, trial = built(make_trial, storage, "hrm")
    with pytest.raises(SpecError, match="start: random"):
        adapt(model, dataset.split("train").gather, np.arange(2), trial, Halt("q", 2), retry=Retry(0.5, restarts=1))
    assert rules_for(trial.model, True) == ("fixed", "q", "margin", "residual")
