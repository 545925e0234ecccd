"""Spaces whose configurations can be counted: every one of them once, in an order drawn from a seed."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

MOST = 100_000
"""Configurations that are gone through, of a space that has more."""


def size(distributions: Mapping[str, BaseDistribution]) -> int | None:
    """How many configurations there are; None where a float has no step."""
    counts = [_values(distribution) for distribution in distributions.values()]
    return None if None in counts else math.prod(len(values or ()) for values in counts)


def shuffled(distributions: Mapping[str, BaseDistribution], seed: int) -> Iterator[dict[str, Any]]:
    """Every configuration once (at most MOST of them); nothing where they cannot be counted."""
    number = size(distributions)
    if number is None:
        return
    values = {path: _values(distributions[path]) or () for path in sorted(distributions)}
    for index in random.Random(seed).sample(range(number), min(number, MOST)):
        rest, parameters = index, {}
        for path, choices in values.items():
            rest, place = divmod(rest, len(choices))
            parameters[path] = choices[place]
        yield parameters


def exact(distribution: BaseDistribution, value: Any) -> Any:
    """A value without the rounding of float steps: 0.3 for 0.1 + 2 * 0.1."""
    if isinstance(distribution, FloatDistribution) and distribution.step is not None:
        return _after(distribution, round((value - distribution.low) / distribution.step))
    return value


def _values(distribution: BaseDistribution) -> Sequence[Any] | None:
    match distribution:
        case CategoricalDistribution():
            return distribution.choices
        case IntDistribution():
            return range(distribution.low, distribution.high + 1, distribution.step)
        case FloatDistribution() if distribution.low == distribution.high:
            return [distribution.low]
        case FloatDistribution() if distribution.step is not None:
            steps = round((distribution.high - distribution.low) / distribution.step)  # Optuna has trimmed `high`
            return [_after(distribution, i) for i in range(steps + 1)]
    return None


def _after(distribution: FloatDistribution, steps: int) -> float:
    return float(Decimal(str(distribution.low)) + steps * Decimal(str(distribution.step)))
