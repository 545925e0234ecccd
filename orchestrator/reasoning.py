"""`checkpoint trace`: a few rows of a split, drawn segment by segment as the model works on them."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from analysis.reasoning import Layout, Mark, Reasoning, examples_of, findings, layout_of
from analysis.reasoning_page import render_reasoning
from analysis.writing import write_whole
from hrm.checkpoint import open_checkpoint
from hrm.data.dataset import Dataset
from hrm.data.sudoku_grids import BOXES
from hrm.errors import Problem, SpecError
from hrm.tasks.arc import ArcSpec
from hrm.tasks.sudoku import SudokuSpec
from hrm.trace import traces
from hrm.trial import TrialSpec
from orchestrator.commands import too_small, writing
from orchestrator.evaluation import Bench, bench_for, trial_of


def trace_checkpoint(options: argparse.Namespace) -> int:
    """Trace the rows, write the page, say what they show; gives the exit code."""
    if problems := too_small(options, rows=1, segments=1):
        raise SpecError(*problems)
    checkpoint, place = open_checkpoint(options.path), str(options.path)
    trial = trial_of(checkpoint, place, options.task)
    bench = bench_for(checkpoint, place, trial, options.storage)
    reasoning = reason(bench, options.path, options.split, chosen_rows(options, bench.dataset), options.segments)
    output: Path = options.output or options.storage / "reports" / f"{_name(options.path)}-{options.split}.html"
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        write_whole(output, render_reasoning(reasoning))
    if options.json:
        print(reasoning.to_json())
    else:
        print("\n".join([*findings(reasoning), f"The page: {output}"]))
    return 0


def reason(bench: Bench, path: Path, split: str, numbers: np.ndarray, segments: int | None) -> Reasoning:
    """What the model does with these rows of the split."""
    trial, dataset = bench.trial, bench.dataset
    rule, layout = trial.model.halting_rule(), layout_for(trial, dataset)
    mark, filled_in = _mark(dataset, layout), not dataset.manifest.next_token and not isinstance(trial.task, ArcSpec)
    about = {"filled_in": filled_in, "q_continues": rule.rule == "q_with_target"}
    traced = traces(bench.model, dataset, split, trial, bench.context, numbers=numbers, segments=segments)
    found = [example for trace in traced for example in examples_of(trace, mark, **about)]
    return Reasoning(_name(path), trial.task.kind, split, segments or rule.segments, rule.segments, layout, found)


def layout_for(trial: TrialSpec, dataset: Dataset) -> Layout:
    """How rows of the task are drawn."""
    manifest, kind = dataset.manifest, trial.task.kind
    boxes = BOXES[trial.task.size] if isinstance(trial.task, SudokuSpec) else None
    return layout_of(kind, manifest.sequence_length, boxes, manifest.next_token)


def chosen_rows(options: argparse.Namespace, dataset: Dataset) -> np.ndarray:
    """The rows that were named, or so many, evenly spread. Raises SpecError for one that is not there."""
    count = len(dataset.split(options.split))
    if options.row is None:
        return np.unique(np.linspace(0, count - 1, min(options.rows, count)).astype(np.int64))
    wrong = [row for row in options.row if not 0 <= row < count]
    if wrong:
        rule = f"must be >= 0 and < {count}, the rows of {options.split}, got {', '.join(map(str, wrong))}"
        raise SpecError(Problem("--row", rule, "Give rows of the split"))
    return np.array(options.row)


def _mark(dataset: Dataset, layout: Layout) -> Mark:
    """A token as a cell shows it, or as it reads in a text: what a text leaves out stands under its own name."""
    vocabulary = dataset.manifest.vocabulary

    def mark(token: int) -> str:
        if token < 0 or token >= len(vocabulary):
            return "?"
        own = vocabulary[token]
        if layout.kind == "grid":
            return "" if own in (".", " ") else own
        return dataset.task.render([token], vocabulary).strip("\n") or own

    return mark


def _name(path: Path) -> str:
    """`trial/step-00000120`, as a name."""
    parts = path.resolve().parts
    return f"{parts[-4]}-{parts[-1]}" if len(parts) > 4 and parts[-3] == "attempts" else path.name
