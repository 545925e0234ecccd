"""Which candidate to use, for accuracy, speed and size: chosen on one half of the rows, tested once on the other.

A recommendation that the interval on the other half does not carry is none: then it says `cannot tell`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from analysis.checkpoints.candidate_pool import Candidate, Chooser
from analysis.checkpoints.row_intervals import Estimate

RELATIVE_MARGIN, SHARE_MARGIN = 0.01, 0.01
"""What may be lost for speed or size: 1 % of a loss, or one point of an accuracy."""
Use = Literal["accuracy", "speed", "size"]
Verdict = Literal["better", "no other is better", "as good", "none as good", "nothing to try", "cannot tell"]


@dataclass(frozen=True, slots=True)
class Recommendation:
    """For one use."""

    use: Use
    choice: str
    """The candidate to use. Where it cannot be told: a plain checkpoint, for every use the same."""
    verdict: Verdict
    tried: str
    """The candidate that was chosen on the first half; empty where none was worth a try."""
    against: str
    difference: Estimate | None
    """Tried minus against, by the objective, on the second half."""
    margin: float
    """What the tried one may lose; 0 where it has to be better."""
    saves: float
    """The share of FLOPs, or of bytes, that the tried one does without."""


def recommend(pool: Sequence[Candidate], choose: Chooser, groups: np.ndarray) -> list[Recommendation]:
    """For each use; none where nothing works. The first of the pool is the last checkpoint."""
    pool = [one for one in pool if one.works]
    singles = [one for one in pool if one.family == "checkpoint"]
    if not singles:
        return []
    best = min(singles, key=choose.cost)
    faster = [one for one in pool if one.family in ("depth", "halting") and one.flops < best.flops]
    smaller = [one for one in pool if one.family == "precision" and one.bytes < best.bytes]

    def worst(one: Candidate) -> float:
        return choose.bounds(choose.compare(one, best, groups, reports=False))[0]

    accurate = _most_accurate(pool, choose, groups)
    stay = pool[0].name if accurate.choice == pool[0].name else best.name
    return [
        accurate,
        _cheaper("speed", best, sorted(faster, key=lambda one: one.flops), choose, groups, stay),
        _cheaper("size", best, sorted(smaller, key=lambda one: (one.bytes, worst(one))), choose, groups, stay),
    ]


def _most_accurate(pool: Sequence[Candidate], choose: Chooser, groups: np.ndarray) -> Recommendation:
    last, others = pool[0], [one for one in pool[1:] if one.family != "precision"]
    if not others:
        return Recommendation("accuracy", last.name, "nothing to try", "", last.name, None, 0.0, 0.0)
    tried = min(others, key=lambda one: (choose.cost(one), one.flops, one.bytes))
    found = choose.compare(tried, last, groups, reports=True)
    worst, least = choose.bounds(found)
    if choose.cost(tried) >= choose.cost(last) or least > 0.0:
        return Recommendation("accuracy", last.name, "no other is better", tried.name, last.name, found, 0.0, 0.0)
    if worst < 0.0:
        return Recommendation("accuracy", tried.name, "better", tried.name, last.name, found, 0.0, 0.0)
    return Recommendation("accuracy", last.name, "cannot tell", tried.name, last.name, found, 0.0, 0.0)


def _cheaper(
    use: Use, best: Candidate, cheaper: Sequence[Candidate], choose: Chooser, groups: np.ndarray, stay: str
) -> Recommendation:
    """The cheapest that on the first half is certain to lose no more than the margin; the second half confirms it.

    If it does not, or there is none: `stay`.
    """
    share = choose.objective != "loss"
    margin = SHARE_MARGIN if share else RELATIVE_MARGIN * choose.value(best)
    for tried in cheaper:
        worst, _ = choose.bounds(choose.compare(tried, best, groups, reports=False))
        if worst > margin:
            continue
        found = choose.compare(tried, best, groups, reports=True)
        worst, least = choose.bounds(found)
        saves = 1.0 - (tried.flops / best.flops if use == "speed" else tried.bytes / best.bytes)
        verdict: Verdict = "as good" if worst <= margin else "none as good" if least > margin else "cannot tell"
        choice = tried.name if verdict == "as good" else stay
        return Recommendation(use, choice, verdict, tried.name, best.name, found, margin, saves)
    none: Verdict = "none as good" if cheaper else "nothing to try"
    return Recommendation(use, stay, none, "", best.name, None, margin, 0.0)
