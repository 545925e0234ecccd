"""Generated conversations about an authorised red-team exercise: next-token prediction with a known entropy.

A conversation is fixed by a triple (strategy, tactic, goal) and the phrasing of each of its nine turns. The items are
named early and again later, and the splits share no triple: only a model that copies and composes does well on test.

Of the training conversations a share can be flawed: one that ends early, says a turn twice or names a wrong item. The
quality filter drops what breaks a rule (`hrm.data.red_team_conversations.RULES`) by reading the text alone.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
from pydantic import Field, model_validator

from hrm.data.dataset import SPLITS, DatasetWriter, Rows
from hrm.data.red_team_conversations import (
    RULES,
    Conversation,
    Triple,
    broken_rule,
    build_vocabulary,
    draw_flaw,
    encode_rows,
    ordered_triples,
)
from hrm.data.red_team_metrics import NAMED_LATER, judge, named_later, turn_of
from hrm.data.red_team_tokenizer import conversation_tokenizer
from hrm.data.red_team_turns import (
    END,
    GOALS,
    ITEMS,
    OPENING,
    PAD,
    PHRASINGS,
    ROLES,
    SPEAKERS,
    STRATEGIES,
    TACTICS,
)
from hrm.data.tokenizing import TextTokenizer
from hrm.tasks import IGNORE, Answer, Answers, Sums, TaskSpec

EXAMINED = 64
"""Conversations that a model is let continue: about 20 passes of the model over all of them."""


class RedTeamSpec(TaskSpec):
    """The recipe. Good rows within a split are distinct; the 704 triples are shared out in proportion to the rows."""

    kind: Literal["red_team"] = "red_team"
    next_token: ClassVar[bool] = True
    reduction: ClassVar[Literal["token", "row"]] = "token"

    num_train: int = Field(default=1000, ge=len(STRATEGIES), le=100_000)
    """Training conversations that are generated; the quality filter keeps fewer."""
    num_validation: int = Field(default=100, ge=1, le=100_000)
    num_test: int = Field(default=200, ge=1, le=100_000)
    wording: Literal["plain", "enhanced"] = "plain"
    """`enhanced`: twice as many phrasings per turn, with about twice as many words."""
    phrasings: int = Field(default=3, ge=1, le=6)
    """Phrasings per turn: with 1 a conversation is its triple, with 3 there are 19,683 of each triple."""
    prompt_turns: int = Field(default=0, ge=0, lt=len(SPEAKERS))
    """So many first turns are a prompt: not scored, and read as a whole by models that can (PrefixLM)."""
    flawed_fraction: float = Field(default=0.0, ge=0.0, lt=1.0)
    """The probability that a training conversation is made flawed; validation and test are always good."""
    quality_filter: bool = False
    """Drop the training conversations that break a rule."""
    seed: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _phrasings_are_written(self) -> Self:
        known = len(PHRASINGS[self.wording][0])
        if self.phrasings > known:
            raise ValueError(
                f"phrasings must be <= {known} where wording is {self.wording!r}, got {self.phrasings}; lower it"
            )
        return self

    @model_validator(mode="after")
    def _flaws_have_a_meaning(self) -> Self:
        if self.quality_filter and not self.flawed_fraction:
            raise ValueError("quality_filter must be false where flawed_fraction is 0, got true; nothing is flawed")
        if self.flawed_fraction and self.prompt_turns > OPENING:
            raise ValueError(
                f"prompt_turns must be <= {OPENING} where flawed_fraction is not 0, got {self.prompt_turns}; a "
                "conversation that ends early would be a prompt without an answer"
            )
        return self

    @model_validator(mode="after")
    def _rows_fit_triples(self) -> Self:
        shares, variety = self._shares(), self.phrasings ** len(SPEAKERS)
        for split, rows in self._rows().items():
            needed = max(math.ceil(rows / variety), len(STRATEGIES) if split == "train" else 1)
            if shares[split] < needed:
                raise ValueError(
                    f"num_{split} needs {needed} of the 704 (strategy, tactic, goal) triples and got {shares[split]}, "
                    f"its share of the rows. Ask for fewer rows, or for more phrasings than {self.phrasings}"
                )
        return self

    @property
    def generator_nats(self) -> float:
        """The entropy of one good conversation in nats, if items and phrasings are drawn independently, uniformly."""
        items = math.log(len(STRATEGIES)) + math.log(len(TACTICS)) + math.log(len(GOALS))
        return items + len(SPEAKERS) * math.log(self.phrasings)

    @property
    def metrics(self) -> tuple[str, ...]:
        return tuple(NAMED_LATER.values())

    def build(self, writer: DatasetWriter) -> None:
        """Write the splits, and as facts what a model can reach and what the quality filter found.

        `generator_cross_entropy` is the factorised generator's loss on test, in nats per scored token. It does not
        know that the splits share no triple: it is the best that a model can do which has learnt the composition.
        With a prompt it is not stated, since prompts give items away; nor is that of a split with flaws.

        `quality`: how many training conversations were generated and kept, and how many broke which rule.
        """
        conversations = self._conversations()
        # Of what was generated: with and without the filter, rows have one length and models one shape.
        length = max(len(row.words()) for rows in conversations.values() for row in rows) - 1
        quality = self._filter(conversations) if self.flawed_fraction else {}
        texts = {split: [row.words() for row in rows] for split, rows in conversations.items()}
        vocabulary = build_vocabulary(texts["train"])
        writer.vocabulary = vocabulary
        scored: dict[str, float] = {}
        for split, rows in texts.items():
            inputs, labels = encode_rows(rows, vocabulary, length)
            columns = {"inputs": inputs, "labels": labels}
            if self.prompt_turns:
                prompts = [len(row.first_turns(self.prompt_turns)) for row in conversations[split]]
                columns["prefix_lengths"] = np.array(prompts, dtype=np.int32)
                labels[np.arange(1, length + 1) < columns["prefix_lengths"][:, None]] = IGNORE
            writer.write_split(split, columns)
            scored[split] = float((labels != IGNORE).sum()) / len(rows)
        writer.facts = {
            **({} if self.prompt_turns else self._entropy(scored)),
            "mean_scored_tokens_by_split": scored,
            "distinct_triples_by_split": {
                split: len({r.triple for r in rows}) for split, rows in conversations.items()
            },
            "items": {sort: list(items) for sort, items in ITEMS.items()},
            **quality,
        }

    def render(self, tokens: list[int], vocabulary: list[str]) -> str:
        """One line per turn, `system: ...`; padding, `<eos>` and ignored labels are left out."""
        words = [vocabulary[token] for token in tokens if token >= 0]
        lines = [f"\n{ROLES[word]}:" if word in ROLES else word for word in words if word not in (PAD, END)]
        return " ".join(lines).replace(" \n", "\n").lstrip("\n")

    def text_tokenizer(self, directory: Path, vocabulary: list[str]) -> TextTokenizer:
        return conversation_tokenizer(vocabulary)

    def prompt(self, text: str) -> str:
        """What starts with no role is said by the first one."""
        named = any(text.lstrip().startswith((role, f"{name}:")) for role, name in ROLES.items())
        return text if named or not text.strip() else f"{SPEAKERS[0]}: {text}"

    @property
    def prompts_whole(self) -> bool:
        return self.prompt_turns > 0

    def score(self, answers: Answers, vocabulary: list[str]) -> Sums:
        """Of the strategies, tactics and goals named after the opening turns, each told apart: the share foreseen."""
        return named_later(answers, vocabulary)

    def predictions(self, answer: Answer, rows: Rows, vocabulary: list[str]) -> pa.Table:
        """What the model says on its own after the opening turns (or the prompt, if longer) of EXAMINED rows, evenly
        spread: `row`, `given` (words of the opening), `text` (all words, with `<eos>` where it ends)."""
        chosen = np.linspace(0, len(rows) - 1, min(EXAMINED, len(rows))).astype(np.int64)
        columns = rows.gather(chosen)
        inputs, pad, end = columns["inputs"], vocabulary.index(PAD), vocabulary.index(END)
        given = (turn_of(inputs, vocabulary) <= max(OPENING, self.prompt_turns)).sum(axis=1).tolist()
        openings = [row[:count] for row, count in zip(inputs.tolist(), given, strict=True)]
        prefix = columns["prefix_lengths"].tolist() if self.prompts_whole else None
        longest = inputs.shape[1] + 1
        texts = []
        for opening, said in zip(openings, answer.continued(openings, longest, prefix), strict=True):
            ended = [end] * (len(opening) + len(said) < longest)
            texts.append(" ".join(vocabulary[token] for token in opening + said + ended if token != pad))
        return pa.table({"row": chosen, "given": given, "text": texts})

    def judge(self, predictions: pa.Table) -> dict[str, float]:
        """See `hrm.data.red_team_metrics.judge`."""
        texts, given = predictions["text"].to_pylist(), predictions["given"].to_pylist()
        return judge((text.split(), count) for text, count in zip(texts, given, strict=True))

    @classmethod
    def smoke(cls) -> Self:
        """24 conversations of one phrasing per turn."""
        return cls(num_train=16, num_validation=4, num_test=4, phrasings=1)

    def _entropy(self, scored: dict[str, float]) -> dict[str, Any]:
        pure = [split for split in SPLITS if split != "train" or not self.flawed_fraction or self.quality_filter]
        entropy = {split: self.generator_nats / scored[split] for split in pure}
        return {"generator_cross_entropy": entropy["test"], "generator_cross_entropy_by_split": entropy}

    def _filter(self, conversations: dict[str, list[Conversation]]) -> dict[str, Any]:
        """Drop the training conversations that break a rule, if asked to; the facts of it."""
        found = [broken_rule(row.turns()) for row in conversations["train"]]
        generated = len(found)
        if self.quality_filter:
            pairs = zip(conversations["train"], found, strict=True)
            conversations["train"] = [row for row, broken in pairs if broken is None]
        counts = Counter(found)
        facts = {"generated": generated, "kept": len(conversations["train"]), "rules": RULES}
        return {"quality": {**facts, "broken": {rule: counts[rule] for rule in RULES}}}

    def _rows(self) -> dict[str, int]:
        return {split: getattr(self, f"num_{split}") for split in SPLITS}

    def _shares(self) -> dict[str, int]:
        """Triples per split, in proportion to its rows; what rounding leaves goes to train."""
        rows, triples = self._rows(), len(STRATEGIES) * len(TACTICS) * len(GOALS)
        held_out = {split: max(1, triples * rows[split] // sum(rows.values())) for split in SPLITS if split != "train"}
        return {"train": triples - sum(held_out.values()), **held_out}

    def _conversations(self) -> dict[str, list[Conversation]]:
        # Of Python's generator only `random()` is promised to give the same numbers in every version.
        rng = random.Random(self.seed)
        triples = ordered_triples(rng)
        result: dict[str, list[Conversation]] = {}
        for split, share in self._shares().items():
            own, triples = triples[:share], triples[share:]
            taken: dict[Conversation, None] = {}
            for index in range(self._rows()[split]):
                row = self._draw(rng, own[index % share])
                while row in taken:
                    row = self._draw(rng, row.triple)
                taken[row] = None
            result[split] = list(taken)
        result["train"] = self._with_flaws(result["train"])
        return result

    def _draw(self, rng: random.Random, triple: Triple) -> Conversation:
        return Conversation(triple, tuple(int(rng.random() * self.phrasings) for _ in SPEAKERS), self.wording)

    def _with_flaws(self, rows: list[Conversation]) -> list[Conversation]:
        """Some rows with a flaw each, by numbers of their own; not the first eleven, which show every item."""
        rng = random.Random(self.seed + 2**63)
        flawed = [rng.random() < self.flawed_fraction for _ in rows]
        flawed[: len(STRATEGIES)] = [False] * len(STRATEGIES)
        pairs = zip(rows, flawed, strict=True)
        return [replace(row, flaw=draw_flaw(rng, row.turns())) if flaw else row for row, flaw in pairs]
