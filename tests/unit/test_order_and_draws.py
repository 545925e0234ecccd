"""The order of rows and every random draw are functions of the seed and the place, of nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from hrm.data.order import OriginalOrder, RowOrder, SequentialOrder, first_worker_generator
from hrm.errors import SpecError
from hrm.nn.draws import Draws, dropout


def taken(order: RowOrder, steps: int, slots: np.ndarray) -> list[list[int]]:
    """The rows of the first steps if every slot halts at every step."""
    return [order.rows(k, np.full(len(slots), k), slots).tolist() for k in range(steps)]


def grouped(batch_size: int, seed: int = 0, epochs: int | None = None) -> OriginalOrder:
    """4 groups of 1 to 4 puzzles of 1 to 3 rows: 10 puzzles, 19 rows."""
    puzzles = np.array([0, 1, 3, 6, 7, 9, 12, 13, 15, 18, 19])
    return OriginalOrder(puzzles, np.array([0, 1, 3, 6, 10]), batch_size, seed, epochs)


ORDERS = [
    pytest.param(lambda seed: SequentialOrder(17, 6, seed), id="sequential"),
    pytest.param(lambda seed: SequentialOrder(4, 6, seed), id="sequential, a batch larger than the data"),
    pytest.param(lambda seed: grouped(6, seed), id="original"),
    pytest.param(lambda seed: grouped(50, seed), id="original, a batch larger than the data"),
]
Make = Callable[[int], RowOrder]


def test_every_row_comes_once_in_an_epoch_and_epochs_differ() -> None:
    order = SequentialOrder(num_rows=30, batch_size=6, seed=3)
    batches = taken(order, 10, np.arange(6))
    first, second = [row for b in batches[:5] for row in b], [row for b in batches[5:] for row in b]
    assert sorted(first) == sorted(second) == list(range(30))
    assert first != second


def test_a_batch_larger_than_the_data_holds_every_row_equally_often() -> None:
    rows = np.array(taken(SequentialOrder(num_rows=3, batch_size=60, seed=0), 2, np.arange(60)))
    assert [np.bincount(batch).tolist() for batch in rows] == [[20, 20, 20]] * 2
    assert len(set(map(tuple, rows.reshape(-1, 3)))) == 6  # every order of three rows: each epoch has its own


def test_slots_that_drifted_many_epochs_apart_shuffle_each_epoch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    order = SequentialOrder(num_rows=10, batch_size=8, seed=0)
    refills, slots = np.arange(8) * 10, np.arange(8)
    once = order.rows(0, refills, slots)
    monkeypatch.setattr(np.random, "Philox", None)
    assert (order.rows(1, refills, slots) == once).all()


@pytest.mark.parametrize("make", ORDERS)
def test_the_order_does_not_depend_on_the_number_of_workers(make: Make) -> None:
    whole = taken(make(0), 9, np.arange(6))
    left, right = taken(make(0), 9, np.arange(3)), taken(make(0), 9, np.arange(3, 6))
    assert whole == [a + b for a, b in zip(left, right, strict=True)]


@pytest.mark.parametrize("make", ORDERS)
def test_the_order_resumes_at_any_step(make: Make) -> None:
    whole = taken(make(1), 40, np.arange(6))
    for step in (39, 7, 21):
        assert make(1).rows(step, np.full(6, step), np.arange(6)).tolist() == whole[step]


@pytest.mark.parametrize("make", ORDERS)
def test_another_seed_is_another_order(make: Make) -> None:
    assert taken(make(0), 5, np.arange(6)) != taken(make(1), 5, np.arange(6))


def test_the_original_order_takes_one_random_puzzle_of_each_group_per_epoch() -> None:
    groups = np.array([0, 1, 3, 6, 10])
    order = OriginalOrder(np.arange(11), groups, batch_size=4, seed=0)  # a row per puzzle: a batch is an epoch
    batches = taken(order, 200, np.arange(4))
    assert all(sorted(np.searchsorted(groups, batch, side="right")) == [1, 2, 3, 4] for batch in batches)
    assert np.bincount(np.concatenate(batches)).min() > 30  # of 50 expected
    assert len({tuple(np.searchsorted(groups, batch, side="right")) for batch in batches}) == 24


def test_the_original_order_gives_all_rows_of_a_puzzle_in_random_order() -> None:
    order = grouped(batch_size=10, epochs=1)  # 10: what an epoch of the largest puzzles holds
    batches = taken(order, 10, np.arange(10))
    for batch in batches:
        puzzles = set(np.searchsorted(order.puzzles, batch, side="right") - 1)
        assert sorted(batch) == [row for p in sorted(puzzles) for row in range(order.puzzles[p], order.puzzles[p + 1])]
    assert any(batch.index(3) > batch.index(4) for batch in batches)
    assert any(batch.index(3) < batch.index(4) for batch in batches)


def one_puzzle_at_a_time(order: OriginalOrder, iterations: int) -> list[list[int]]:
    """The original's batches, drawn as its text says: the last, short batch of an iteration draws and is dropped."""
    batches, choices = [], first_worker_generator(order.seed)
    for iteration in range(1, iterations + 1):
        rng = np.random.Generator(np.random.Philox(seed=order.seed + iteration))
        groups = [group for _ in range(order.epochs) for group in rng.permutation(order.num_groups)]
        batch: list[int] = []
        for group in groups:
            puzzle = rng.integers(order.groups[group], order.groups[group + 1])
            first, size = order.puzzles[puzzle], order.puzzles[puzzle + 1] - order.puzzles[puzzle]
            room = min(size, order.batch_size - len(batch))
            batch += (first + choices.choice(size, room, replace=False)).tolist()
            if len(batch) == order.batch_size:
                batches.append(batch)
                batch = []
    return batches


