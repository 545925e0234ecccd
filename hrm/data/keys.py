"""Random numbers of rows as functions of (seed, row, form): vectorised, stateless, the same wherever they are drawn.

`row_keys` makes one key of each row; `draws` is a stream of numbers for each key. A row's numbers depend neither on
the rows beside it nor on how many are drawn, so that a row made on the fly equals the row that a builder stored.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Words = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.integer]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def mixed(x: Words) -> Words:
    """The finalizer of splitmix64 (Steele et al. 2014): a bijection of 64-bit words, whose bits look random."""
    x = (x ^ (x >> np.uint64(30))) * _FIRST
    x = (x ^ (x >> np.uint64(27))) * _SECOND
    return x ^ (x >> np.uint64(31))


def row_keys(seed: int, *columns: Integers) -> Words:
    """[N]: a key of the seed and of each row of `columns`, integers [N] or [N, K] (the content of a row).

    0 <= seed < 2**64. Equal rows have equal keys; the order of the columns counts.
    """
    key = mixed(np.array([seed], dtype=np.uint64) + _GOLDEN)
    for column in columns:
        words = column.astype(np.int64, copy=False).view(np.uint64)
        if words.ndim == 2:  # einsum: numpy's matrix product of integers is eight times slower
            words = np.einsum("nk,k->n", words, mixed(_counters(words.shape[1])) | np.uint64(1))
        key = mixed(key * _FIRST + mixed(words + _GOLDEN))  # a plain sum would not tell (1, 2) from (2, 1)
    return key


def draws(keys: Words, count: int) -> Words:
    """[N, count]: the first `count` numbers of each key [N], uniform over 0 .. 2**64 - 1."""
    return mixed(keys[:, None] + _counters(count))


def integers(numbers: Words, bound: int) -> npt.NDArray[np.int64]:
    """Draws of any shape as whole numbers, uniform over 0 .. bound - 1 (to within bound / 2**64)."""
    return (numbers % np.uint64(bound)).astype(np.int64)


def permutations(numbers: Words) -> npt.NDArray[np.int64]:
    """Draws [..., K] as permutations of 0 .. K - 1 along the last axis."""
    return numbers.argsort(axis=-1, kind="stable")


def _counters(count: int) -> Words:
    return np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN
