"""Random numbers of rows: functions of the key, as random as they look, the same for ever."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from hrm.data.keys import draws, integers, mixed, permutations, row_keys


def test_the_mixer_is_splitmix64() -> None:
    golden = np.uint64(0x9E3779B97F4A7C15)
    numbers = mixed(np.arange(1, 4, dtype=np.uint64) * golden)  # the published generator's first three from seed 0
    assert [hex(number) for number in numbers.tolist()] == [
        "0xe220a8397b1dcdaf",
        "0x6e789e6aa1b965f4",
        "0x6c45d188009454f",
    ]


def test_a_key_depends_on_the_seed_and_every_column_and_their_order() -> None:
    rows = np.arange(12).reshape(4, 3)
    keys = [
        row_keys(0, rows),
        row_keys(1, rows),
        row_keys(0, rows, np.arange(4)),
        row_keys(0, np.arange(4), rows),
        row_keys(0, rows[:, ::-1]),
    ]
    assert len(set(np.concatenate(keys).tolist())) == 4 * len(keys)
    assert row_keys(1, np.array([2]))[0] != row_keys(2, np.array([1]))[0]
    np.testing.assert_array_equal(row_keys(0, rows)[2:], row_keys(0, rows[2:]))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64])
def test_a_key_is_of_the_values_and_not_of_their_type(dtype: type[np.signedinteger]) -> None:
    rows = np.array([[-100, 1, 2], [3, 4, 5]])
    np.testing.assert_array_equal(row_keys(7, rows.astype(dtype)), row_keys(7, rows))


def test_draws_are_uniform_and_a_longer_stream_begins_with_the_shorter() -> None:
    keys = row_keys(3, np.arange(20_000))
    numbers = draws(keys, 4)
    np.testing.assert_array_equal(draws(keys, 2), numbers[:, :2])
    for column in integers(numbers, 10).T:
        counts = np.bincount(column, minlength=10)
        assert (np.abs(counts - 2000) < 6 * np.sqrt(1800)).all()
    assert abs(np.corrcoef(numbers[:, 0].astype(float), numbers[:, 1].astype(float))[0, 1]) < 0.04


def test_all_permutations_come_equally_often() -> None:
    found = Counter(map(tuple, permutations(draws(row_keys(0, np.arange(24_000)), 4)).tolist()))
    assert len(found) == 24
    assert all(abs(count - 1000) < 6 * np.sqrt(1000) for count in found.values())
