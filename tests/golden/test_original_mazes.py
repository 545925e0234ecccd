"""The Maze-Hard mazes: their answers are the path that our search finds first, and generated mazes are like them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from hrm.data.maze_grids import WALL, Draw, draw_mazes, first_path_labels, path_steps
from hrm.data.maze_sources import read_mazes
from hrm.data.sources import SourceSpec

MAZES = Path(__file__).parents[3] / "shared" / "data" / "maze-30x30-hard-1k" / "train.csv"
pytestmark = pytest.mark.skipif(not MAZES.is_file(), reason=f"needs the Maze-Hard file {MAZES}")


@pytest.fixture(scope="module")
def mazes() -> npt.NDArray[np.uint8]:
    """Inputs and labels [2, 1000, 900]; reading them has proved that every answer is a shortest path."""
    return read_mazes(SourceSpec(path=str(MAZES)), 30)


def test_every_answer_is_the_path_that_our_search_finds_first(mazes: npt.NDArray[np.uint8]) -> None:
    inputs, labels = mazes
    assert inputs.shape == (1000, 900)
    np.testing.assert_array_equal(first_path_labels(inputs), labels)


def test_generated_mazes_are_like_them(mazes: npt.NDArray[np.uint8]) -> None:
    draws = [
        Draw(size=30, min_path=109, min_wall_fraction=0.3, max_wall_fraction=0.5, seed=0, number=number)
        for number in range(60)
    ]
    generated = np.concatenate([draw_mazes(draw) for draw in draws], axis=1)
    assert generated.shape[1] > 20
    for measure in (wall_share, path_steps_of, open_squares):
        ours, theirs = measure(generated), measure(mazes)
        error = np.hypot(*(values.std() / len(values) ** 0.5 for values in (ours, theirs)))
        assert abs(ours.mean() - theirs.mean()) < 3 * error, measure.__name__
    assert path_steps_of(generated).min() >= 109
    assert path_steps_of(mazes).min() == 109


def wall_share(mazes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    share: npt.NDArray[np.float64] = (mazes[0] == WALL).mean(axis=1)
    return share


def path_steps_of(mazes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    return path_steps(mazes[1]).astype(np.float64)


def open_squares(mazes: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The share of 2x2 squares without a wall: it tells random cells from corridors."""
    room = (mazes[0] != WALL).reshape(-1, 30, 30)
    squares = room[:, 1:, 1:] & room[:, :-1, 1:] & room[:, 1:, :-1] & room[:, :-1, :-1]
    share: npt.NDArray[np.float64] = squares.mean(axis=(1, 2))
    return share
