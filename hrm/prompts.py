"""Texts that a model is to go on with: put as its recipe puts them, as tokens, refused where they cannot be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

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


def continued_text(tokenizer: TextTokenizer, prompt: Prompt, tokens: Sequence[int]) -> str:
    """What tokens after a prompt add to its text: a tokenizer may write them otherwise alone."""
    return tokenizer.decode([*prompt.tokens, *tokens])[len(tokenizer.decode(prompt.tokens)) :]
