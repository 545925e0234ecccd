"""What a task's searches found out: were they long enough, what mattered, what holds around the best configurations."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from analysis.foretelling import DRAWS, MIN_COMPLETED
from analysis.numbers import p_value, percent, plural, significant
from analysis.search_findings import Importance
from analysis.search_quality import Cut, SearchQuality
from analysis.section import Block, Cell, Chart, Link, Notes, Section, Table, Text
from analysis.sensitivity import MIN_TRIALS, Around, Pair, Sensitivity
from analysis.slice_figures import best_of_figure, importance_figure, plane_figure, slice_figure
from analysis.sweep import Sweep
from analysis.tables import value_in_words

if TYPE_CHECKING:
    from analysis.report import Report

SHOWN = 5
"""Parameters of an arm in a table, the most important first; report.json has all."""
PAIRS_SHOWN = 3
_ALPHA = 0.05

QUALITY_NOTE = (
    "The expected best of k is over all choices of k of the trials that were run. A pruned trial counts with what is "
    "foretold of it by a line through how the arm's completed trials, replicas too, went on from the same report; "
    "where they are fewer than {least}, as it stood. A configuration that learns late, unlike all that completed, is "
    "not foreseen. Seed spread: the standard deviation of the best validation value over replicas of one configuration."
)
IMPORTANCE_NOTE = (
    "The share of the objective's variance over the space that a parameter explains alone: fANOVA, a mean over "
    "trees, each grown on the trials drawn anew; the range holds 95 % of them. p: how often shuffled trials show as "
    "much, corrected by Holm over the arm's parameters. Pruned trials of which nothing can be foretold are left out. "
    "Faint bars: chance does as much."
)
AROUND_NOTE = (
    "Points are trials; open triangles pruned ones, where they are expected to have ended if that can be foretold, "
    "else as they stood. Lines: what a Gaussian process expects if this parameter alone of the arm's best "
    "configuration were another, with the 95 % band of its doubt; none where it foretells trials that it is not shown "
    "no better than their mean."
)
PAIRS_NOTE = (
    "What two parameters explain together and neither alone, as a share of the process's variance over the space. p: "
    "of no joint effect, residuals shuffled, corrected by Holm over the arm's pairs."
)


def sections(report: Report, sweep: Sweep, task: str) -> list[Section]:
    """Of the task; none before a search trial has completed, or where nobody asked what the searches show."""
    number = sweep.record.tasks.index(task)
    qualities = [each for each in report.searches if each.task == task]
    importances = [each for each in report.importances if each.task == task]
    around = [each for each in report.sensitivities if each.task == task]
    found = []
    if qualities:
        found.append(Section("Would fewer trials have found it", _quality(sweep, qualities, number)))
    if importances:
        found.append(Section("What mattered in the search", _importance(sweep, importances, number)))
    if around:
        found.append(Section("Around the best configurations", _around(sweep, task, around, number)))
    if any(each.pairs for each in around):
        found.append(Section("Parameters that act together", _pairs(sweep, around, number)))
    return found


def quality_in_words(each: SearchQuality) -> str:
    """What is known about an arm's search, in sentences."""
    parts = [_length(each), _pruning(each), _untried(each), _trend(each)]
    if each.again is not None:
        value, again = significant(each.best), significant(each.again)
        parts.append(f"its best, {value}, became {again} on average over {plural(each.replicas, 'other seed')}")
    return f"{each.arm}: {'; '.join(part for part in parts if part)}."


def _quality(sweep: Sweep, qualities: Sequence[SearchQuality], number: int) -> list[Block]:
    header = ["arm", "trials", "completed", "pruned", "failed", "best", "expected best of half", "seed spread"]
    header += ["enough", "saved by pruning", "a better one was cut"]
    rows: list[list[Cell]] = [
        [
            each.arm,
            *map(str, (each.trials, each.completed, each.pruned, each.failed)),
            Link(significant(each.best), trial=each.best_trial),
            _half(each),
            significant(each.seed_spread, 2),
            "–" if each.enough is None else str(each.enough),
            percent(each.saved) if each.pruned else "–",
            "–" if not each.pruned else "cannot tell" if each.cut is None else _chance(each.cut.probability),
        ]
        for each in qualities
    ]
    return [
        Notes([quality_in_words(each) for each in qualities]),
        Chart(f"best-of-{number}", best_of_figure(sweep, qualities)),
        Table(header, rows, frozenset(range(1, len(header))), arms=[each.arm for each in qualities]),
        Text(QUALITY_NOTE.format(least=MIN_COMPLETED), quiet=True),
    ]


