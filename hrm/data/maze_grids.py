"""Mazes of n x n cells, many at once: drawn, solved and checked as bit boards, a machine word per row of a maze.

A board is [B, n + 1]: bit c of word r is the cell in row r, column c; the last word is empty and keeps mazes apart. The
path of a maze is the one that a first-in-first-out search from the start finds when it visits neighbours in the order
down, left, right, up, as in the Maze-Hard data. A maze has very many shortest paths; this one is the label.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

WALL, OPEN, START, GOAL, PATH = range(1, 6)
MARKS = "# SGo"
"""The character of each token from WALL on."""
LARGEST = 64
"""Cells per side that a word holds."""
GRIDS_PER_DRAW = 4096
"""Few enough that a draw's boards stay in the cache."""
FAR_CELLS = 64
"""A grid and a start are kept in proportion to the cells that could be the goal, up to this many of them: up to there
the mazes are distributed as if the goal, too, had been drawn anywhere and the maze thrown away where it is too near."""
_DROP_EVERY = 4

Boards = npt.NDArray[np.unsignedinteger[Any]]
Cells = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Tokens = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True)
class Draw:
    """Number `number` of an endless sequence of batches of mazes: a function of these fields alone."""

    size: int
    min_path: int
    """The least number of steps from start to goal."""
    min_wall_fraction: float
    max_wall_fraction: float
    seed: int
    number: int


def draw_mazes(draw: Draw) -> npt.NDArray[np.uint8]:
    """The inputs and labels [2, M, n * n] of the mazes among `GRIDS_PER_DRAW` random grids.

    Each grid has a wall share of its own, drawn evenly from the range, and walls where chance puts them.
    """
    size, cells = draw.size, draw.size**2
    chance = np.random.Philox(key=np.array([draw.seed, draw.number], dtype=np.uint64))
    share, start, keep, goal = (_uniform(chance, GRIDS_PER_DRAW) for _ in range(4))
    share = draw.min_wall_fraction + share * (draw.max_wall_fraction - draw.min_wall_fraction)
    room = pack(_bernoulli(chance, 1 - share, cells).reshape(-1, size, size))
    starts = (start * cells).astype(np.int64)
    which, far = _far_cells(room, starts, draw.min_path)
    candidates = unpack(far, size).reshape(len(far), cells)
    count = candidates.sum(axis=1)
    kept = np.flatnonzero(keep[which] * FAR_CELLS < count)
    which, candidates, count = which[kept], candidates[kept], count[kept]
    rank = (goal[which] * count).astype(np.int64)
    goals = (candidates.cumsum(axis=1) > rank[:, None]).argmax(axis=1)
    inputs = np.where(unpack(room[which], size), OPEN, WALL).astype(np.uint8).reshape(len(which), cells)
    every = np.arange(len(which))
    inputs[every, starts[which]], inputs[every, goals] = START, GOAL
    return np.stack([inputs, first_path_labels(inputs)])


def first_path_labels(inputs: Tokens) -> npt.NDArray[np.uint8]:
    """[B, n * n]: the mazes with their path; as they are where no path joins start and goal."""
    path = _first_shortest_paths(inputs)
    labels: npt.NDArray[np.uint8] = np.where(path & (inputs == OPEN), PATH, inputs).astype(np.uint8)
    return labels


def shortest_steps(inputs: Tokens) -> Cells:
    """[B]: the steps of the shortest path; -1 where there is none."""
    steps: Cells = _first_shortest_paths(inputs).sum(axis=1) - 1
    return steps


def path_steps(answers: Tokens) -> Cells:
    """[B]: the steps of a path of so many cells."""
    steps: Cells = (answers == PATH).sum(axis=1) + 1
    return steps


def are_paths(inputs: Tokens, answers: Tokens) -> Mask:
    """[B]: the answer [B, n * n] is the maze with one path in it: the path's cells are open ones of the maze, join its
    start to its goal, and none could be spared; all other cells are as in the maze."""
    size = round(inputs.shape[1] ** 0.5)
    right: Mask = ((answers == inputs) | ((inputs == OPEN) & (answers == PATH))).all(axis=1)
    ends = (inputs == START) | (inputs == GOAL)
    on = ((answers == PATH) | ends).reshape(len(inputs), size, size)
    # Without a spare cell the ends touch one cell of the path and all others two: no branches, no short cuts.
    degrees = np.where(ends, 1, 2)
    right &= ((_neighbours(on).reshape(inputs.shape) == degrees) | ~on.reshape(inputs.shape)).all(axis=1)
    rest = np.flatnonzero(right)
    right[rest] = _connected(pack(on[rest]), (inputs[rest] == START).argmax(axis=1))  # else: a path, and a ring apart
    return right


def pack(cells: Mask) -> Boards:
    """Cells [B, n, n] as boards."""
    count, size, _ = cells.shape
    width = max(8, 1 << (size - 1).bit_length())
    bits = np.zeros((count, size + 1, width), dtype=np.bool_)
    bits[:, :size, :size] = cells
    boards: Boards = np.packbits(bits, axis=-1, bitorder="little").view(f"<u{width // 8}")[..., 0]
    return boards


def unpack(boards: Boards, size: int) -> Mask:
    """Boards as cells [B, n, n]."""
    bits = np.unpackbits(np.ascontiguousarray(boards)[..., None].view(np.uint8), axis=-1, bitorder="little")
    return bits[:, :size, :size].astype(np.bool_)


