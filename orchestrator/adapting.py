"""`checkpoint adapt`: thresholds of halting chosen on validation, run on test beside full depth; a page, and JSON."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from analysis.adaptive import Adaptivity, Run, outcome, retried
from analysis.adaptive_choice import choose
from analysis.adaptive_page import in_short, render_adaptivity
from analysis.checkpoints.row_choice import RowChoice, choose_rows
from analysis.numbers import plural
from analysis.writing import write_whole
from hrm.adaptive import Adapted, Retry, adapt, cost_of
from hrm.checkpoint import open_checkpoint
from hrm.contexts import contexts
from hrm.depth import Right, all_right, depth
from hrm.errors import Problem, SpecError
from hrm.halting_scores import Gather, Halt, Rule, confidence_of, refuse_rule, rules_for
from hrm.tasks import IGNORE, Answers
from orchestrator.commands import too_small, writing
from orchestrator.evaluation import Bench, bench_for, trial_of

COMMON = "exact_accuracy"
_TRIED = 64
"""Rows by which it is seen whether a metric says yes or no of every row."""
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be measured."""

    full: int
    """Segments of full depth."""
    rules: list[Rule]
    right: Right
    retry: Retry | None


def adapt_checkpoint(options: argparse.Namespace) -> int:
    """The command; gives its exit code."""
    _refuse_nothing(options)
    checkpoint, place = open_checkpoint(options.path), str(options.path)
    bench = bench_for(checkpoint, place, trial_of(checkpoint, place, options.task), options.storage)
    asked = asked_of(bench, options)
    output: Path = options.output or options.storage / "reports" / f"{_name(options.path)}-adaptive"
    with writing(output):
        output.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output).close()
    found = adaptivity(bench, asked, options)
    with writing(output):
        write_whole(output / "report.html", render_adaptivity(found))
        write_whole(output / "report.json", found.to_json())
    if options.json:
        print(found.to_json())
    else:
        _say(found, output)
    return 0


def asked_of(bench: Bench, options: argparse.Namespace) -> Asked:
    """Raises SpecError for what means nothing for the model or the task."""
    full = options.segments or bench.trial.model.halting_rule().segments
    rules, right = _rules(bench, options.rules, full), right_by(bench, options.metric)
    return Asked(full, rules, right, _retry(options, bench, full))


def adaptivity(bench: Bench, asked: Asked, options: argparse.Namespace) -> Adaptivity:
    """Choose on validation, run on test."""
    trial, full, more, tell = bench.trial, asked.full, asked.retry, _progress(options)
    chosen, tested = (choose_rows(bench.dataset, split, options.rows) for split in ("validation", "test"))
    tell(f"All {full} segments of {len(chosen.numbers):,} rows of validation, to choose by ...")
    whole = depth(
        bench.model,
        _gather(bench, chosen),
        chosen.numbers,
        trial,
        asked.rules,
        segments=full,
        right=asked.right,
        device=bench.context.device,
    )
    choices = [choose(whole, rule, chosen.groups, options.margin) for rule in asked.rules]
    plans: list[tuple[Halt, Retry | None]] = [(Halt("fixed", full), None), *((one.halt, None) for one in choices)]
    if more is not None:
        plans += [(Halt("fixed", full), more), *((one.halt, more) for one in choices if one.halt.rule != "fixed")]
    runs = _run(bench, tested, plans, asked.right, options.repeats, tell)
    first, own, again = runs[0], runs[1 : 1 + len(choices)], runs[1 + len(choices) :]
    cost, groups = cost_of(trial.model, bench.dataset.shape, trial.task.next_token), tested.groups
    names = [str(one.halt) if one.halts else f"{one.halt.rule} (never halts)" for one in choices]
    outcomes = [outcome(f"full depth, {full}", "full", first, groups, cost, None)]
    outcomes += [
        outcome(name, choice.halt.rule, run, groups, cost, first)
        for name, choice, run in zip(names, choices, own, strict=True)
    ]
    bases = [("full depth", first)] + [
        (name, run) for name, choice, run in zip(names, choices, own, strict=True) if choice.halt.rule != "fixed"
    ]
    return Adaptivity(
        checkpoint=_name(options.path),
        task=trial.task.kind,
        metric="next_token_accuracy" if trial.task.next_token else options.metric,
        segments=full,
        confidence=confidence_of(trial.model),
        validation_rows=len(chosen.numbers),
        test_rows=len(tested.numbers),
        cost=cost,
        choices=choices,
        outcomes=outcomes,
        retried=[
            retried(name, more, run, before, groups)
            for (name, before), run in zip(bases, again, strict=bool(more))
            if more is not None
        ],
        device=_device_words(bench),
        margin=options.margin,
        command=_command(options),
    )