def _half(each: SearchQuality) -> str:
    half = next((point.mean for point in each.expected if point.k >= max(1, each.trials // 2)), None)
    return significant(half)


def _length(each: SearchQuality) -> str:
    if each.trials < 2:
        return "one trial, nothing to compare"
    if each.seed_spread is None or each.enough is None:
        return "how many trials were needed cannot be told without two replicas, which show how much seeds differ"
    spread = f"one seed spread ({significant(each.seed_spread, 2)})"
    if each.enough <= each.trials // 2:
        would = f"would have come within {spread} of its best on average"
        return f"{each.enough} of the {each.trials} trials that it ran {would}"
    return (
        f"half of its {each.trials} trials would not have been enough: the expected best comes within {spread} of its "
        f"best only from {each.enough} on"
    )


def _pruning(each: SearchQuality) -> str:
    if not each.pruned:
        return ""
    saved = f"pruning saved {percent(each.saved)} of the search's training"
    if each.cut is None:
        return f"{saved}, and whether it cut a better trial cannot be told from so few that completed"
    return f"{saved}, {_cut_in_words(each.cut)}"


def _cut_in_words(cut: Cut) -> str:
    rests = f"foretold of {cut.foretold} pruned ones by {cut.rests_on} that completed"
    chance = _chance(cut.probability)
    if cut.probability < _ALPHA:
        return f"and there is no sign that it cut a better trial (probability {chance}, {rests})"
    if cut.probability < 0.5:
        return f"and that it cut a better trial cannot be ruled out (probability {chance}, {rests})"
    likeliest = f"the likeliest is {cut.likeliest} with {percent(cut.likeliest_probability)}"
    return f"and it looks as if it cut a better trial (probability {chance}, {rests}; {likeliest})"


def _chance(probability: float) -> str:
    """A share of draws: none of them is no certainty."""
    return percent(min(max(probability, 1 / DRAWS), 1 - 1 / DRAWS))


def _untried(each: SearchQuality) -> str:
    said = [f"{path} {' or '.join(map(value_in_words, choices))}" for path, choices in each.untried.items()]
    return f"no trial with {', '.join(said)} trained to the end, so little is known of these" if said else ""


def _trend(each: SearchQuality) -> str:
    if each.trend_p is None or each.trend_p >= _ALPHA:
        return ""  # no sign of it is no evidence against it
    return f"later trials were better than earlier ones (p {_p(each.trend_p)}), so its sampler learnt"


def _p(value: float) -> str:
    text = p_value(value)
    return text if text.startswith("<") else f"= {text}"


def _importance(sweep: Sweep, found: Sequence[Importance], number: int) -> list[Block]:
    by_arm = {arm: list(group) for arm, group in groupby(found, key=lambda each: each.arm)}
    shown = [each for group in by_arm.values() for each in group[:SHOWN]]
    rows = [
        [each.arm, each.parameter, percent(each.share), f"{percent(each.low)} to {percent(each.high)}", p_value(each.p),
         "matters" if each.p < _ALPHA else "cannot tell"]
        for each in shown
    ]  # fmt: skip
    header = ["arm", "parameter", "share", "95 % range", "p (Holm)", "verdict"]
    return [
        Notes([_rests_on(arm, group) for arm, group in by_arm.items()]),
        Chart(f"importance-{number}", importance_figure(sweep, shown)),
        Table(header, rows, frozenset({2, 3, 4}), arms=[each.arm for each in shown]),
        Text(IMPORTANCE_NOTE, quiet=True),
    ]


def _rests_on(arm: str, found: Sequence[Importance]) -> str:
    sure = [each.parameter for each in found if each.p < _ALPHA]
    first = found[0]
    pruned = f", {first.foretold} of them pruned, with what is foretold of them" if first.foretold else ""
    said = f"{' and '.join(sure)} mattered" if sure else "no parameter stands out from chance"
    return f"{arm}: {said} ({plural(first.trials, 'trial')}{pruned})."


def _around(sweep: Sweep, task: str, found: Sequence[Sensitivity], number: int) -> list[Block]:
    figure = slice_figure(sweep, task, found)
    rows: list[list[Cell]] = []
    arms: list[str] = []
    for each in found:
        for around in each.around if (each.foretells or 0.0) > 0.0 else ():
            if any(around.worse) or around.edge:
                rows.append(
                    [each.arm, around.parameter, value_in_words(around.best), _worse(around), around.edge or "–"]
                )
                arms.append(each.arm)
    header = ["arm", "parameter", "best", "worse by its 95 % band at", "at an end of its range"]
    blocks: list[Block] = [Notes([around_in_words(each) for each in found])]
    if figure.layout.updatemenus:
        blocks += [Chart(f"slices-{number}", figure), Text(AROUND_NOTE, quiet=True)]
    return [*blocks, Table(header, rows, arms=arms)] if rows else blocks


def around_in_words(each: Sensitivity) -> str:
    """What an arm's surrogate rests on, and what it is worth."""
    if each.foretells is None:
        return f"{each.arm}: {plural(each.trials, 'trial')}, too few or too alike for a model (from {MIN_TRIALS} on)."
    pruned = f", {each.foretold} of them pruned," if each.foretold else ""
    start = f"{each.arm}: from {each.trials} trials{pruned} the process"
    if each.foretells <= 0.0:
        return f"{start} foretells one that it is not shown no better than their mean: nothing can be told from it."
    ends = [f"{around.parameter} ({around.edge} end)" for around in each.around if around.edge]
    wider = (
        f" The best lies at an end of the range of {' and '.join(ends)}: a wider one may hold a better." if ends else ""
    )
    return f"{start} foretells {percent(each.foretells)} of the variance of those that it is not shown.{wider}"


def _worse(around: Around) -> str:
    """The values that are worse for certain, in words: runs of a range by their ends."""
    if not any(around.worse):
        return "–"
    if around.axis == "category" or len(around.values) <= 6:
        return ", ".join(value_in_words(v) for v, worse in zip(around.values, around.worse, strict=True) if worse)
    runs = []
    for worse, group in groupby(zip(around.values, around.worse, strict=True), key=lambda pair: pair[1]):
        values: list[Any] = [value for value, _ in group]
        if worse:
            first, last = values[0] == around.values[0], values[-1] == around.values[-1]
            low, high = significant(values[0], 2), significant(values[-1], 2)
            runs.append("everywhere" if first and last else f"≤ {high}" if first else f"≥ {low}" if last else
                        f"{low} to {high}")  # fmt: skip
    return ", ".join(runs)


def _pairs(sweep: Sweep, found: Sequence[Sensitivity], number: int) -> list[Block]:
    blocks: list[Block] = [_pairs_table(found), Text(PAIRS_NOTE, quiet=True)]
    for index, each in enumerate(found):
        if each.plane is not None:
            blocks.append(Text(f"{each.arm}, all else as in its best configuration:"))
            blocks.append(Chart(f"plane-{number}-{index}", plane_figure(sweep, each, each.plane)))
    return blocks


def _pairs_table(found: Sequence[Sensitivity]) -> Table:
    shown = [(each, pair) for each in found if (each.foretells or 0.0) > 0.0 for pair in _telling(each.pairs)]
    rows = [
        [each.arm, pair.one, pair.other, percent(pair.share), p_value(pair.p), _together(pair)] for each, pair in shown
    ]
    header = ["arm", "parameter", "and", "share", "p (Holm)", "verdict"]
    return Table(header, rows, frozenset({3, 4}), arms=[each.arm for each, _ in shown])


def _telling(pairs: Sequence[Pair]) -> list[Pair]:
    """Those that act together first, then by share."""
    return sorted(pairs, key=lambda pair: pair.p is None or pair.p >= _ALPHA)[:PAIRS_SHOWN]


def _together(pair: Pair) -> str:
    if pair.p is None:
        return "too few trials to test"
    return "act together" if pair.p < _ALPHA else "cannot tell"
