"""Generation by any causal model, token by token, for several prompts at once.

A row's tokens depend on its prompt and its number alone: not on the rows beside it, and random ones are drawn by
(seed, token's number, row's number). With the cache they are the same as without.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from hrm.errors import Problem, SpecError
from hrm.growing import GrowingTexts, StateRule
from hrm.models import Model
from hrm.nn.draws import Draws
from hrm.nn.losses import LossKind, log_probabilities

Ending = Literal["end", "length"]
"""Why a row ended: by its end token, or because there is no more room, or as many tokens as were asked for."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen. Raises SpecError for values that mean nothing."""

    temperature: float = 0.0
    """0: the most likely token, always. 1: as likely as the model says."""
    top_p: float = 1.0
    """Of the most likely tokens only so many as together reach this probability (nucleus sampling)."""
    seed: int = 0

    def __post_init__(self) -> None:
        problems = []
        if not (self.temperature >= 0.0 and math.isfinite(self.temperature)):
            way_out = "Give 0 for the most likely token, 1 for what the model says"
            problems.append(Problem("temperature", f"must be >= 0 and finite, got {self.temperature}", way_out))
        if not 0.0 < self.top_p <= 1.0:
            problems.append(Problem("top_p", f"must be > 0 and <= 1, got {self.top_p}", "Give 1 for every token"))
        if not 0 <= self.seed < 2**63:
            problems.append(Problem("seed", f"must be >= 0 and < 2^63, got {self.seed}", "Give another one"))
        if problems:
            raise SpecError(*problems)


GREEDY = Sampling()
_COLDEST = 1e-30
"""Still a number in float32."""


@dataclass(frozen=True, slots=True)
class Step:
    """One more token of each row that goes on; the lists are parallel to `rows`."""

    number: int
    """From 0: of the token in its continuation."""
    rows: list[int]
    """Places of the rows in the prompts."""
    tokens: list[int]
    """The end token is one."""
    log_probabilities: list[float]
    """What the model gives these tokens, whatever the temperature."""
    top: list[list[tuple[int, float]]]
    """The most likely tokens and their probabilities, in falling order, as many as were asked for."""
    ended: dict[int, Ending]
    """The rows of which this was the last token."""


@dataclass(frozen=True, slots=True)
class Continuation:
    """What a model said after a prompt."""

    tokens: list[int] = field(default_factory=list)
    """Without the end token."""
    log_probabilities: list[float] = field(default_factory=list)
    """One for each token, and for the end token if there was one."""
    ending: Ending = "length"


def generate(
    model: Model,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    end: int | None,
    segments: int,
    length: int,
    sampling: Sampling = GREEDY,
    state: StateRule = "reset",
    prefix: bool | Sequence[int] = False,
    top: int = 0,
    loss: LossKind = "softmax",
    cached: bool = True,
    numbers: Sequence[int] | None = None,
    batch_size: int = 64,
) -> Iterator[Step]:
    """Continue prompts by a model that does not see the future; a step is given as soon as its tokens are known.

    end: the token after which a row is over; None: there is none. segments: of each pass. length: positions that the
    model has. prefix: prompts, or so many of their first tokens, are read as a whole by models that can. loss: which
    probabilities the model was trained for. cached: of no effect under `carry`. numbers: of the rows, from which what
    is random is drawn (default: from 0). batch_size: rows at once; the steps of a further batch come after the others'.

    Raises SpecError, before anything is computed, for prompts that are empty or too long, and for a state that the
    model does not have.
    """
    _refuse(model, prompts, length, max_new_tokens, state)
    own = list(range(len(prompts))) if numbers is None else list(numbers)

    def steps() -> Iterator[Step]:
        was_training = model.training
        model.eval()
        try:
            for start in range(0, len(prompts), batch_size):
                part = slice(start, start + batch_size)
                texts = GrowingTexts(
                    model,
                    prompts[part],
                    segments=segments,
                    state=state,
                    cached=cached,
                    prefix=prefix if isinstance(prefix, bool) else prefix[part],
                    seed=sampling.seed,
                    numbers=own[part],
                )
                room = [min(max_new_tokens, length + 1 - len(prompt)) for prompt in prompts[part]]
                yield from _continued(texts, room, start, end, sampling, top, loss)
        finally:
            model.train(was_training)

    return steps()