def right_by(bench: Bench, metric: str) -> Right:
    """What counts as right. Raises SpecError for a metric that says neither yes nor no of a row."""
    task, vocabulary = bench.trial.task, bench.dataset.manifest.vocabulary
    if metric == COMMON:
        return all_right
    known = [] if task.next_token else _yes_or_no(bench)
    if metric not in known:
        known_at_all = not task.next_token and metric in task.metrics
        rule = f"there is no metric {metric!r} of {task.kind} that says yes or no of a row"
        rule = f"{metric} is no yes or no of every row" if known_at_all else rule
        raise SpecError(Problem("--metric", rule, f"Give one of {', '.join([COMMON, *known])}"))

    def by_task(columns: Mapping[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
        return np.array([_of_row(columns, tokens, row) for row in range(len(tokens))])

    def _of_row(columns: Mapping[str, np.ndarray], tokens: np.ndarray, row: int) -> float:
        one = {name: values[row : row + 1] for name, values in columns.items()}
        value, weight = task.score(Answers(one, tokens[row : row + 1], np.zeros(1), None), vocabulary)[metric]
        if weight != 1.0 or value not in (0.0, 1.0):
            raise SpecError(Problem("--metric", f"{metric} is no yes or no of every row", f"Give {COMMON}"))
        return value

    return by_task


def _yes_or_no(bench: Bench) -> list[str]:
    """The task's metrics that count each of some rows once, as they do when all that is said is right."""
    task, rows = bench.trial.task, bench.dataset.split("validation")
    columns = rows.gather(np.arange(min(len(rows), _TRIED)))
    found = list(task.metrics)
    for row in range(len(columns["labels"])):
        one = {name: values[row : row + 1] for name, values in columns.items()}
        said = Answers(one, np.where(one["labels"] == IGNORE, 0, one["labels"]), np.zeros(1), None)
        sums = task.score(said, bench.dataset.manifest.vocabulary)
        found = [name for name in found if sums[name][1] == 1.0 and sums[name][0] in (0.0, 1.0)]
    return found


def _run(
    bench: Bench, rows: RowChoice, plans: Sequence[tuple[Halt, Retry | None]], right: Right, repeats: int, tell: Tell
) -> list[Run]:
    """Every plan on the rows, one after the other and then all of them again, so that each has its share of what the
    machine does besides."""
    gather, device = _gather(bench, rows), bench.context.device
    adapt(bench.model, gather, rows.numbers[: bench.trial.batch_size], bench.trial, plans[0][0], device=device)
    rounds: list[list[Adapted]] = []
    for turn in range(repeats):
        rounds.append([])
        for number, (halt, more) in enumerate(plans, turn * len(plans) + 1):
            retries = "" if more is None else f", retried below {more.below:g}"
            tell(f"Run {number} of {repeats * len(plans)}: {halt}{retries}, {len(rows.numbers):,} rows of test ...")
            rounds[-1].append(adapt(bench.model, gather, rows.numbers, bench.trial, halt, retry=more, device=device))
    columns = gather(rows.numbers)
    scored = (columns["labels"] != IGNORE).sum(axis=1).astype(np.float64)
    return [
        Run(
            rounds[0][number],
            right(columns, rounds[0][number].tokens).astype(np.float64),
            scored,
            [one[number].seconds for one in rounds],
        )
        for number in range(len(plans))
    ]


def _rules(bench: Bench, asked: Sequence[Rule] | None, full: int) -> list[Rule]:
    """The rules that were asked for. Raises SpecError where a model has but one depth, or no use for a rule."""
    model, own = bench.trial.model, bench.model.keeps_state
    if not own:
        rule = f"must hand a state on, for a further segment to say anything else, got a {model.kind}, which does not"
        raise SpecError(Problem("model.kind", rule, "Give a checkpoint of a recurrent model"))
    if full < 2:
        rule = f"must be several segments, to end before the last, got {full}"
        raise SpecError(Problem("model.halting.segments", rule, "Give --segments 2 or more"))
    for rule_asked in asked or ():
        refuse_rule(rule_asked, model, own, "--rules")
    return list(dict.fromkeys(asked or rules_for(model, own)))


def _retry(options: argparse.Namespace, bench: Bench, full: int) -> Retry | None:
    random = getattr(bench.trial.model, "start", "fixed") == "random"
    segments = full if options.retry_segments is None else options.retry_segments
    restarts = (2 if random else 0) if options.retry_restarts is None else options.retry_restarts
    if options.retry_below > 0.0 and not segments and not restarts:
        rule = f"must be >= 1 where --retry-below is {options.retry_below:g} and there are no restarts, got {segments}"
        raise SpecError(Problem("--retry-segments", rule, "Raise it, or set --retry-below 0"))
    return Retry(options.retry_below, segments, restarts) if options.retry_below > 0.0 else None


def _gather(bench: Bench, rows: RowChoice) -> Gather:
    """Rows of a split; of next-token data, contexts."""
    gather = bench.dataset.split(rows.split).gather
    return contexts(gather) if bench.trial.task.next_token else gather


def _progress(options: argparse.Namespace) -> Tell:
    """Lines on a terminal, on standard error; elsewhere, and with --json, nothing."""
    console = Console(stderr=True, highlight=False)
    if options.json or not console.is_terminal:
        return lambda line: None
    return partial(console.print, markup=False, soft_wrap=True)


def _say(found: Adaptivity, output: Path) -> None:
    header, *rows = in_short(found)
    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(header):
        table.add_column(name, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)
    console.print(f"{found.checkpoint} on {found.task}, {found.test_rows:,} rows of test; {found.device}")
    console.print(table)
    for line in found.findings():
        console.print(line, markup=False)
    console.print(f"The page: {output / 'report.html'}", markup=False, soft_wrap=True)


def _refuse_nothing(options: argparse.Namespace) -> None:
    problems = too_small(options, rows=2, segments=1, repeats=1, retry_segments=0, retry_restarts=0)
    if options.margin is not None and not 0.0 < options.margin < 1.0:
        problems.append(Problem("--margin", f"must be > 0 and < 1, got {options.margin}", "Give such as 0.005"))
    if not 0.0 <= options.retry_below <= 1.0:
        problems.append(Problem("--retry-below", f"must be >= 0 and <= 1, got {options.retry_below}", "Correct it"))
    if problems:
        raise SpecError(*problems)


def _device_words(bench: Bench) -> str:
    device = bench.context.device
    what = torch.cuda.get_device_name(device) if device.type == "cuda" else plural(bench.context.threads, "CPU thread")
    return f"{what}, {bench.precision}, batches of {bench.trial.batch_size}"


def _command(options: argparse.Namespace) -> str:
    parts = [f"python -m orchestrator checkpoint adapt {options.path}"]
    parts += [f"--task {options.task}"] if options.task else []
    parts += [f"--rows {options.rows}", f"--metric {options.metric}", f"--retry-below {options.retry_below:g}"]
    parts += [f"--rules {' '.join(options.rules)}"] if options.rules else []
    optional = ("margin", "segments", "retry_segments", "retry_restarts")
    parts += [
        f"--{name.replace('_', '-')} {getattr(options, name)}"
        for name in optional
        if getattr(options, name) is not None
    ]
    return " ".join([*parts, f"--repeats {options.repeats}", f"--storage {options.storage}"])


def _name(path: Path) -> str:
    """`trial/step-00000120`, as a name."""
    parts = path.resolve().parts
    return f"{parts[-4]}-{parts[-1]}" if len(parts) > 4 and parts[-3] == "attempts" else path.name
