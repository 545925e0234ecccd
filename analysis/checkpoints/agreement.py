"""Do two checkpoints do the same? What they say, how their states are arranged, what lies between their weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from torch import Tensor

from analysis.checkpoints.measuring import Measured, Weights
from analysis.checkpoints.row_intervals import Estimate, Sums, interval, resamples

Array = npt.NDArray[np.float64]
RESAMPLES = 1000
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
MARGIN = 0.02
"""Of the loss of the two ends: below this Frankle et al. (2020) call two trainings linearly connected."""


@dataclass(frozen=True, slots=True)
class Barrier:
    """The loss along the straight line from the first's weights to the second's."""

    alphas: tuple[float, ...]
    losses: list[float]
    height: Estimate
    """The largest excess over the straight line between the two losses; below 0 where the way lies lower."""
    margin: float
    """Heights up to this one count as none."""
    rows: int

    @property
    def verdict(self) -> str:
        """A word: `barrier`, `none`, `cannot tell`."""
        if self.height.low is None or self.height.high is None:
            return "cannot tell"
        if self.height.low > self.margin:
            return "barrier"
        return "none" if self.height.high <= self.margin else "cannot tell"


@dataclass(frozen=True, slots=True)
class Pair:
    """Two checkpoints on the same rows, after the last segment."""

    first: str
    second: str
    same_tokens: Estimate
    """The share of scored positions of which both say the same."""
    same_rows: Estimate
    """The share of rows of which both say the same throughout."""
    solved: dict[str, int]
    """Rows by who solves them: `both`, `first`, `second`, `neither`."""
    alike: dict[str, float]
    """Linear CKA of the states, by name: 1 where one is a rotation of the other, about 0 where they are unrelated."""
    barrier: Barrier | None = None
    """None where it was not measured, or the two have not the same shape."""


def agreement(
    labels: tuple[str, str], first: Measured, second: Measured, groups: np.ndarray, barrier: Barrier | None = None
) -> Pair:
    """What two measurements on the same rows have in common."""
    same = ((first.predictions == second.predictions) & first.scored).sum(-1).astype(np.float64)
    one, other = first.exact[-1] > 0.0, second.exact[-1] > 0.0
    solved = {"both": one & other, "first": one & ~other, "second": other & ~one, "neither": ~one & ~other}
    states = first.states.keys() & second.states.keys()
    return Pair(
        *labels,
        same_tokens=interval(Sums(same, first.tokens, True), groups),
        same_rows=interval(Sums((same == first.tokens).astype(np.float64), np.ones(len(same)), True), groups),
        solved={who: int(rows.sum()) for who, rows in solved.items()},
        alike={name: linear_cka(first.states[name], second.states[name]) for name in sorted(states)},
        barrier=barrier,
    )


def linear_cka(first: np.ndarray, second: np.ndarray) -> float:
    """Linear centred kernel alignment of states [N, D] and [N, E] (Kornblith et al. 2019), with the unbiased HSIC.

    The plain one is near 1 for any two states that are wider than there are rows. NaN for fewer than four rows, or
    where a state is the same for all.
    """
    grams = [_gram(states.astype(np.float64)) for states in (first, second)]
    if len(first) < 4:
        return float("nan")
    both, one, other = _hsic(grams[0], grams[1]), _hsic(grams[0], grams[0]), _hsic(grams[1], grams[1])
    return both / float(np.sqrt(one * other)) if one > 0.0 and other > 0.0 else float("nan")


def _gram(states: Array) -> Array:
    centred = states - states.mean(axis=0)
    gram = np.asarray(centred @ centred.T)
    np.fill_diagonal(gram, 0.0)
    return gram


def _hsic(first: Array, second: Array) -> float:
    """Song et al. (2012), equation 5."""
    n = len(first)
    sums, others = first.sum(axis=0), second.sum(axis=0)
    middle = float(sums.sum() * others.sum()) / ((n - 1) * (n - 2))
    return (float((first * second).sum()) + middle - 2.0 / (n - 2) * float(sums @ others)) / (n * (n - 3))


def mixed(first: Weights, second: Weights, alpha: float) -> dict[str, Tensor]:
    """(1 - alpha) first + alpha second, in float32; what is no float is the first's."""
    return {
        name: tensor.float().lerp(second[name].float(), alpha) if tensor.is_floating_point() else tensor
        for name, tensor in first.items()
    }


def same_shapes(first: Weights, second: Weights) -> bool:
    """True if one's tensors can stand in for the other's."""
    return {name: t.shape for name, t in first.items()} == {name: t.shape for name, t in second.items()}


def barrier(
    measure: Callable[[Weights], Measured],
    weights: tuple[Weights, Weights],
    ends: tuple[Array, Array],
    groups: np.ndarray,
) -> Barrier:
    """The barrier between two sets of weights, whose own losses [N] are `ends`, on the rows that `measure` looks at."""
    found = [measure(mixed(*weights, alpha)) for alpha in ALPHAS[1:-1]]
    losses = np.stack([ends[0], *(one.losses[-1] for one in found), ends[1]])
    return barrier_of(losses, found[0].tokens, groups)


def barrier_of(losses: Array, tokens: Array, groups: np.ndarray) -> Barrier:
    """From losses [A, N] at `ALPHAS`. The bootstrap over groups finds the highest place anew in every resample."""
    number = np.unique(groups, return_inverse=True)[1]
    table = np.stack([np.bincount(number, weights=values) for values in (*losses, tokens)], axis=1)
    size = len(table)
    seen = table.sum(axis=0, keepdims=True)
    low, high = np.quantile(_heights(resamples(size, RESAMPLES) @ table), [0.025, 0.975])
    means = (seen[0, :-1] / seen[0, -1]).tolist()
    bounds = (float(low), float(high)) if size > 1 else (None, None)
    height = Estimate(float(_heights(seen)[0]), bounds[0], bounds[1], size)
    return Barrier(ALPHAS, means, height, MARGIN * (means[0] + means[-1]) / 2, len(tokens))


def _heights(sums: Array) -> Array:
    """[R] from sums [R, A+1], the last of which are tokens."""
    losses, alphas = sums[:, :-1] / np.maximum(sums[:, -1:], 1.0), np.array(ALPHAS)
    line = losses[:, :1] * (1.0 - alphas) + losses[:, -1:] * alphas
    return np.asarray((losses - line)[:, 1:-1].max(axis=1))


def pairs_to_compare(labels: Sequence[str], most: int) -> list[tuple[str, str]]:
    """Neighbours in the order given, and every other with the last, up to `most`: the latest first."""
    ends = [(labels[0], labels[-1])] if len(labels) > 1 else []
    neighbours = list(pairwise(labels))[::-1]
    others = [(one, labels[-1]) for one in labels[:-2]][::-1]
    return list(dict.fromkeys([*ends, *neighbours, *others]))[:most]