def continuations(steps: Iterable[Step]) -> list[Continuation]:
    """What came out for each prompt, in their order."""
    found: dict[int, Continuation] = {}
    for step in steps:
        for row, token, log_probability in zip(step.rows, step.tokens, step.log_probabilities, strict=True):
            so_far = found.setdefault(row, Continuation())
            so_far.log_probabilities.append(log_probability)
            ending = step.ended.get(row, so_far.ending)
            if ending == "length":
                so_far.tokens.append(token)
            found[row] = Continuation(so_far.tokens, so_far.log_probabilities, ending)
    return [found[row] for row in sorted(found)]


def _continued(
    texts: GrowingTexts, room: list[int], first: int, end: int | None, sampling: Sampling, top: int, loss: LossKind
) -> Iterator[Step]:
    """Steps of one batch, whose rows are called from `first` on; a row that has ended leaves it."""
    rows, number = list(range(len(room))), 0
    while rows:
        logs = log_probabilities(texts.next_logits(), loss)
        chosen = _chosen(logs, sampling, Draws(sampling.seed, number + 1, texts.numbers))
        tokens: list[int] = chosen.tolist()
        ended: dict[int, Ending] = {}
        for row, token in zip(rows, tokens, strict=True):
            if token == end or number + 1 == room[row]:
                ended[first + row] = "end" if token == end else "length"
        said = logs.gather(1, chosen.unsqueeze(1)).squeeze(1).tolist()
        yield Step(number, [first + row for row in rows], tokens, said, _most_likely(logs, top), ended)
        going_on = [place for place, row in enumerate(rows) if first + row not in ended]
        rows, number = [rows[place] for place in going_on], number + 1
        if rows:
            texts.append(chosen)
            if ended:
                texts.keep(torch.tensor(going_on, device=chosen.device))


def _chosen(logs: Tensor, sampling: Sampling, draws: Draws) -> Tensor:
    """[B] tokens from log-probabilities [B, V]."""
    if sampling.temperature == 0.0:
        return logs.argmax(-1)
    best = logs.max(-1, keepdim=True).values  # subtracted first: divided by a small temperature it would be infinite
    shares, order = ((logs - best) / max(sampling.temperature, _COLDEST)).softmax(-1).sort(descending=True, stable=True)
    reached = shares.cumsum(-1)
    kept = reached - shares < sampling.top_p
    kept[:, 0] = True
    mark = draws.uniform() * (shares * kept).sum(-1)
    # The first whose sum is above the mark; where rounding leaves none, the last that is kept.
    place = torch.minimum((reached <= mark.unsqueeze(1)).sum(-1), kept.sum(-1) - 1)
    return order.gather(1, place.unsqueeze(1)).squeeze(1)


def _most_likely(logs: Tensor, count: int) -> list[list[tuple[int, float]]]:
    if not count:
        return [[] for _ in logs]
    best = logs.topk(min(count, logs.shape[-1]), dim=-1)
    pairs = zip(best.indices.tolist(), best.values.exp().tolist(), strict=True)
    return [list(zip(tokens, shares, strict=True)) for tokens, shares in pairs]


def _refuse(model: Model, prompts: Sequence[Sequence[int]], length: int, max_new_tokens: int, state: StateRule) -> None:
    problems = []
    if max_new_tokens < 1:
        problems.append(Problem("max_new_tokens", f"must be >= 1, got {max_new_tokens}", "Say how many tokens"))
    for number, prompt in enumerate(prompts, 1):
        if not prompt:
            problems.append(Problem(f"prompt {number}", "must hold a token, got none", "Give a text to go on from"))
        elif len(prompt) > length:
            rule = f"must be at most {length:,} tokens, the model's length, got {len(prompt):,}"
            problems.append(Problem(f"prompt {number}", rule, "Shorten it, or train with longer rows"))
    if state == "carry" and not model.keeps_state:
        rule = "must be `reset`: the model hands no state on, got 'carry'"
        problems.append(Problem("state", rule, "Leave it out"))
    if problems:
        raise SpecError(*problems)
