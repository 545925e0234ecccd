"""Which rows a step offers to the slots of the global batch: a function of the seed and the place, of nothing else.

So a training resumes at any step, and the number of workers changes nothing: every worker computes the same global
batch and takes its slots. `SequentialOrder` is ours; `OriginalOrder` is the loader of sapientinc/HRM, row by row.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt
import torch

from hrm.errors import Problem, SpecError

if TYPE_CHECKING:
    from hrm.data.dataset import Rows
    from hrm.trial import TrialSpec

Indices = npt.NDArray[np.int64]
BATCHES_PER_ITERATION = 100
"""How many batches an iteration of `OriginalOrder` holds at least where its epochs are not given."""


class RowOrder(Protocol):
    """The order of rows of one split under one global batch size and one seed."""

    def rows(self, step: int, refills: Indices, slots: Indices) -> Indices:
        """The row numbers [B] that `step` (from 0) offers to `slots` [B], which were refilled `refills` [B] times."""


def row_order(rows: Rows, trial: TrialSpec) -> RowOrder:
    """The order that `trial.sampling` names."""
    if trial.sampling == "sequential":
        return SequentialOrder(len(rows), trial.batch_size, trial.seed)
    boundaries = rows.puzzle_indices, rows.group_indices
    return OriginalOrder(*boundaries, trial.batch_size, trial.seed, trial.epochs_per_iteration)


class SequentialOrder:
    """Every row once per epoch, none discarded, a new shuffle each epoch.

    Slot g of a global batch of B takes, at its k-th refill, the row at place k*B + g of an endless sequence of shuffled
    epochs: the cursor is the count of refills per slot.
    """

    def __init__(self, num_rows: int, batch_size: int, seed: int) -> None:
        self.num_rows, self.batch_size, self.seed = num_rows, batch_size, seed
        self._shuffles: dict[int, Indices] = {}

    def rows(self, step: int, refills: Indices, slots: Indices) -> Indices:
        """See `RowOrder`; `step` does not matter."""
        epochs, places = np.divmod(refills * self.batch_size + slots, self.num_rows)
        present = np.unique(epochs)
        # Slots drift apart, and a small split has many epochs in a batch: keep just those that are in use.
        self._shuffles = {epoch: self._shuffle(epoch) for epoch in present.tolist()}
        rows = np.empty_like(places)
        for epoch, shuffle in self._shuffles.items():
            here = epochs == epoch
            rows[here] = shuffle[places[here]]
        return rows

    def _shuffle(self, epoch: int) -> Indices:
        if epoch in self._shuffles:
            return self._shuffles[epoch]
        return np.random.Generator(np.random.Philox(key=[self.seed, epoch])).permutation(self.num_rows)


class OriginalOrder:
    """The original's batches: per epoch every group in a shuffled order, of each one random puzzle, all its examples.

    Epochs run on without a seam within an iteration (in the original: up to an evaluation); the puzzle that overfills
    a batch loses its surplus, and an iteration's last, incomplete batch is dropped. Groups and puzzles come from
    Philox(seed + iteration), examples within a puzzle from one legacy generator for the whole training
    (`first_worker_generator`): a resume replays it from the start, at some microseconds per puzzle of several examples.
    """

    def __init__(
        self,
        puzzle_indices: Indices,
        group_indices: Indices,
        batch_size: int,
        seed: int,
        epochs_per_iteration: int | None = None,
    ) -> None:
        self.puzzles, self.groups = puzzle_indices.astype(np.int64), group_indices.astype(np.int64)
        self.num_groups = len(group_indices) - 1
        self.batch_size, self.seed = batch_size, seed
        self.epochs = epochs_per_iteration or -(-BATCHES_PER_ITERATION * batch_size // self.num_groups)
        self._refuse_iterations_without_a_batch()
        self._batches = self._all_batches()
        self._batch: Indices = np.empty(0, dtype=np.int64)
        self._step = -1  # of `_batch`

    def steps(self, epochs: int) -> int:
        """How many steps the original gives to a training of `epochs`.

        From the mean size of all puzzles: the batches of that many epochs may be a few less.
        """
        mean_puzzle_examples = self.puzzles[-1] / (len(self.puzzles) - 1)
        return int(epochs * self.num_groups * mean_puzzle_examples / self.batch_size)

    def rows(self, step: int, refills: Indices, slots: Indices) -> Indices:
        """See `RowOrder`; `refills` do not matter: a row offered to a slot that has not halted is discarded."""
        if step < self._step:
            self._batches, self._step = self._all_batches(), -1
        while self._step < step:
            self._batch = next(self._batches)
            self._step += 1
        return self._batch[slots]

    def _all_batches(self) -> Iterator[Indices]:
        choices = self._example_generator()
        for iteration in count(1):
            yield from self._iteration(iteration, choices)

    def _iteration(self, number: int, choices: np.random.RandomState) -> Iterator[Indices]:
        rng = np.random.Generator(np.random.Philox(seed=self.seed + number))
        order = np.concatenate([rng.permutation(self.num_groups) for _ in range(self.epochs)])
        puzzles = rng.integers(self.groups[order], self.groups[order + 1])
        starts = self.puzzles[puzzles]
        sizes = self.puzzles[puzzles + 1] - starts
        ends = np.cumsum(sizes)
        first, shown = 0, 0
        while first < len(ends):
            stop = int(np.searchsorted(ends, shown + self.batch_size)) + 1
            batch = _examples(starts[first:stop], sizes[first:stop], choices)[: self.batch_size]
            if len(batch) < self.batch_size:
                return  # after its draws: the next iteration goes on where they end
            yield batch
            first, shown = stop, int(ends[stop - 1])

    def _example_generator(self) -> np.random.RandomState:
        return first_worker_generator(self.seed)

    def _refuse_iterations_without_a_batch(self) -> None:
        largest = np.maximum.reduceat(np.diff(self.puzzles), self.groups[:-1]).sum()
        if largest * self.epochs < self.batch_size:
            rule = f"{self.epochs} epochs of at most {largest} rows never fill a batch of {self.batch_size}"
            raise SpecError(Problem("sampling: original", rule, "Lower batch_size or take more epochs per iteration"))


def _examples(starts: Indices, sizes: Indices, choices: np.random.RandomState) -> Indices:
    """All examples of the puzzles, each puzzle's shuffled."""
    if sizes.max() == 1:
        return starts
    shuffled = [start + choices.permutation(size) for start, size in zip(starts, sizes, strict=True)]
    return np.concatenate(shuffled)


def first_worker_generator(seed: int) -> np.random.RandomState:
    """numpy's global generator as it is in the loader process of the original's rank 0.

    The original never seeds it, but PyTorch does in every loader worker, from the first number that the CPU generator
    gives after `manual_seed(seed)` (models are initialised on the GPU). The original's further ranks draw from
    `seed + rank` and disagree about the global batch; here all follow the first.
    """
    generator = torch.Generator().manual_seed(seed)
    base = int(torch.empty((), dtype=torch.int64).random_(generator=generator))
    words = np.random.SeedSequence([0, base & 0xFFFFFFFF, base >> 32, 0]).generate_state(4)
    return np.random.RandomState(words)
