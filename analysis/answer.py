"""The answer of a sweep in sentences that claim no more than the numbers allow.

A winner is named only when the sweep has finished, every arm was measured, the best arm lost no replica, and it beats
every other arm with Holm-corrected p < 0.05. Otherwise the sentence names the leader and says why it is not decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from analysis.arms import SEARCH, ArmResult, Metric, measured, ranked
from analysis.compare import Comparison, Difference, compare, probability_best
from analysis.intervals import ALPHA
from analysis.numbers import listing, metric_unit, p_value, plural, significant, together
from analysis.records import SweepRecord

RECURRENT = "hrm"
"""The model kind that a second sentence is about where it does not win."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the sweep says about one task."""

    task: str
    sentence: str
    best_arm: str | None = None
    """The leader; the winner where `decided`."""
    decided: bool = False
    probability_best: float | None = None
    evidence: str = ""
    comparisons: list[Difference] = field(default_factory=list)
    reference: dict[str, Any] | None = None
    """`{task, generator_cross_entropy, best, ratio}`: its loss against the least that a model can reach."""


def answer_task(record: SweepRecord, arms: Sequence[ArmResult], task: str) -> Answer:
    """Answer for one task, from test where there are replicas, else from the search's validation."""
    here = [arm for arm in arms if arm.task == task]
    values = measured(here, task)
    if not values:
        return _from_search(record, here, task)
    comparison = compare(values, record.direction)
    best = next(arm for arm in here if arm.name == comparison.best)
    assert best.metric is not None
    doubts = _doubts(record, here, best, comparison)
    shares = probability_best({name: list(seeds.values()) for name, seeds in values.items()}, record.direction)
    sentences = [_first_sentence(record, best.metric, comparison, doubts), _recurrent(record, here, best, comparison)]
    return Answer(
        task=task,
        sentence=" ".join(sentence for sentence in sentences if sentence),
        best_arm=best.name,
        decided=comparison.decided and not doubts,
        probability_best=shares[best.name] if shares else None,
        evidence=best.metric.evidence,
        comparisons=comparison.differences,
        reference=_reference(record, task, best.metric),
    )


def summary(answers: Sequence[Answer]) -> dict[str, Any]:
    """One answer for the sweep. Over several tasks an arm is best only where it is best on each of them."""
    leaders = {answer.best_arm for answer in answers}
    best = leaders.pop() if len(leaders) == 1 else None
    several = len(answers) > 1
    return {
        "sentence": " ".join(f"{a.task}: {a.sentence}" if several else a.sentence for a in answers),
        "best_arm": best,
        "decided": best is not None and all(answer.decided for answer in answers),
        "probability_best": None if several or not answers else answers[0].probability_best,
        "evidence": ", ".join(sorted({answer.evidence for answer in answers if answer.evidence})),
    }


def value_in_words(metric: Metric) -> str:
    """`0.190 nats per token (95 % interval 0.186 to 0.194, 3 seeds)`."""
    mean, low, high = together(metric.mean, metric.low, metric.high)
    unit = metric_unit(metric.name)
    shown = f"{mean} {unit}" if unit else mean
    if metric.low is None:
        return f"{shown} (one seed, no interval)"
    if metric.low == metric.high:
        return f"{shown} (equal at {metric.n} seeds)"
    return f"{shown} (95 % interval {low} to {high}, {plural(metric.n, 'seed')})"


def _from_search(record: SweepRecord, arms: Sequence[ArmResult], task: str) -> Answer:
    order = ranked(arms, record.direction)
    if not order:
        return Answer(task, "No answer yet: no trial has completed.")
    best = order[0]
    assert best.metric is not None
    value = significant(best.metric.mean)
    unit = metric_unit(record.metric)
    sentence = (
        f"No winner: no replica has completed. In the search {best.name} has the {_superlative(record)} validation "
        f"{record.metric}, {f'{value} {unit}' if unit else value} ({SEARCH})."
    )
    return Answer(task, sentence, best.name, evidence=SEARCH)


def _first_sentence(record: SweepRecord, metric: Metric, comparison: Comparison, doubts: list[str]) -> str:
    best, value = comparison.best, value_in_words(metric)
    if comparison.decided and not doubts:
        return (
            f"{best} is best: test {record.metric} {value}, "
            f"better than every other arm (Holm-corrected p < {significant(ALPHA, 1)})."
        )
    start = "No winner" if record.finished else "No winner so far"
    mean = "mean " if metric.n > 1 else ""
    equals = [name for name, other in comparison.means.items() if other.mean == metric.mean]
    if len(equals) > 1:
        better = "lower" if record.direction == "minimize" else "higher"
        return (
            f"{start}: {listing(equals)} have the same {mean}test {record.metric}, {value}, and no arm a {better} one."
        )
    lead = f"{best} has the {_superlative(record)} {mean}test {record.metric}, {value}"
    return f"{start}: {lead}, but {'; '.join(doubts)}."


