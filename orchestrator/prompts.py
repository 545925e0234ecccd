"""The prompts that a person gives to a text model: read, put as the recipe puts them, refused where they cannot be."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hrm.data.tokenizing import TextTokenizer
from hrm.errors import Problem, SpecError
from hrm.tasks import TaskSpec


@dataclass(frozen=True, slots=True)
class Prompt:
    """What was given, and what the model reads."""

    given: str
    tokens: list[int]
    unknown: list[str]
    """Words that the vocabulary lacks."""


def given_prompts(options: argparse.Namespace) -> list[tuple[str, str]]:
    """Each prompt and where it is from: --prompt, then the lines of --file that are not blank. Raises SpecError."""
    prompts = [(text, f"--prompt {number}") for number, text in enumerate(options.prompt, 1)]
    if options.file is not None:
        lines = list(enumerate(_read(options.file).splitlines(), 1))
        prompts += [(line, f"--file {options.file}: line {number}") for number, line in lines if line.strip()]
    if not prompts:
        rule = "there is no prompt" if options.file is None else f"{options.file} holds no prompt"
        raise SpecError(Problem("--prompt", rule, "Give --prompt TEXT, or --file with a prompt on each line"))
    return prompts


def read_prompts(
    given: Sequence[tuple[str, str]],
    task: TaskSpec,
    tokenizer: TextTokenizer,
    length: int,
    *,
    raw: bool,
    allow_unknown: bool,
) -> list[Prompt]:
    """The prompts as tokens. Raises SpecError with every one that is empty, too long, or of unknown words."""
    prompts, problems = [], []
    for text, place in given:
        put = text if raw else task.prompt(text)
        prompt = Prompt(text, tokenizer.prompt(put), tokenizer.unknown_words(put))
        prompts.append(prompt)
        if not text.strip() or not prompt.tokens:
            problems.append(Problem(place, "must not be empty", "Give a text to go on from"))
        elif len(prompt.tokens) > length:
            rule = f"must be at most {length:,} tokens, the model's length, got {len(prompt.tokens):,}"
            problems.append(Problem(place, rule, "Shorten it, or train with a larger sequence_length"))
        elif prompt.unknown and not allow_unknown:
            words = ", ".join(map(repr, prompt.unknown))
            problems.append(Problem(place, f"the vocabulary lacks {words}", "Use its words, or say --allow-unknown"))
    if problems:
        raise SpecError(*problems)
    return prompts


def _read(name: str) -> str:
    try:
        return sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        rule = f"cannot be read: {error}"
        raise SpecError(Problem(f"--file {name}", rule, "Give a text file with a prompt on each line")) from error
