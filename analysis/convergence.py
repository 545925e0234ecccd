"""Whether trainings have converged, from their validation curves: never from weights.

Flat is what an interval proves to be flat, not what fails to show a trend: the whole 95 % interval of the change over
the last third of the reports must lie within the margin. Where the reports do not tell, that is the verdict.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from analysis.autoregression import Array
from analysis.curves import telling
from analysis.intervals import Direction
from analysis.learning_curve import Band, Forecast, forecast
from analysis.numbers import plural, significant, together
from analysis.trend import LEAST_ALONE, LEAST_WINDOW, REPLICAS_FOR_T, Trend, jumps, trend_of

Verdict = Literal["improving", "flat", "overfitting", "unstable", "cannot tell"]

MARGIN = 0.01
"""A change over the last third below this share of the value is none worth a longer training."""
SHARE_MARGIN = 0.005
"""The same for a share of right answers, in the share itself: half a point."""
SHOWN = 400


@dataclass(frozen=True, slots=True)
class History:
    """What the reports of one training said."""

    key: str
    steps: Array
    values: Array
    """The objective's metric on validation."""
    training: Array | None = None
    """The mean training loss of the steps before each report; None where it is not known."""
    validation_loss: Array | None = None
    segments: int = 1
    """That a row gets: training averages over them, validation takes the last."""
    dropout: bool = False
    schedule: str = "constant"


@dataclass(frozen=True, slots=True)
class Gap:
    """Validation loss minus training loss."""

    validation: float
    training: float
    """At the last report; the training loss is a mean over the steps before it."""
    training_gain: float
    """How much lower the training loss got over the last third."""
    comparable: bool
    why_not: str
    """Why the two losses are not of one kind; empty where they are."""


@dataclass(frozen=True, slots=True)
class Convergence:
    """Of one training, or of the replicas of one configuration together."""

    name: str
    """The arm, or the key of the trial."""
    keys: list[str]
    metric: str
    direction: Direction
    reports: int
    value: float
    """At the last report, a mean over the trainings."""
    best: float
    best_report: int
    """Of the mean curve, from 1."""
    margin: float
    verdict: Verdict
    sentence: str
    trend: Trend | None = None
    forecast: Forecast | None = None
    gap: Gap | None = None
    unstable: list[str] = field(default_factory=list)
    """The trainings that got worse by a jump in their last third."""
    notes: list[str] = field(default_factory=list)
    """What the forecast rests on, and what was left out."""
    task: str = ""
    band: Band | None = None
    """The fitted curve, where there is a forecast; in the direction of the metric."""
    steps: list[float] = field(default_factory=list)
    """Of the mean curve, as many points as show its shape."""
    curve: list[float] = field(default_factory=list)


def judge(
    name: str,
    histories: Sequence[History],
    metric: str,
    direction: Direction,
    task: str = "",
    *,
    forecasts: bool = True,
) -> Convergence:
    """The verdict over trainings of one configuration. Those with another number of reports than most are left out."""
    used = _alike(histories)
    sign = 1.0 if direction == "minimize" else -1.0
    costs = np.stack([sign * history.values for history in used])
    mean = costs.mean(0)
    margin = _margin(costs, direction)
    trend, found = trend_of(costs), forecast(costs, _floor(costs, direction)) if forecasts else None
    gap = _gap(used)
    unstable = [history.key for history, cost in zip(used, costs, strict=True) if jumps(cost, margin)]
    verdict = _verdict(trend, margin, gap, 2 * len(unstable) >= len(used) and bool(unstable))
    best = int(mean.argmin())
    told = replace(found[0], ends_at=sign * found[0].ends_at) if found else None
    shown = telling(mean, SHOWN)
    return Convergence(
        name=name,
        keys=[history.key for history in used],
        metric=metric,
        direction=direction,
        reports=costs.shape[1],
        value=sign * float(mean[-1]),
        best=sign * float(mean[best]),
        best_report=best + 1,
        margin=margin,
        verdict=verdict,
        sentence=sentence(verdict, trend, gap, unstable, costs.shape, metric, direction, margin),
        trend=trend,
        forecast=told,
        gap=gap,
        unstable=unstable,
        notes=notes(histories, used, told, gap) + _loss_apart(used, metric, gap),
        task=task,
        band=_signed(found[1], sign) if found else None,
        steps=np.mean([history.steps for history in used], axis=0)[shown].tolist(),
        curve=(sign * mean)[shown].tolist(),
    )


def _verdict(trend: Trend | None, margin: float, gap: Gap | None, jumps: bool) -> Verdict:
    if trend is None:
        return "cannot tell"
    if trend.high < 0.0 and trend.low < -margin:
        if gap is None:
            return "cannot tell"
        return "overfitting" if gap.training_gain > 0.0 else "unstable"
    if jumps:
        return "unstable"
    if -margin <= trend.low and trend.high <= margin:
        return "flat"
    return "improving" if trend.low > 0.0 else "cannot tell"


def _alike(histories: Sequence[History]) -> list[History]:
    """Those of the most common number of reports; of the larger one where two are as common."""
    lengths = [len(history.values) for history in histories]
    length = max(set(lengths), key=lambda each: (lengths.count(each), each))
    return [history for history in histories if len(history.values) == length]


