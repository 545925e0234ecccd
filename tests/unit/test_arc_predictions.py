"""The vote over predictions is a function of their table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from hrm.data.arc_predictions import SCHEMA, passed, scores, vote


def table(*rows: tuple[int, int, str, float], blank: bool = False) -> pa.Table:
    """Of (task, test, grid, confidence): a grid is its lines; "good" among its digits is the right one."""
    columns: dict[str, list[Any]] = {name: [] for name in SCHEMA.names}
    for form, (task, test, grid, confidence) in enumerate(rows):
        cells = b"".join(bytes(map(int, line)) for line in grid.split("/") if line)
        values = (task, test, form, blank, confidence, len(grid.split("/")) if cells else 0, cells, grid == "12/34")
        for name, value in zip(SCHEMA.names, values, strict=True):
            columns[name].append(value)
    return pa.table(columns, schema=SCHEMA)


RIGHT = "12/34"


def ranked(predictions: pa.Table) -> list[tuple[int, bytes, int]]:
    return [(c.height, c.cells, c.votes) for c in vote(predictions)[7, 0]]


def test_more_votes_win_and_then_more_mean_confidence() -> None:
    rows = [(7, 0, "1", 0.9), (7, 0, "2", 0.2), (7, 0, "2", 0.1), (7, 0, "3", 0.3), (7, 0, "3", 0.1), (7, 0, "4", 1.0)]
    assert [cells for _, cells, _ in ranked(table(*rows))] == [b"\3", b"\2", b"\4", b"\1"]


def test_grids_of_one_content_and_two_shapes_are_two_candidates() -> None:
    assert ranked(table((7, 0, "12/34", 0.1), (7, 0, "1234", 0.2), (7, 0, "1234", 0.2))) == [
        (1, b"\1\2\3\4", 2),
        (2, b"\1\2\3\4", 1),
    ]


def test_an_empty_grid_is_no_candidate_but_its_test_input_counts() -> None:
    predictions = table((7, 0, "", 0.9), (7, 0, "", 0.9), (7, 0, RIGHT, 0.1), (7, 1, "", 0.9))
    assert passed(vote(predictions), 1) == {7: 0.5}


def test_the_order_of_the_table_and_its_parts_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    rows = [(7, 0, str(rng.integers(1, 5)), float(rng.integers(0, 3)) / 2) for _ in range(40)]
    predictions = table(*rows)
    shuffled = predictions.take(rng.permutation(40))
    assert ranked(shuffled) == ranked(predictions)
    assert ranked(pa.concat_tables([shuffled.slice(30), shuffled.slice(0, 30)])) == ranked(predictions)


def test_a_task_is_passed_by_the_share_of_its_test_inputs() -> None:
    wrong, right = [(1, 0, "9", 0.5)] * 2, [(1, 0, RIGHT, 0.5)]
    predictions = table(*wrong, *right, (1, 1, RIGHT, 0.5), (2, 0, RIGHT, 0.5), (3, 0, "9", 0.5))
    blank = table((1, 0, "9", 0.5), (1, 1, "9", 0.5), (2, 0, RIGHT, 0.5), (3, 0, "9", 0.5), blank=True)
    found = scores(pa.concat_tables([predictions, blank]))
    assert found["pass_1"] == pytest.approx((0.5 + 1 + 0) / 3)
    assert found["pass_2"] == found["pass_1000"] == pytest.approx(2 / 3)
    assert found["whole_tasks_2"] == pytest.approx(2 / 3)
    assert found["pass_1_blank"] == found["pass_2_blank"] == found["whole_tasks_2_blank"] == pytest.approx(1 / 3)
    assert len(found) == 2 * 7
