"""What `compare` shows: which of two is better, by how much, how that was tested, and what differs between them."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.contrast import Contrast, ContrastReport
from analysis.effect_figures import forest
from analysis.effect_words import EQUAL, HEADER, LEGEND, change_in_words, effect_cells, rows_cell, verdict
from analysis.numbers import listing, metric_unit, p_value, plural, significant, together
from analysis.section import Block, Cell, Chart, Link, Notes, Section, Table, Text

_WAYS = (
    "Paired by seed where both were trained and tested on data of one fingerprint and share two seeds; else Welch's "
    "test, which takes the runs of both as independent.",
    "An arm that was picked for being the best of several by these very seeds looks better here than it is: for that, "
    "see the p of its sweep's report, which counts all pairs of arms.",
)


def sections(report: ContrastReport) -> list[Section]:
    """The answer first."""
    found = report.contrasts
    unit = metric_unit(report.metric)
    title = f"first minus second, {report.metric}{f' in {unit}' if unit else ''}"
    names = [name_of(item) for item in found]
    figure = forest(list(zip(names, found, strict=True)), names, title)
    header = ["first", "second", "verdict", "tested", f"difference in {report.metric}", *HEADER, "over seeds and rows"]
    rows = [
        [
            str(item.first),
            str(item.second),
            _verdict(item, report),
            _way(item),
            *effect_cells(item),
            rows_cell(item.over_rows),
        ]
        for item in found
    ]
    table = Table(header, rows, frozenset(range(4, len(header))))
    chart: list[Block] = [Chart("contrasts", figure)] if figure.data else []
    return [
        Section("Answer", [Text(sentence(report))], level=2),
        Section(
            "First minus second", [*chart, table, Notes([*_WAYS, *LEGEND, *_doubts(found), *report.notes])], level=2
        ),
        Section("Every seed", [_seeds(item) for item in found], level=2),
        *_differences(found),
        Section("Every run, and the command that trains it again", [_runs(report)], level=2, folded=True),
    ]


def sentence(report: ContrastReport) -> str:
    """One contrast in words; of several which are decided, and which way."""
    if len(report.contrasts) == 1:
        return _sentence(report.contrasts[0], report)
    by_verdict: dict[str, list[str]] = {}
    for item in report.contrasts:
        by_verdict.setdefault(_verdict(item, report), []).append(name_of(item))
    better, worse = (
        f"{len(names)}{f' ({listing(names)})' if names else ''}"
        for names in (by_verdict.get(word, []) for word in ("better", "worse"))
    )
    return (
        f"Of {plural(len(report.contrasts), 'pair')} the first is better in {better}, worse in {worse} (Holm-corrected "
        f"p < 0.05); of {len(by_verdict.get('cannot tell', []))} the seeds cannot tell."
    )


def name_of(item: Contrast) -> str:
    """The shortest name that tells it from others."""
    return f"{item.first.task}: {item.first.arm}" if item.first.arm == item.second.arm else str(item.first)


def _sentence(item: Contrast, report: ContrastReport) -> str:
    if item.mean is None:
        missing = [str(unit) for unit, values in zip((item.first, item.second), item.values, strict=True) if not values]
        return f"Cannot tell: {' and '.join(missing) or 'one of them'} has no completed replica."
    mean, low, high = together(item.mean, item.low, item.high)
    unit = metric_unit(report.metric)
    by = f"{mean} {unit}" if unit else mean
    if item.low is None:
        return f"Cannot tell: {item.first} minus {item.second} is {by} in test {report.metric}, from one seed alone."
    spread = EQUAL if item.low == item.high else f"95 % interval {low} to {high}"
    p = p_value(item.p)
    interval = f"{spread}, {_way(item)}, {f'p {p}' if p.startswith('<') else f'p = {p}'}"
    word = _verdict(item, report)
    if word == "cannot tell":
        least = significant(item.detectable, 2)
        shown = f" These seeds would have shown a true difference of {least} in 80 % of repetitions."
        could = "" if item.detectable is None else shown
        return f"Cannot tell: {item.first} minus {item.second} is {by} in test {report.metric} ({interval}).{could}"
    return f"{item.first} is {word} than {item.second}: test {report.metric} differs by {by} ({interval})."


def _way(item: Contrast) -> str:
    if item.paired:
        return f"paired, {plural(item.n, 'seed')}"
    return f"Welch, {len(item.values[0])} and {plural(len(item.values[1]), 'seed')}"


def _verdict(item: Contrast, report: ContrastReport) -> str:
    return verdict(item, report.direction)


def _doubts(found: Sequence[Contrast]) -> list[str]:
    if all(item.same_data for item in found):
        return []
    return ["Where the data differ, so may the test rows: a difference then is of the data, too."]


def _seeds(item: Contrast) -> Table:
    seeds = sorted({*item.values[0], *item.values[1]}, key=int)
    rows = [
        [str(unit), *(significant(values.get(seed)) for seed in seeds)]
        for unit, values in zip((item.first, item.second), item.values, strict=True)
    ]
    return Table(["", *(f"seed {seed}" for seed in seeds)], rows, frozenset(range(1, len(seeds) + 1)))


def _runs(report: ContrastReport) -> Table:
    rows: list[list[Cell]] = [
        [
            f"{run.unit.sweep}/{run.key}",
            str(run.seed),
            significant(run.value),
            run.checkpoint or "not kept",
            Link("its run", href=run.mlflow) if run.mlflow else "–",
            run.command,
        ]
        for run in report.runs
    ]
    return Table(["run", "seed", report.metric, "best checkpoint", "MLflow", "command"], rows, frozenset({1, 2}))


def _differences(found: Sequence[Contrast]) -> list[Section]:
    rows = []
    for item in found:
        for path, of_second, of_first, searched in map(change_in_words, item.changes):
            rows.append([name_of(item), path, of_first, of_second, searched])
    if not rows:
        return []
    table = Table(["pair", "field", "first", "second", ""], rows)
    return [Section("What differs in their trials", [table], level=2, folded=len(rows) > 20)]
