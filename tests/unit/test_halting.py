"""The rules that end a row, against the formula: halted = t >= max, or Q says so and t >= t_min."""

from __future__ import annotations

import torch

from hrm.nn.draws import Draws
from hrm.nn.halting import HaltingSpec, halted_rows


def q(*pairs: tuple[float, float]) -> torch.Tensor:
    return torch.tensor(pairs)


def draws(count: int = 4) -> Draws:
    return Draws(0, 1, torch.arange(count))


def test_without_a_rule_rows_end_at_the_last_segment_only() -> None:
    spec = HaltingSpec(rule="none", segments=3)
    segments = torch.tensor([1, 2, 3, 3])
    assert halted_rows(spec, q((9, 0), (9, 0), (0, 9), (9, 0)), segments, draws()).tolist() == [
        False,
        False,
        True,
        True,
    ]


def test_each_rule_reads_q_its_own_way() -> None:
    values, segments = q((1, 2), (2, 1), (-1, -2), (-2, -1)), torch.ones(4, dtype=torch.int32)
    hrm = HaltingSpec(rule="q_with_target", segments=8, exploration=0.0)
    trm = HaltingSpec(rule="q", segments=8, exploration=0.0)
    assert halted_rows(hrm, values, segments, draws()).tolist() == [False, True, True, False]
    assert halted_rows(trm, values, segments, draws()).tolist() == [True, True, False, False]


def test_exploration_makes_its_share_of_rows_go_on() -> None:
    count = 4000
    spec = HaltingSpec(rule="q", segments=4, exploration=0.5)
    eager = torch.ones(count, 2)
    by_segment = [
        float(halted_rows(spec, eager, torch.full((count,), t), draws(count)).float().mean()) for t in range(1, 5)
    ]
    # t_min is 0 for half of the rows, else uniform over 2, 3, 4
    for found, expected in zip(by_segment, [0.5, 0.5 + 1 / 6, 0.5 + 2 / 6, 1.0], strict=True):
        assert abs(found - expected) < 0.04


def test_evaluation_takes_every_segment() -> None:
    spec = HaltingSpec(rule="q", segments=4, exploration=0.0)
    assert halted_rows(
        spec, q((9, 0), (9, 0)), torch.tensor([1, 4]), Draws(0, 0, torch.arange(2), training=False)
    ).tolist() == [False, True]