def _margin(costs: Array, direction: Direction) -> float:
    if direction == "maximize" and _is_share(costs):
        return SHARE_MARGIN
    return MARGIN * abs(float(costs[:, -1].mean()))


def _floor(costs: Array, direction: Direction) -> float:
    """Below which no curve can fall: a loss not below 0, a share not above 1."""
    if direction == "maximize" and _is_share(costs):
        return -1.0
    return 0.0 if direction == "minimize" and costs.min() >= 0.0 else -math.inf


def _is_share(costs: Array) -> bool:
    return bool(costs.min() >= -1.0 and costs.max() <= 0.0)


def _gap(histories: Sequence[History]) -> Gap | None:
    known = [history for history in histories if history.training is not None and history.validation_loss is not None]
    if len(known) < len(histories) or not known or len(known[0].values) < 2:
        return None
    training = np.stack([history.training for history in known if history.training is not None])
    validation = np.mean([history.validation_loss[-1] for history in known if history.validation_loss is not None])
    window = max(2, math.ceil(training.shape[1] / 3))
    place = np.linspace(-0.5, 0.5, window)
    gain = -float(training[:, -window:].mean(0) @ place / (place**2).sum())
    why_not = []
    if max(history.segments for history in known) > 1:
        why_not.append("training averages over all segments of a row, validation takes the last")
    if any(history.dropout for history in known):
        why_not.append("dropout acts in training only")
    return Gap(float(validation), float(training[:, -1].mean()), gain, not why_not, "; ".join(why_not))


def sentence(
    verdict: Verdict,
    trend: Trend | None,
    gap: Gap | None,
    unstable: Sequence[str],
    shape: tuple[int, ...],
    metric: str,
    direction: Direction,
    margin: float,
) -> str:
    """The verdict with its evidence."""
    replicas, reports = shape
    if trend is None:
        needed = 2 * (LEAST_WINDOW if replicas >= REPLICAS_FOR_T else LEAST_ALONE)
        found = f"{plural(replicas, 'training')} of {plural(reports, 'report')}"
        return f"cannot tell: {found}; this many trainings need {needed} reports each"
    better, worse = ("fell", "rose") if direction == "minimize" else ("rose", "fell")
    mean, low, high = together(trend.gain, trend.low, trend.high)
    over = f"over the last {trend.reports} of {reports} reports validation {metric}"
    method = f"95 % interval {{}} to {{}}; {trend.method}"
    if verdict == "improving":
        return f"improving: {over} {better} by {mean} ({method.format(low, high)})"
    if verdict == "flat":
        return f"flat: {over} changed by less than {significant(margin, 2)} (gain {mean}, {method.format(low, high)})"
    if verdict == "unstable" and unstable:
        return (
            f"unstable: in {len(unstable)} of {plural(replicas, 'training')} {metric} jumped to the worse near the end"
        )
    if trend.high < 0.0:
        mean, low, high = together(-trend.gain, -trend.high, -trend.low)
        got = f"{over} {worse} by {mean} ({method.format(low, high)})"
        return f"{verdict}: {got}, {_training_in_words(gap)}"
    return f"cannot tell: {over} gained {mean}, but the interval goes from {low} to {high} ({trend.method})"


def notes(histories: Sequence[History], used: Sequence[History], told: Forecast | None, gap: Gap | None) -> list[str]:
    """What a reader of the verdict must know."""
    lines = []
    if left := [history.key for history in histories if history not in used]:
        lines.append(f"left out, with another number of reports: {', '.join(left)}")
    if any(history.schedule != "constant" for history in used):
        lines.append(
            "the learning rate's schedule ends with the budget: a curve may flatten by that alone, and a longer "
            "training would have another schedule, which was not measured"
        )
    if gap is not None and not gap.comparable:
        lines.append(f"validation and training loss are not of one kind: {gap.why_not}")
    if told is not None and told.foresees_its_end is False:
        lines.append("the forecast is not to be trusted: fitted without the last quarter, it does not foresee it")
    return lines


def _loss_apart(used: Sequence[History], metric: str, gap: Gap | None) -> list[str]:
    """Where another metric is judged: whether the validation loss gets worse meanwhile."""
    if metric == "loss" or gap is None:
        return []
    trend = trend_of(np.stack([history.validation_loss for history in used if history.validation_loss is not None]))
    if trend is None or trend.high >= 0.0:
        return []
    mean, low, high = together(-trend.gain, -trend.high, -trend.low)
    return [f"meanwhile the validation loss rose by {mean} (95 % interval {low} to {high}), {_training_in_words(gap)}"]


def _training_in_words(gap: Gap | None) -> str:
    if gap is None:
        return "and the training loss is not known, so it may be overfitting or a training that diverges"
    moved = "fell" if gap.training_gain > 0.0 else "rose"
    return f"while the training loss {moved} by {significant(abs(gap.training_gain), 2)}"


def _signed(band: Band, sign: float) -> Band:
    low, high = (band.low, band.high) if sign > 0 else (band.high, band.low)
    return Band(band.x, *([sign * value for value in line] for line in (band.middle, low, high)))