def _doubts(record: SweepRecord, arms: Sequence[ArmResult], best: ArmResult, comparison: Comparison) -> list[str]:
    """Everything that stands between the leader and a victory."""
    doubts = [] if record.finished else ["the sweep is not finished"]
    doubts += [record.unlike[best.task]] if best.task in record.unlike else []
    if len(arms) == 1:
        doubts.append("there is no other arm to compare it with")
    doubts += _unbeaten(record, comparison)
    missing = [arm.name for arm in arms if arm.name not in comparison.means]
    if missing:
        doubts.append(f"{listing(missing)} {'has' if len(missing) == 1 else 'have'} no completed replica")
    if best.replicas_failed:
        doubts.append(f"{best.replicas_failed} of its {plural(best.replicas, 'replica')} failed and is not in its mean")
    return doubts


def _unbeaten(record: SweepRecord, comparison: Comparison) -> list[str]:
    """The arms that the leader does not beat, by the reason."""
    untested = [d.other for d in comparison.differences if d.adjusted_p is None]
    close = [d for d in comparison.differences if d.adjusted_p is not None and d.adjusted_p >= ALPHA]
    reversed_ = [
        d.other
        for d in comparison.differences
        if d.adjusted_p is not None and d.adjusted_p < ALPHA and not _is_better(d, record)
    ]
    doubts = []
    if close:
        weakest = max(d.adjusted_p or 0.0 for d in close)
        names = listing([d.other for d in close])
        p = f"Holm-corrected p {'=' if len(close) == 1 else 'up to'} {p_value(weakest)}"
        doubts.append(f"the seeds do not allow to place it before {names} ({p})")
    if untested:
        doubts.append(f"it shares fewer than two seeds with {listing(untested)}, so no difference can be tested")
    if reversed_:
        doubts.append(f"on the seeds that they share, {listing(reversed_)} is better")
    return doubts


def _recurrent(record: SweepRecord, arms: Sequence[ArmResult], best: ArmResult, comparison: Comparison) -> str:
    """How the best HRM compares, where the experiment has one and it does not lead."""
    candidates = [arm for arm in arms if arm.model_kind == RECURRENT]
    if not candidates or best.model_kind == RECURRENT:
        return ""
    order = [arm for arm in ranked(candidates, record.direction) if arm.name in comparison.means]
    if not order:
        return "No HRM arm has a completed replica."
    difference = next(d for d in comparison.differences if d.other == order[0].name)
    return f"The best HRM arm, {order[0].name}, {difference_in_words(record, difference)}."


def difference_in_words(record: SweepRecord, difference: Difference) -> str:
    """`is worse by 0.012 nats per token (95 % interval 0.004 to 0.020, 3 paired seeds)`: the other arm's side."""
    if difference.mean is None:
        return f"shares no seed with {difference.best}"
    if difference.low == difference.high == 0.0:
        return f"is as good at all {difference.n} paired seeds"
    sign = -1.0 if record.direction == "minimize" else 1.0
    if not _is_better(difference, record):
        sign = -sign
    bounds = [sign * bound for bound in (difference.low, difference.high) if bound is not None]
    mean, *shown = together(sign * difference.mean, *sorted(bounds))
    unit = metric_unit(record.metric)
    word = "worse" if _is_better(difference, record) else "better"
    sure = difference.adjusted_p is not None and difference.adjusted_p < ALPHA
    doubt = "" if sure else " on these seeds, not for certain" if shown else " on this seed"
    by = f"is {word} by {f'{mean} {unit}' if unit else mean}{doubt}"
    if not shown:
        return f"{by} (one seed, no interval)"
    return f"{by} (95 % interval {shown[0]} to {shown[1]}, {difference.n} paired seeds)"


def _is_better(difference: Difference, record: SweepRecord) -> bool:
    """Whether the leader is at least as good on the seeds that both have."""
    if difference.mean is None:
        return False
    return difference.mean <= 0.0 if record.direction == "minimize" else difference.mean >= 0.0


def _superlative(record: SweepRecord) -> str:
    return "lowest" if record.direction == "minimize" else "highest"


def _reference(record: SweepRecord, task: str, best: Metric) -> dict[str, Any] | None:
    """Only a loss can be held against a cross-entropy."""
    floor = record.datasets.get(task, {}).get("facts", {}).get("generator_cross_entropy")
    if floor is None or record.metric != "loss":
        return None
    ratio = best.mean / floor if floor else None
    return {"task": task, "generator_cross_entropy": floor, "best": best.mean, "ratio": ratio}
