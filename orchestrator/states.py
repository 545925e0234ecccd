"""`checkpoint states`: are a model's states better reset with each new token, or carried over; on its own rows and on
lists of tags."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice

import numpy as np
from rich.console import Console
from rich.table import Table

from analysis.numbers import plural
from analysis.states import StatesCompared, compare_states
from hrm.checkpoint import open_checkpoint
from hrm.data.checks import IGNORE
from hrm.data.tag_lists import TOPICS, tag_lists
from hrm.data.tokenizing import TextTokenizer
from hrm.errors import Problem, SpecError
from hrm.forcing import ToldText, told
from orchestrator.checkpoint_places import best_checkpoint
from orchestrator.commands import too_small
from orchestrator.evaluation import Bench, bench_for, trial_of

_UNSEEN = 2**32
"""A seed that no recipe's sample is made with."""
_TOPIC = 10
"""Tags of a topic that is made of a vocabulary's own words."""


def compare_checkpoint_states(options: argparse.Namespace) -> int:
    """Measure both rules on both sorts of text, say which is better; gives the exit code."""
    if problems := too_small(options, rows=2, prefix=1, tokens=1, segments=1):
        raise SpecError(*problems)
    path = best_checkpoint(options.checkpoint, options.storage)
    checkpoint, place = open_checkpoint(path), str(path)
    bench = bench_for(checkpoint, place, trial_of(checkpoint, place, options.task), options.storage)
    dataset, task = bench.dataset, bench.trial.task
    tokenizer = task.text_tokenizer(dataset.directory, dataset.manifest.vocabulary)
    if tokenizer is None:
        raise SpecError(Problem(place, f"is a checkpoint of {task.kind}, whose rows are no text", "Give a text model"))
    if not bench.model.keeps_state:
        rule = f"a {bench.trial.model.kind} keeps no state between segments, so there is none to carry"
        raise SpecError(Problem(place, rule, "Give a checkpoint of a recursive model"))
    found = [
        _compared(bench, f"{task.kind}, {options.split}", list(_own_rows(bench, options)), options),
        _compared(bench, "tag lists", list(_tag_rows(tokenizer, options)), options),
    ]
    if options.json:
        segments = options.segments or bench.trial.model.halting_rule().segments
        about = {"checkpoint": place, "split": options.split, "prefix": options.prefix, "segments": segments}
        print(json.dumps({**about, "texts": [one.to_data() for one in found]}))
    else:
        _show(found)
    return 0


def _compared(bench: Bench, name: str, texts: Sequence[ToldText], options: argparse.Namespace) -> StatesCompared:
    if not texts:
        rule = f"no row of {name} has a scored token after the first {options.prefix + 1}"
        raise SpecError(Problem("--prefix", rule, "Give a smaller one"))
    trial = bench.trial
    measured = partial(
        told,
        bench.model,
        texts,
        prefix=options.prefix,
        segments=options.segments or trial.model.halting_rule().segments,
        loss=trial.loss,
        seed=trial.seed,
        batch_size=trial.batch_size,
    )
    return compare_states(name, measured(state="reset"), measured(state="carry"), bench.dataset.shape.vocab_size)


def _own_rows(bench: Bench, options: argparse.Namespace) -> Iterator[ToldText]:
    """The first texts of rows of the split, evenly spread, as far as they are looked at."""
    rows = bench.dataset.split(options.split)
    numbers = np.unique(np.linspace(0, len(rows) - 1, min(options.rows, len(rows))).astype(np.int64))
    columns = rows.gather(numbers)
    for place, number in enumerate(numbers.tolist()):
        inputs, labels = columns["inputs"][place], columns["labels"][place]
        if "documents" in columns:
            labels = np.where(columns["documents"][place] == columns["documents"][place, 0], labels, IGNORE)
        text = _cut(inputs.tolist(), labels.tolist(), number, options)
        if text is not None:
            yield text


def _tag_rows(tokenizer: TextTokenizer, options: argparse.Namespace) -> Iterator[ToldText]:
    """Lists that no recipe holds, of words that the vocabulary knows."""
    topics: Sequence[Sequence[str]] = TOPICS
    if tokenizer.unknown_words(", ".join(tag for topic in TOPICS for tag in topic)):
        known = iter([word for word in tokenizer.vocabulary if word.replace("_", "").isalpha()])
        topics = list(iter(lambda: list(islice(known, _TOPIC)), []))
    between = " " if tokenizer.unknown_words(",") else ", "
    for number, text in enumerate(tag_lists(options.rows, _UNSEEN, topics, between)):
        tokens = [*tokenizer.prompt(text), tokenizer.end]
        told_text = _cut(tokens[:-1], tokens[1:], number, options)
        if told_text is not None:
            yield told_text


def _cut(inputs: list[int], labels: list[int], number: int, options: argparse.Namespace) -> ToldText | None:
    """As far as something is scored and it is looked at; None where nothing of it counts."""
    scored = [place for place, label in enumerate(labels) if label != IGNORE]
    end = min(scored[-1] + 1 if scored else 0, options.prefix + options.tokens)
    if not any(options.prefix <= place < end for place in scored):
        return None
    return ToldText(inputs[:end], labels[:end], number)


def _show(found: Sequence[StatesCompared]) -> None:
    console = Console(highlight=False)
    for one in found:
        console.print(f"{one.name}: {plural(one.rows, 'row')}, {plural(one.tokens, 'token')}", soft_wrap=True)
        table = Table("", "loss per token", "token accuracy", box=None, pad_edge=False)
        for name in ("reset", "carry", "difference"):
            pair = (str(getattr(measure, name)) for measure in (one.loss, one.accuracy))
            table.add_row("carry - reset" if name == "difference" else name, *pair)
        console.print(table)
        console.print()
    for one in found:
        console.print(" ".join(filter(None, (one.sentence(), one.warning()))), soft_wrap=True)
