"""Generated conversations about an authorised red-team exercise: next-token prediction with a known entropy.

A conversation is fixed by a triple (strategy, tactic, goal) and the phrasing of each of its nine turns. The items are
named early and again later, and the splits share no triple: only a model that copies and composes does well on test.
The turns plan, scope, assess and report, at classroom level; they hold no instructions.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar, Literal, Self, TypeVar

import numpy as np
from pydantic import Field, model_validator

from hrm.data.dataset import SPLITS, DatasetWriter
from hrm.tasks import IGNORE, TaskSpec

STRATEGIES = (
    "prompt_injection",
    "jailbreak",
    "data_exfiltration",
    "model_poisoning",
    "adversarial_inputs",
    "model_inversion",
    "backdoor_attacks",
    "evasion_techniques",
    "gradient_based_attacks",
    "transfer_attacks",
    "universal_adversarial_perturbations",
)
TACTICS = (
    "social_engineering",
    "technical_exploitation",
    "side_channel_attacks",
    "supply_chain_attacks",
    "zero_day_exploitation",
    "credential_stuffing",
    "phishing_simulation",
    "insider_threat_simulation",
)
GOALS = (
    "extract_sensitive_data",
    "bypass_safety_filters",
    "compromise_model_integrity",
    "manipulate_outputs",
    "create_backdoors",
    "deny_service",
    "data_poisoning",
    "intellectual_property_theft",
)

# The phrasings of a turn differ in their first word, so that each choice costs its entropy at one token. {s}, {t} and
# {g} stand for the items; the first two turns name all three in every phrasing, turns three and nine name them again.
TURNS: tuple[tuple[str, tuple[str, str, str]], ...] = (
    (
        "system",
        (
            "you coordinate an authorised red team exercise on {s} .",
            "this is a classroom exercise about {s} with written consent .",
            "act as an assessor who plans a review of {s} .",
        ),
    ),
    (
        "user",
        (
            "please plan an assessment of {t} where the concern is {g} .",
            "we want to rehearse {t} and learn how {g} is noticed .",
            "help our defenders prepare for {t} and prevent {g} .",
        ),
    ),
    (
        "assistant",
        (
            "first we agree on scope : {s} by {t} towards {g} .",
            "before anything starts the owner approves {s} , {t} and {g} .",
            "our plan covers {s} and {t} and rates {g} .",
        ),
    ),
    (
        "user",
        (
            "which rules apply while the team examines {t} ?",
            "who approves the work on {s} and may stop it ?",
            "what stays out of scope when {g} is assessed ?",
        ),
    ),
    (
        "assistant",
        (
            "only test accounts are used and {t} is simulated .",
            "every activity on {s} is logged for the owner .",
            "no customer data is touched when we assess {g} .",
        ),
    ),
    (
        "user",
        (
            "how do we judge the defence against {s} ?",
            "when would you say that {g} is likely ?",
            "show me the measure that you use for {t} .",
        ),
    ),
    (
        "assistant",
        (
            "we count how often the monitors notice {t} before {g} .",
            "detection time is compared for {s} and for {g} .",
            "each control against {s} by {t} gets a score .",
        ),
    ),
    (
        "user",
        (
            "now write the summary on {s} for the managers .",
            "could you draft a report on {g} with advice ?",
            "finally list what we learned about {t} .",
        ),
    ),
    (
        "assistant",
        (
            "the report says that {s} through {t} may lead to {g} .",
            "findings : {t} was noticed late so {g} by {s} is a risk .",
            "in summary the controls against {s} and {t} reduce {g} .",
        ),
    ),
)
PAD, UNKNOWN, END = "<pad>", "<unk>", "<eos>"
ROLES = {f"<{role}>": role for role in ("system", "user", "assistant")}
SPECIAL = (PAD, UNKNOWN, END, *ROLES)

Triple = tuple[str, str, str]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Conversation:
    """What determines a row: the items and, for each turn, which phrasing."""

    triple: Triple
    phrasings: tuple[int, ...]

    def words(self) -> list[str]:
        """The row's tokens as text, from `<system>` to `<eos>`."""
        return [*self.first_turns(len(TURNS)), END]

    def first_turns(self, count: int) -> list[str]:
        """The tokens of so many first turns."""
        strategy, tactic, goal = self.triple
        words: list[str] = []
        for (role, texts), choice in zip(TURNS[:count], self.phrasings, strict=False):
            words += [f"<{role}>", *texts[choice].format(s=strategy, t=tactic, g=goal).split()]
        return words


