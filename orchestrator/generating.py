"""`generate`: a checkpoint goes on with texts; one text is shown token by token, several when they are done."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from hrm.checkpoint import open_checkpoint
from hrm.data.tokenizing import TextTokenizer
from hrm.errors import Problem, SpecError
from hrm.generate import Continuation, Sampling, Step, continuations, generate
from hrm.prompts import Prompt, continued_text, read_prompts
from orchestrator.checkpoint_places import best_checkpoint
from orchestrator.commands import too_small
from orchestrator.evaluation import Bench, bench_for, trial_of
from orchestrator.generation_view import GenerationView
from orchestrator.prompts import given_prompts


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is to be generated, and by what."""

    bench: Bench
    tokenizer: TextTokenizer
    prompts: list[Prompt]
    sampling: Sampling
    segments: int

    def steps(self, options: argparse.Namespace) -> Iterator[Step]:
        trial = self.bench.trial
        return generate(
            self.bench.model,
            [prompt.tokens for prompt in self.prompts],
            max_new_tokens=options.max_new_tokens,
            end=self.tokenizer.end,
            segments=self.segments,
            length=self.bench.dataset.shape.sequence_length,
            sampling=self.sampling,
            state=options.state,
            prefix=trial.task.prompts_whole,
            top=options.top,
            loss=trial.loss,
            cached=not options.no_cache,
            batch_size=trial.batch_size,
        )


def generate_texts(options: argparse.Namespace) -> int:
    """Generate, show; gives the exit code."""
    sampling = _checked(options)
    given = given_prompts(options)
    path = best_checkpoint(options.checkpoint, options.storage)
    checkpoint, place = open_checkpoint(path), str(path)
    trial = trial_of(checkpoint, place, options.task)
    if not trial.task.next_token:
        raise _no_text(place, trial.task.kind)
    bench = bench_for(checkpoint, place, trial, options.storage, options.precision)
    _refuse_states(bench, options)
    manifest = bench.dataset.manifest
    tokenizer = trial.task.text_tokenizer(bench.dataset.directory, manifest.vocabulary)
    if tokenizer is None:
        raise _no_text(place, trial.task.kind)
    how = {"raw": options.raw, "allow_unknown": options.allow_unknown}
    prompts = read_prompts(given, trial.task, tokenizer, manifest.sequence_length, **how)
    asked = _Asked(bench, tokenizer, prompts, sampling, options.segments or trial.model.halting_rule().segments)
    try:
        steps = asked.steps(options)
    except SpecError as error:
        raise _by_option(error) from error
    if options.json:
        print(json.dumps(_as_json(asked, list(steps), options, place)))
    else:
        GenerationView(tokenizer, prompts, options.max_new_tokens).show(steps)
        Console(highlight=False, soft_wrap=True).print(f"[dim]computed in {bench.precision}[/]")
    return 0


def _as_json(asked: _Asked, steps: list[Step], options: argparse.Namespace, place: str) -> dict[str, Any]:
    tokenizer, first = asked.tokenizer, {row: step for step in reversed(steps) for row in step.rows}

    def told(row: int, prompt: Prompt, found: Continuation) -> dict[str, Any]:
        step = first[row]
        following = step.top[step.rows.index(row)]
        return {
            "prompt": prompt.given,
            "prompt_tokens": len(prompt.tokens),
            "unknown_words": prompt.unknown,
            "text": continued_text(tokenizer, prompt, found.tokens),
            "tokens": found.tokens,
            "log_probabilities": found.log_probabilities,
            "ending": found.ending,
            **(
                {"next": [{"token": tokenizer.written(t), "probability": p} for t, p in following]} if following else {}
            ),
        }

    found = zip(asked.prompts, continuations(steps), strict=True)
    sampling = asked.sampling
    return {
        "checkpoint": place,
        "task": asked.bench.trial.task.kind,
        "precision": asked.bench.precision,
        "state": options.state,
        "segments": asked.segments,
        "sampling": {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": sampling.seed},
        "continuations": [told(row, prompt, continuation) for row, (prompt, continuation) in enumerate(found)],
    }


def _checked(options: argparse.Namespace) -> Sampling:
    """Raises SpecError with every number that means nothing, under its option's name."""
    problems = too_small(options, max_new_tokens=1, segments=1, top=0)
    try:
        sampling = Sampling(options.temperature, options.top_p, options.seed)
    except SpecError as error:
        problems += _by_option(error).problems
    if problems:
        raise SpecError(*problems)
    return sampling


def _refuse_states(bench: Bench, options: argparse.Namespace) -> None:
    """Raises SpecError for what is asked of the states of a model that has none."""
    if bench.model.keeps_state:
        return
    kind, problems = bench.trial.model.kind, []
    if options.state == "carry":
        problems.append(Problem("--state", f"must be `reset`: {kind} hands no state on, got 'carry'", "Leave it out"))
    if options.segments not in (None, 1):
        rule = f"must be 1: {kind} hands no state on, so that further segments compute the same, got {options.segments}"
        problems.append(Problem("--segments", rule, "Leave it out"))
    if problems:
        raise SpecError(*problems)


def _by_option(error: SpecError) -> SpecError:
    """The same problems of fields, where a person finds them."""
    return SpecError(*[Problem(f"--{p.place.replace('_', '-')}", p.rule, p.way_out) for p in error.problems])


def _no_text(place: str, kind: str) -> SpecError:
    rule = f"is a checkpoint of {kind}, whose rows are no text"
    return SpecError(Problem(place, rule, "Give one of a text model; `solve` answers puzzles"))
