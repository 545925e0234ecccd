"""What could be used of a training: its checkpoints, their averages and ensembles, other depths, half precision."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from analysis.checkpoints.behaviour import Subject
from analysis.checkpoints.measuring import Measured, Scales, Weights
from analysis.checkpoints.row_intervals import Estimate, Sums, difference
from analysis.numbers import plural

MEMBERS = 5
"""The most checkpoints that an ensemble asks."""
DEEPER = 2
"""Times as many segments as were trained."""


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """Something that could be used, and what it did on all rows."""

    name: str
    family: str
    """`checkpoint`, `raw`, `average`, `ensemble`, `depth`, `halting`, `precision`."""
    found: Measured
    segment: int | np.ndarray
    """The segment [N] that answers, from 0."""
    flops: float
    """Forward FLOPs of a row."""
    bytes: int
    """Of its weights."""

    @property
    def works(self) -> bool:
        """False where a loss is not finite: weights are not, or what is computed with them."""
        return bool(np.isfinite(self.found.metric("loss", self.segment).sums).all())


class Chooser:
    """Compares by one metric, on the half of the rows that choices are made on, or on the other."""

    def __init__(self, objective: str, maximise: bool, rows: np.ndarray) -> None:
        """rows [N] bool: those to choose by."""
        self.objective, self.rows = objective, rows
        self._sign = -1.0 if maximise else 1.0

    def value(self, one: Candidate) -> float:
        """The metric where choices are made."""
        return self._metric(one).of(self.rows).value

    def cost(self, one: Candidate) -> float:
        """The same, less being better; infinite for what is broken."""
        return self._sign * self.value(one) if one.works else math.inf

    def compare(self, first: Candidate, second: Candidate, groups: np.ndarray, *, reports: bool) -> Estimate:
        """The first's metric minus the second's, paired by row."""
        rows = ~self.rows if reports else self.rows
        return difference(self._metric(first).of(rows), self._metric(second).of(rows), groups[rows])

    def bounds(self, found: Estimate) -> tuple[float, float]:
        """How much a difference costs at worst, and at least, with less being better; infinite where it is unknown."""
        if found.low is None or found.high is None:
            return math.inf, -math.inf
        low, high = sorted((self._sign * found.low, self._sign * found.high))
        return high, low

    def _metric(self, one: Candidate) -> Sums:
        return one.found.metric(self.objective, one.segment)


def pool_of(
    subjects: Sequence[Subject], measured: Mapping[str, Measured], scales: Scales, choose: Chooser
) -> list[Candidate]:
    """Every candidate of one training, measured; the checkpoints come first, the last one before all.

    subjects: in the order of steps. measured: they on the same rows, by label.
    """
    size = sum(tensor.numel() * 4 for tensor in subjects[0].weights().values())
    make = _Maker(scales, scales.flops_per_segment * scales.segments, size)
    singles = {one.label: make.plain(one.label, "checkpoint", measured[one.label]) for one in reversed(subjects)}
    ranked = sorted(subjects, key=lambda one: choose.cost(singles[one.label]))
    last, best = subjects[-1], ranked[0]
    raw = {one.label: one.raw() for one in (last, best) if one.raw is not None}
    pool = [*singles.values()]
    pool += [make.plain(f"{name}, as trained", "raw", scales.measure(weights)) for name, weights in raw.items()]
    if len(subjects) > 1:
        pool += [make.average(subjects), *make.soup(ranked, singles[best.label], choose), *make.ensembles(ranked)]
    pool += make.depths(best, measured[best.label], choose)
    return pool + [make.rounded(best, dtype) for dtype in (torch.float16, torch.bfloat16)]


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes and measures candidates."""

    scales: Scales
    flops: float
    """Of a row at full depth."""
    bytes: int
    """Of one checkpoint's weights in float32."""

    def plain(self, name: str, family: str, found: Measured) -> Candidate:
        """One set of weights at full depth."""
        return Candidate(name, family, found, -1, self.flops, self.bytes)

    def average(self, subjects: Sequence[Subject]) -> Candidate:
        """The mean of all weights."""
        mean = RunningMean()
        for subject in subjects:
            mean.add(subject.weights())
        return self.plain(f"average of all {len(subjects)}", "average", self.scales.measure(mean.weights))

    def soup(self, ranked: Sequence[Subject], best: Candidate, choose: Chooser) -> list[Candidate]:
        """The greedy soup (Wortsman et al. 2022): from the best on, each checkpoint that helps is averaged in."""
        mean, members = RunningMean(), 1
        mean.add(ranked[0].weights())
        for subject in ranked[1:]:
            weights = subject.weights()
            found = self.scales.measure(mean.with_one_more(weights))
            tried = self.plain(f"greedy average of {members + 1} of {len(ranked)}", "average", found)
            if choose.cost(tried) < choose.cost(best):
                mean.add(weights)
                best, members = tried, members + 1
        return [best] if members > 1 else []

    def ensembles(self, ranked: Sequence[Subject]) -> list[Candidate]:
        """The mean of the probabilities of the best two, and of up to `MEMBERS`."""
        weights = [one.weights() for one in ranked[:MEMBERS]]
        found = {count: self.scales.ensemble(weights[:count]) for count in sorted({2, len(weights)})}
        return [
            Candidate(f"ensemble of the best {count}", "ensemble", one, -1, count * self.flops, count * self.bytes)
            for count, one in found.items()
        ]

    def depths(self, best: Subject, found: Measured, choose: Chooser) -> list[Candidate]:
        """The best checkpoint with fewer segments, ended by its own Q, and with up to `DEEPER` times as many."""
        once = self.flops / found.segments

        def at_depth(one: Measured, at: int) -> Candidate:
            return Candidate(
                f"{best.label} with {plural(at + 1, 'segment')}", "depth", one, at, once * (at + 1), self.bytes
            )

        made = [at_depth(found, at) for at in range(found.segments - 1)]
        if found.halts is not None and found.segments > 1 and self.scales.trial.model.halting_rule().rule != "none":
            mean = float(found.halts.mean())
            name = f"{best.label}, ended by its Q"
            made.append(Candidate(name, "halting", found, found.halts - 1, once * mean, self.bytes))
        if found.residuals:
            deeper = self.scales.measure(best.weights(), segments=DEEPER * found.segments)
            more = [at_depth(deeper, at) for at in range(found.segments, deeper.segments)]
            made += list(dict.fromkeys([min(more, key=choose.cost), more[-1]]))
        return made

    def rounded(self, best: Subject, dtype: torch.dtype) -> Candidate:
        """The best checkpoint, its weights stored in two bytes each."""
        weights = {name: tensor.to(dtype).float() for name, tensor in best.weights().items()}
        name = f"{best.label} in {str(dtype).removeprefix('torch.')}"
        return Candidate(name, "precision", self.scales.measure(weights), -1, self.flops, self.bytes // 2)


class RunningMean:
    """The mean of sets of weights, in float32."""

    def __init__(self) -> None:
        self.weights: dict[str, Tensor] = {}
        self._count = 0

    def with_one_more(self, weights: Weights) -> dict[str, Tensor]:
        """As it would be."""
        share = 1.0 / (self._count + 1)
        return {
            name: mean.float().lerp(weights[name].float(), share) for name, mean in (self.weights or weights).items()
        }

    def add(self, weights: Weights) -> None:
        """Take one in."""
        self.weights, self._count = self.with_one_more(weights), self._count + 1