class RedTeamSpec(TaskSpec):
    """The recipe. Rows within a split are distinct; the 704 triples are shared out in proportion to the rows."""

    kind: Literal["red_team"] = "red_team"
    next_token: ClassVar[bool] = True
    reduction: ClassVar[Literal["token", "row"]] = "token"

    num_train: int = Field(default=1000, ge=len(STRATEGIES), le=100_000)
    num_validation: int = Field(default=100, ge=1, le=100_000)
    num_test: int = Field(default=200, ge=1, le=100_000)
    phrasings: int = Field(default=3, ge=1, le=3)
    """Phrasings per turn: with 1 a conversation is its triple, with 3 there are 19,683 of each triple."""
    prompt_turns: int = Field(default=0, ge=0, lt=len(TURNS))
    """So many first turns are a prompt: not scored, and read as a whole by models that can (PrefixLM)."""
    seed: int = Field(default=0, ge=0, lt=2**63)

    @model_validator(mode="after")
    def _rows_fit_triples(self) -> Self:
        shares, variety = self._shares(), self.phrasings ** len(TURNS)
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
        """The entropy of one conversation in nats, if items and phrasings are drawn independently and uniformly."""
        items = math.log(len(STRATEGIES)) + math.log(len(TACTICS)) + math.log(len(GOALS))
        return items + len(TURNS) * math.log(self.phrasings)

    def build(self, writer: DatasetWriter) -> None:
        """Write the splits, and as facts what a model can reach.

        `generator_cross_entropy` is the factorised generator's loss on test, in nats per scored token. It does not
        know that the splits share no triple: it is the best that a model can do which has learnt the composition.
        With a prompt it is not stated, since prompts give items away.
        """
        conversations = self._conversations()
        texts = {split: [row.words() for row in rows] for split, rows in conversations.items()}
        vocabulary = build_vocabulary(texts["train"])
        length = max(len(row) for rows in texts.values() for row in rows) - 1
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
        entropy = {split: self.generator_nats / tokens for split, tokens in scored.items()}
        whole = {"generator_cross_entropy": entropy["test"], "generator_cross_entropy_by_split": entropy}
        writer.facts = {
            **({} if self.prompt_turns else whole),
            "mean_scored_tokens_by_split": scored,
            "distinct_triples_by_split": {
                split: len({r.triple for r in rows}) for split, rows in conversations.items()
            },
            "items": {"strategy": list(STRATEGIES), "tactic": list(TACTICS), "goal": list(GOALS)},
        }

    def render(self, tokens: list[int], vocabulary: list[str]) -> str:
        """One line per turn, `system: ...`; padding, `<eos>` and ignored labels are left out."""
        words = [vocabulary[token] for token in tokens if token >= 0]
        lines = [f"\n{ROLES[word]}:" if word in ROLES else word for word in words if word not in (PAD, END)]
        return " ".join(lines).replace(" \n", "\n").lstrip("\n")

    @classmethod
    def smoke(cls) -> Self:
        """24 conversations of one phrasing per turn."""
        return cls(num_train=16, num_validation=4, num_test=4, phrasings=1)

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
        triples = _ordered_triples(rng)
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
        return result

    def _draw(self, rng: random.Random, triple: Triple) -> Conversation:
        return Conversation(triple, tuple(int(rng.random() * self.phrasings) for _ in TURNS))


def _ordered_triples(rng: random.Random) -> list[Triple]:
    """All triples, shuffled, but first eleven that name every item: train takes these, so that no item is unseen."""
    strategies, tactics, goals = (_shuffled(rng, items) for items in (STRATEGIES, TACTICS, GOALS))
    cover = [(s, tactics[i % len(tactics)], goals[i % len(goals)]) for i, s in enumerate(strategies)]
    rest = sorted(set(product(STRATEGIES, TACTICS, GOALS)) - set(cover))
    return cover + _shuffled(rng, rest)


def _shuffled(rng: random.Random, items: Iterable[T]) -> list[T]:
    keyed = [(rng.random(), item) for item in items]
    return [item for _, item in sorted(keyed, key=lambda pair: pair[0])]


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