@pytest.mark.parametrize("batch_size", [1, 6, 11])
def test_the_original_order_is_what_its_plain_loop_gives_over_many_iterations(batch_size: int) -> None:
    order = grouped(batch_size, seed=5, epochs=3)
    expected = one_puzzle_at_a_time(order, iterations=20)
    assert len(expected) >= 20
    assert taken(order, len(expected), np.arange(batch_size)) == expected


def test_an_iteration_that_never_fills_a_batch_is_refused() -> None:
    with pytest.raises(SpecError, match="2 epochs of at most 10 rows never fill a batch of 23"):
        grouped(batch_size=23, epochs=2)


def test_a_draw_depends_on_seed_step_slot_and_count_only() -> None:
    whole, part = Draws(7, 11, torch.arange(8)), Draws(7, 11, torch.arange(4, 8))
    x = torch.ones(8, 5, 6)
    drawn = []
    for _ in range(3):
        keys, part_keys = whole.keys(2), part.keys(2)
        for which in range(2):
            drawn.append(dropout(x, 0.3, keys, which))
            assert torch.equal(drawn[-1][4:], dropout(x[4:], 0.3, part_keys, which))
        assert torch.equal(whole.uniform()[4:], part.uniform())
        assert torch.equal(whole.normal((3, 2))[4:], part.normal((3, 2)))
        assert torch.equal(whole.spread(2).uniform()[8:], part.spread(2).uniform())
    assert not any(torch.equal(one, two) for n, one in enumerate(drawn) for two in drawn[:n])


@pytest.mark.parametrize("other", [(8, 11), (7, 12)])
def test_another_seed_or_step_is_another_draw(other: tuple[int, int]) -> None:
    assert not torch.equal(Draws(7, 11, torch.arange(64)).uniform(), Draws(*other, torch.arange(64)).uniform())


def test_dropout_drops_its_share_everywhere_and_keeps_the_mean() -> None:
    x = torch.ones(64, 50, 40)
    y = dropout(x, 0.1, Draws(0, 1, torch.arange(64)).keys(1), 0)
    kept = y != 0
    assert abs(float(kept.float().mean()) - 0.9) < 0.003
    assert abs(float(y.mean()) - 1.0) < 0.004
    by_place = kept.float().mean(0)
    assert float(by_place.min()) > 0.7  # 64 draws each: five standard deviations
    assert abs(float(torch.corrcoef(kept.flatten(1).float()[:2])[0, 1])) < 0.1  # rows are independent


def test_uniform_and_integers_cover_their_ranges() -> None:
    draws = Draws(0, 1, torch.arange(4000))
    u = draws.uniform()
    assert 0.0 <= float(u.min()) < 0.01
    assert 0.99 < float(u.max()) < 1.0
    assert abs(float(u.mean()) - 0.5) < 0.03
    assert draws.integers(2, 5).unique().tolist() == [2, 3, 4, 5]


def test_normal_is_standard_normal_everywhere() -> None:
    x = Draws(0, 1, torch.arange(400)).normal((10, 30))
    assert abs(float(x.mean())) < 0.01
    assert abs(float(x.std()) - 1.0) < 0.01
    assert abs(float((x.abs() < 1).float().mean()) - 0.6827) < 0.005
    assert float(x.flatten(1).mean(0).abs().max()) < 0.25  # 400 draws each: five standard deviations
    assert x.isfinite().all()


def test_truncated_normal_ends_at_two_sigma_and_has_a_deviation_of_one() -> None:
    x = Draws(0, 1, torch.arange(400)).truncated_normal((10, 30))
    sigma = 1 / 0.8796  # a standard normal distribution cut at two has this deviation
    assert 0.999 * 2 * sigma < float(x.abs().max()) < 1.0001 * 2 * sigma
    assert abs(float(x.mean())) < 0.01
    assert abs(float(x.std()) - 1.0) < 0.01
    assert abs(float((x.abs() < sigma).float().mean()) - 0.6827 / 0.9545) < 0.005


def test_copies_of_a_slot_draw_apart() -> None:
    u = Draws(0, 1, torch.arange(50)).spread(4).uniform()
    assert len(u) == len(u.unique()) == 200


def test_an_evaluation_drops_nothing() -> None:
    x = torch.randn(2, 3)
    assert dropout(x, 0.9, Draws(0, 1, torch.arange(2), training=False).keys(1), 0) is x
