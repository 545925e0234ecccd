"""Which row a slot takes next: a function of (seed, slot, how often the slot was refilled), nothing else.

Slot g of a global batch of B takes, at its k-th refill, the row at place k*B + g of an endless sequence of shuffled
epochs. The cursor of a training is therefore the count of refills per slot; it resumes at any step, and the order does
not depend on the number of workers.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


class RowOrder:
    """The order of `num_rows` rows for a global batch; every row once per epoch, a new shuffle each epoch."""

    def __init__(self, num_rows: int, batch_size: int, seed: int) -> None:
        self.num_rows, self.batch_size, self.seed = num_rows, batch_size, seed
        self._shuffles: dict[int, Indices] = {}

    def rows(self, refills: Indices, slots: Indices) -> Indices:
        """Row numbers for slots [B] that were refilled `refills` [B] times before."""
        epochs, places = np.divmod(refills * self.batch_size + slots, self.num_rows)
        rows = np.empty_like(places)
        for epoch in np.unique(epochs):
            here = epochs == epoch
            rows[here] = self._shuffle(int(epoch))[places[here]]
        return rows

    def _shuffle(self, epoch: int) -> Indices:
        if epoch not in self._shuffles:
            while len(self._shuffles) >= 4:
                self._shuffles.pop(next(iter(self._shuffles)))
            generator = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
            self._shuffles[epoch] = generator.permutation(self.num_rows)
        return self._shuffles[epoch]
