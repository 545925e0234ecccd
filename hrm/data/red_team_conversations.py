"""A red-team conversation from its items and phrasings, the flaws that it can have, and the filter that finds them.

The filter reads the text alone: it knows neither what was drawn nor whether a flaw was put in.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal, TypeVar

import numpy as np

from hrm.data.checks import IGNORE
from hrm.data.red_team_turns import (
    END,
    GOALS,
    ITEMS,
    OPENING,
    PAD,
    PHRASINGS,
    SPEAKERS,
    SPECIAL,
    STRATEGIES,
    TACTICS,
    UNKNOWN,
)

Rule = Literal["too_short", "repeated_turn", "wrong_item"]
RULES: dict[Rule, str] = {
    "too_short": f"has all of its {len(SPEAKERS)} turns",
    "repeated_turn": "no role says the same turn twice, word for word",
    "wrong_item": "later turns name no strategy, tactic or goal that the opening does not name",
}
"""What a good conversation keeps; one that breaks several rules is counted under the first."""

Triple = tuple[str, str, str]
Turn = tuple[str, ...]
"""A turn's tokens, of which the first is its role's."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with a conversation, in which turn (from 0)."""

    rule: Rule
    turn: int
    item: str = ""
    """`wrong_item`: what stands in the place of the turn's item of its sort."""

    def into(self, turns: list[Turn]) -> list[Turn]:
        """The conversation with the flaw in it."""
        if self.rule == "too_short":
            return turns[: self.turn]
        if self.rule == "repeated_turn":
            return [*turns[: self.turn], turns[self.turn - 2], *turns[self.turn + 1 :]]  # the same role's turn before
        sort = _sort(self.item)
        wrong = tuple(self.item if word in sort else word for word in turns[self.turn])
        return [*turns[: self.turn], wrong, *turns[self.turn + 1 :]]


@dataclass(frozen=True, slots=True)
class Conversation:
    """What determines a row: the items, for each turn which phrasing, and a flaw."""

    triple: Triple
    phrasings: tuple[int, ...]
    wording: str = "plain"
    flaw: Flaw | None = None

    def turns(self) -> list[Turn]:
        """Every turn as it is said."""
        items = dict(zip("stg", self.triple, strict=True))
        turns = [
            (f"<{role}>", *texts[choice].format(**items).split())
            for role, texts, choice in zip(SPEAKERS, PHRASINGS[self.wording], self.phrasings, strict=True)
        ]
        return turns if self.flaw is None else self.flaw.into(turns)

    def first_turns(self, count: int) -> list[str]:
        """The tokens of so many first turns."""
        return [word for turn in self.turns()[:count] for word in turn]

    def words(self) -> list[str]:
        """The row's tokens as text, from `<system>` to `<eos>`."""
        return [*self.first_turns(len(SPEAKERS)), END]


def broken_rule(turns: Sequence[Turn]) -> Rule | None:
    """The first of RULES that a conversation breaks; None for a good one."""
    if len(turns) < len(SPEAKERS):
        return "too_short"
    if len(set(turns)) < len(turns):
        return "repeated_turn"
    opening, later = ({word for turn in part for word in turn} for part in (turns[:OPENING], turns[OPENING:]))
    items = {item for items in ITEMS.values() for item in items}
    return "wrong_item" if later & items - opening else None


def draw_flaw(rng: random.Random, turns: Sequence[Turn]) -> Flaw:
    """One of the three flaws, each as likely, at a random place after the opening."""
    rule = _one_of(rng, list(RULES))
    if rule != "wrong_item":
        return Flaw(rule, _one_of(rng, range(OPENING + 1, len(turns))))
    items = {item for items in ITEMS.values() for item in items}
    place, named = _one_of(rng, [(n, w) for n in range(OPENING, len(turns)) for w in turns[n] if w in items])
    return Flaw(rule, place, _one_of(rng, [item for item in _sort(named) if item != named]))


def ordered_triples(rng: random.Random) -> list[Triple]:
    """All triples, shuffled, but first eleven that name every item: train takes these, so that no item is unseen."""
    strategies, tactics, goals = (_shuffled(rng, items) for items in ITEMS.values())
    cover = [(s, tactics[i % len(tactics)], goals[i % len(goals)]) for i, s in enumerate(strategies)]
    rest = sorted(set(product(STRATEGIES, TACTICS, GOALS)) - set(cover))
    return cover + _shuffled(rng, rest)


def build_vocabulary(rows: Iterable[Sequence[str]]) -> list[str]:
    """The special tokens (`<pad>` is 0), then every word of `rows` in alphabetical order."""
    words = {word for row in rows for word in row}
    return [*SPECIAL, *sorted(words - set(SPECIAL))]


def encode_rows(rows: Sequence[Sequence[str]], vocabulary: Sequence[str], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and labels [N, length]: a label is the next token, the last one `<eos>`, then IGNORE. Unknown: `<unk>`."""
    index = {word: token for token, word in enumerate(vocabulary)}
    inputs = np.full((len(rows), length), index[PAD], dtype=np.int32)
    labels = np.full((len(rows), length), IGNORE, dtype=np.int32)
    for n, row in enumerate(rows):
        tokens = [index.get(word, index[UNKNOWN]) for word in row]
        inputs[n, : len(tokens) - 1] = tokens[:-1]
        labels[n, : len(tokens) - 1] = tokens[1:]
    return inputs, labels


def _sort(item: str) -> tuple[str, ...]:
    """All items of its sort."""
    return next(items for items in ITEMS.values() if item in items)


def _one_of(rng: random.Random, choices: Sequence[T]) -> T:
    return choices[int(rng.random() * len(choices))]


def _shuffled(rng: random.Random, items: Iterable[T]) -> list[T]:
    keyed = [(rng.random(), item) for item in items]
    return [item for _, item in sorted(keyed, key=lambda pair: pair[0])]
