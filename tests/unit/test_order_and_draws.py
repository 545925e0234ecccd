"""The order of rows and every random draw are functions of the seed and the place, of nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hrm.data.order import RowOrder
from hrm.nn.draws import Draws


def taken(order: RowOrder, refills: int, slots: np.ndarray) -> list[list[int]]:  # type: ignore[type-arg]
    return [order.rows(np.full(len(slots), k), slots).tolist() for k in range(refills)]


def test_every_row_comes_once_in_an_epoch_and_epochs_differ() -> None:
    order = RowOrder(num_rows=30, batch_size=6, seed=3)
    batches = taken(order, 10, np.arange(6))
    first, second = [row for b in batches[:5] for row in b], [row for b in batches[5:] for row in b]
    assert sorted(first) == sorted(second) == list(range(30))
    assert first != second


def test_the_order_does_not_depend_on_the_number_of_workers() -> None:
    whole = taken(RowOrder(17, 6, 0), 9, np.arange(6))
    left = taken(RowOrder(17, 6, 0), 9, np.arange(3))
    right = taken(RowOrder(17, 6, 0), 9, np.arange(3, 6))
    assert whole == [a + b for a, b in zip(left, right, strict=True)]


def test_the_order_resumes_at_any_refill() -> None:
    whole = taken(RowOrder(10, 4, 1), 12, np.arange(4))
    fresh = RowOrder(10, 4, 1)
    assert [fresh.rows(np.full(4, k), np.arange(4)).tolist() for k in range(7, 12)] == whole[7:]


def test_another_seed_is_another_order() -> None:
    assert taken(RowOrder(30, 6, 0), 5, np.arange(6)) != taken(RowOrder(30, 6, 1), 5, np.arange(6))


def test_a_draw_depends_on_seed_step_slot_and_count_only() -> None:
    whole = Draws(7, 11, torch.arange(8))
    part = Draws(7, 11, torch.arange(4, 8))
    x = torch.ones(8, 5, 6)
    for _ in range(3):
        assert torch.equal(whole.dropout(x, 0.3)[4:], part.dropout(x[4:], 0.3))
        assert torch.equal(whole.uniform()[4:], part.uniform())


@pytest.mark.parametrize("other", [(8, 11), (7, 12)])
def test_another_seed_or_step_is_another_draw(other: tuple[int, int]) -> None:
    assert not torch.equal(Draws(7, 11, torch.arange(64)).uniform(), Draws(*other, torch.arange(64)).uniform())


def test_dropout_drops_its_share_everywhere_and_keeps_the_mean() -> None:
    x = torch.ones(64, 50, 40)
    y = Draws(0, 1, torch.arange(64)).dropout(x, 0.1)
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


def test_evaluation_draws_nothing() -> None:
    x = torch.randn(2, 3)
    assert Draws.none().dropout(x, 0.9) is x
