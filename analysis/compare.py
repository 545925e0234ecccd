"""The comparison of arms: the best against every other, from one value per arm and seed.

The seeds are few, so nothing here leans on large samples. Every arm is run with the same seeds and differences are
taken seed by seed, so that what a seed does to all arms alike (the order of the data) does not blur them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from analysis.effects import Effect, effect, is_better, over_all_pairs
from analysis.intervals import Array, Direction, Mean, mean_interval

DRAWS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference(Effect):
    """`best` minus `other`, paired by seed. Without two common seeds there is no interval and no p."""

    best: str
    other: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """The best arm against every other."""

    best: str
    means: dict[str, Mean]
    differences: list[Difference]
    decided: bool
    """The best arm beats every other with adjusted p < 0.05. False where there is no other."""


def compare(arms: Mapping[str, Mapping[int, float]], direction: Direction) -> Comparison:
    """The arm with the best mean against every other, from one value per arm and seed.

    Each difference is the mean over the common seeds with interval and p (`analysis.effects`); Holm's correction is
    over all pairs of arms, since the best was chosen by the same values: a single line of the table, read alone, is
    false in at most 5 % of sweeps, too. An arm that shares no two seeds with the best leaves all undecided.
    """
    means = {name: mean_interval(list(values.values())) for name, values in arms.items()}
    sign = 1.0 if direction == "minimize" else -1.0
    best = min(means, key=lambda name: sign * means[name].mean)
    differences = over_all_pairs(
        [
            Difference(best=best, other=other, **asdict(effect(arms[best], values, direction)))
            for other, values in arms.items()
            if other != best
        ]
    )
    decided = bool(differences) and all(is_better(difference, direction) for difference in differences)
    return Comparison(best, means, differences, decided)


def probability_best(
    arms: Mapping[str, Sequence[float]], direction: Direction, seed: int = 0, draws: int = DRAWS
) -> dict[str, float] | None:
    """For each arm, the share of seeded Monte Carlo draws in which its mean is the best of all.

    Each draw takes every arm's mean from an independent scaled t: mean + s / sqrt(n) * t(n-1), the posterior of a
    normal mean under the flat prior. The pairing is not used. None for fewer than two arms, or where one has one seed.
    """
    if len(arms) < 2 or any(len(values) < 2 for values in arms.values()):
        return None
    random = np.random.default_rng(seed)
    drawn = np.stack([posterior(np.asarray(values, dtype=np.float64), random, draws) for values in arms.values()])
    best = drawn.min(axis=0) if direction == "minimize" else drawn.max(axis=0)
    winners = drawn == best
    shares = (winners / winners.sum(axis=0)).mean(axis=1)
    return {name: float(share) for name, share in zip(arms, shares, strict=True)}


def posterior(values: Array, random: np.random.Generator, draws: int) -> Array:
    """Draws of the mean of normal values under the flat prior."""
    n = len(values)
    noise = random.standard_t(n - 1, size=draws)
    return np.asarray(values.mean() + values.std(ddof=1) / np.sqrt(n) * noise)
