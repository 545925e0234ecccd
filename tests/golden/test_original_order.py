"""`sampling: original` against the recorded batches of the original loader, for one rank and for two.

The recording: seed 3, global batch 4, two iterations of 4 epochs; numpy's global generator, which draws the examples
within a puzzle, was seeded with 99 in each rank. Identifiers there are puzzle + 1.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset

from hrm.data.order import OriginalOrder, first_worker_generator

RECORDING = Path(__file__).parents[3] / "shared" / "parity" / "upstream_checkpoints" / "loader_golden.json"
recorded = pytest.mark.skipif(not RECORDING.exists(), reason="the recorded traces are not beside this checkout")


class RecordedOrder(OriginalOrder):
    """The order with the generator that the recording had."""

    def _example_generator(self) -> np.random.RandomState:
        return np.random.RandomState(99)


def recording() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(RECORDING.read_text())
    return data


def order(kind: type[OriginalOrder] = RecordedOrder) -> OriginalOrder:
    data = recording()
    return kind(np.array(data["puzzle_indices"]), np.array(data["group_indices"]), 4, 3, epochs_per_iteration=4)


def batches(order: OriginalOrder, steps: range, slots: np.ndarray) -> list[list[list[int]]]:
    """As recorded: [identifier, row] per slot."""
    rows = [order.rows(step, np.zeros_like(slots), slots) for step in steps]
    puzzles = [np.searchsorted(order.puzzles, batch, side="right") for batch in rows]
    return [np.stack(pair, axis=1).tolist() for pair in zip(puzzles, rows, strict=True)]


@recorded
@pytest.mark.parametrize(
    ("rank", "slots"), [("w1_r0", range(4)), ("w2_r0", range(2)), ("w2_r1", range(2, 4))], ids=lambda value: str(value)
)
def test_every_batch_of_both_iterations_is_the_originals(rank: str, slots: range) -> None:
    expected = recording()[f"train_{rank}"]
    assert len(expected) == 12
    assert batches(order(), range(12), np.arange(4)[slots.start : slots.stop]) == [batch[:-1] for batch in expected]


@recorded
@pytest.mark.parametrize("step", [0, 3, 5, 6, 11])
def test_it_resumes_at_any_step_of_the_recording(step: int) -> None:
    expected = [batch[:-1] for batch in recording()["train_w1_r0"]]
    resumed = order()
    assert batches(resumed, range(step, 12), np.arange(4)) == expected[step:]
    assert batches(resumed, range(12), np.arange(4)) == expected


@recorded
def test_groups_and_puzzles_do_not_depend_on_the_generator_of_examples() -> None:
    ours = np.array(batches(order(OriginalOrder), range(12), np.arange(4)))
    expected = np.array([batch[:-1] for batch in recording()["train_w1_r0"]])
    assert (ours[:, :, 0] == expected[:, :, 0]).all()
    assert (ours[:, :, 1] != expected[:, :, 1]).any()


@recorded
def test_steps_are_counted_as_in_the_original() -> None:
    assert order().steps(epochs=8) == 14  # int(8 epochs * 5 groups * 1.4 examples / 4), of which 12 batches come


class GlobalDraws(IterableDataset[list[int]]):
    """Draws from numpy's global generator, as the original's dataset does."""

    def __iter__(self) -> Any:
        for _ in range(3):
            yield np.random.choice(100, 5, replace=False).tolist()


def test_the_generator_of_examples_is_the_one_in_a_loader_process_of_the_originals_first_rank() -> None:
    torch.manual_seed(3)
    loader = DataLoader(GlobalDraws(), batch_size=None, num_workers=1, persistent_workers=True)
    drawn = [draw for _ in range(2) for draw in loader]
    ours = first_worker_generator(3)
    assert [ours.choice(100, 5, replace=False).tolist() for _ in range(6)] == drawn