def dihedral(size: int) -> Cells:
    """[8, n * n]: the cell that each cell is taken from in the eight forms of a square, the square itself first.

    Three turns counterclockwise, mirrored left to right, upside down, transposed, and transposed about the other
    diagonal: in the order of the original builders.
    """
    cells = np.arange(size * size).reshape(size, size)
    turned = [np.rot90(cells, turns) for turns in range(4)]
    forms = [*turned, np.fliplr(cells), np.flipud(cells), cells.T, np.fliplr(turned[1])]
    return np.stack([form.ravel() for form in forms])


def _first_shortest_paths(inputs: Tokens) -> Mask:
    """[B, n * n]: the cells of each maze's path, both ends included; none where the goal cannot be reached.

    The search's path is the first of the shortest ones in alphabetical order of their steps (down, left, right, up):
    so it is found from the start by always taking the first step that comes nearer to the goal.
    """
    size = round(inputs.shape[1] ** 0.5)
    room = pack((inputs != WALL).reshape(len(inputs), size, size))
    rows, words = _places((inputs == START).argmax(axis=1), room)
    levels, steps = [_single((inputs == GOAL).argmax(axis=1), room)], np.full(len(room), -1)
    unvisited = room & ~levels[0]
    every = np.arange(len(room))
    while True:
        arrived = (levels[-1][every, rows] & words) != 0
        steps[arrived] = len(levels) - 1
        if not levels[-1][steps < 0].any():
            break
        levels.append(_next_level(levels[-1], unvisited))
    path = np.zeros_like(room)
    path[every, rows] = np.where(steps >= 0, words, 0)
    for left in range(int(steps.max(initial=0)) - 1, -1, -1):
        moving = np.flatnonzero(steps > left)
        rows[moving], words[moving] = _step(levels[left][moving], rows[moving], words[moving])
        path[moving, rows[moving]] |= words[moving]
    return unpack(path, size).reshape(inputs.shape)


def _far_cells(room: Boards, starts: Cells, min_path: int) -> tuple[Cells, Boards]:
    """Which mazes have cells of at least `min_path` steps from their start, and these cells."""
    front = _single(starts, room) & room
    unvisited = room & ~front
    which = np.arange(len(room))
    for step in range(min_path):
        if step % _DROP_EVERY == 0:
            alive = front.any(axis=1)
            which, front, unvisited = which[alive], front[alive], unvisited[alive]
        front = _next_level(front, unvisited)
    far = front
    while front.any():
        front = _next_level(front, unvisited)
        far = far | front
    alive = far.any(axis=1)
    return which[alive], far[alive]


def _next_level(front: Boards, unvisited: Boards) -> Boards:
    """The unvisited neighbours of a front; they are taken out of `unvisited`."""
    level: Boards = np.left_shift(front, 1)
    level |= front >> 1
    flat, before = level.reshape(-1), front.reshape(-1)
    flat[1:] |= before[:-1]  # the empty word between two mazes keeps them apart
    flat[:-1] |= before[1:]
    level &= unvisited
    unvisited ^= level
    return level


def _step(level: Boards, rows: Cells, words: Boards) -> tuple[Cells, Boards]:
    """From one cell of each maze to the first of its neighbours down, left, right, up that is in `level`."""
    every = np.arange(len(level))
    down, up = level[every, rows + 1] & words, level[every, rows - 1] & words
    left, right = level[every, rows] & (words >> 1), level[every, rows] & (words << 1)
    choices = [down != 0, left != 0, right != 0]
    return rows + np.select(choices, [1, 0, 0], -1), np.select(choices, [down, left, right], up)


def _connected(boards: Boards, starts: Cells) -> Mask:
    """[B]: all cells of the board can be reached from the start over cells of the board."""
    front = _single(starts, boards)
    unvisited = boards & ~front
    while front.any():
        front = _next_level(front, unvisited)
    return np.logical_not(unvisited.any(axis=1))


def _neighbours(on: Mask) -> npt.NDArray[np.uint8]:
    """[B, n, n]: how many of a cell's four neighbours are on."""
    padded = np.pad(on.astype(np.uint8), ((0, 0), (1, 1), (1, 1)))
    count: npt.NDArray[np.uint8] = (
        padded[:, 2:, 1:-1] + padded[:, :-2, 1:-1] + padded[:, 1:-1, 2:] + padded[:, 1:-1, :-2]
    )
    return count


def _places(cells: Cells, like: Boards) -> tuple[Cells, Boards]:
    """The row of each cell and the word with its bit."""
    rows, columns = np.divmod(cells, like.shape[1] - 1)
    return rows, (np.uint64(1) << columns.astype(np.uint64)).astype(like.dtype)


def _single(cells: Cells, like: Boards) -> Boards:
    """Boards with one cell each."""
    boards = np.zeros_like(like)
    rows, words = _places(cells, like)
    boards[np.arange(len(like)), rows] = words
    return boards


def _uniform(chance: np.random.Philox, count: int) -> npt.NDArray[np.float64]:
    """Numbers >= 0 and < 1, from the bits themselves: these are the same in every numpy."""
    return (chance.random_raw(count) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _bernoulli(chance: np.random.Philox, share: npt.NDArray[np.float64], count: int) -> Mask:
    """[B, count]: each true with the probability `share` [B] of its row, in steps of 2^-16."""
    raw = chance.random_raw(-(-len(share) * count // 4)).astype("<u8").view("<u2")
    limits = (share * 2**16).astype(np.uint32)
    hits: Mask = raw[: len(share) * count].reshape(len(share), count) < limits[:, None]
    return hits
