"""How a task's own metrics come out of an evaluation: sums over rows, and looks at a whole split."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from hrm.context import LocalContext
from hrm.data.dataset import Rows, build_dataset
from hrm.evaluate import METRICS, evaluate, judge
from hrm.tasks import Answer, Answers, Sums
from hrm.tasks.sudoku import SudokuSpec
from hrm.train import Training
from tests.conftest import MakeTrial, run

HRM = {"kind": "hrm", "hidden_size": 16, "num_heads": 2, "H_layers": 1, "L_layers": 1}


class ScoredSudoku(SudokuSpec):
    """Counts what it is shown."""

    @property
    def metrics(self) -> tuple[str, ...]:
        return ("share_of_first_row", "of_no_row")

    def score(self, answers: Answers, vocabulary: list[str]) -> Sums:
        assert answers.tokens.shape == answers.rows["inputs"].shape
        assert answers.losses.shape == (len(answers),)
        return {"share_of_first_row": (float(answers.tokens[:, :4].size), answers.tokens.size), "of_no_row": (0.0, 0.0)}

    def predictions(self, answer: Answer, rows: Rows, vocabulary: list[str]) -> pa.Table:
        columns = rows.gather(np.arange(len(rows)))
        answers = answer(columns)
        backwards = answer({name: values[::-1] for name, values in columns.items()})
        moved = (backwards.tokens[::-1] != answers.tokens).any(1)
        return pa.table({"loss": answers.losses, "cells": (columns["labels"] > 0).sum(1), "moved": moved})

    def judge(self, predictions: pa.Table) -> dict[str, float]:
        loss, cells, moved = (np.asarray(predictions[name]) for name in ("loss", "cells", "moved"))
        return {
            "rows_seen": float(len(predictions)),
            "loss_again": float(loss.sum() / cells.sum()),
            "rows_that_depend_on_their_place": float(moved.sum()),
        }


@pytest.fixture
def training(tmp_path: Path, make_trial: MakeTrial) -> Training:
    trial = make_trial(task=ScoredSudoku.smoke().model_dump(mode="json"), model=HRM, batch_size=5)
    trial = trial.model_copy(update={"task": ScoredSudoku.smoke()})
    build_dataset(trial.task, tmp_path)
    return Training(trial, LocalContext(tmp_path / "trial", tmp_path))


def test_sums_over_all_rows_are_metrics_and_those_without_weight_are_left_out(training: Training) -> None:
    found = evaluate(training.state.model, training.dataset, "test", training.trial, training.context)
    assert set(found) == {*METRICS, "share_of_first_row"}
    assert found["share_of_first_row"] == 0.25


def test_a_whole_split_is_answered_as_it_is_evaluated(training: Training) -> None:
    at_hand = training.state.model, training.dataset, "test", training.trial, training.context
    found = judge(*at_hand, keep=None)
    assert found["rows_seen"] == training.dataset.manifest.rows["test"]
    assert found["loss_again"] == pytest.approx(evaluate(*at_hand)["loss"])
    assert found["rows_that_depend_on_their_place"] == 0


def test_a_training_examines_the_test_split_only(training: Training, make_context: Callable[..., LocalContext]) -> None:
    reports, result = run(training.trial, training.context, test=True)
    assert result.test is not None
    assert "rows_seen" in result.test
    assert all("rows_seen" not in report.validation for report in reports)
    assert all("share_of_first_row" in report.validation for report in reports)
