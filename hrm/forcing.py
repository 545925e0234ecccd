"""What a causal model gives to the tokens of texts that it is told one by one, under either rule of its states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from hrm.data.checks import IGNORE
from hrm.growing import GrowingTexts, StateRule
from hrm.models import Model
from hrm.nn.losses import LossKind, log_probabilities


@dataclass(frozen=True, slots=True)
class ToldText:
    """Tokens, and for each the one that should follow: IGNORE where nothing is scored."""

    inputs: list[int]
    labels: list[int]
    number: int
    """From which random starts are drawn."""


def told(
    model: Model,
    texts: Sequence[ToldText],
    *,
    state: StateRule,
    prefix: int,
    segments: int,
    loss: LossKind,
    seed: int = 0,
    batch_size: int = 32,
) -> np.ndarray:
    """[N, 3] float64: of each text the nats, the right answers and the number of the scored tokens.

    The first `prefix` tokens are read at once. What follows them is answered alike under both rules, and not scored.
    The model is in evaluation mode; every text is longer than the prefix.
    """
    sums = np.zeros((len(texts), 3))
    for start in range(0, len(texts), batch_size):
        some = texts[start : start + batch_size]
        growing = GrowingTexts(
            model,
            [text.inputs[:prefix] for text in some],
            segments=segments,
            state=state,
            seed=seed,
            numbers=[text.number for text in some],
        )
        sums[start : start + len(some)] = _told(growing, some, prefix, loss)
    return sums


def _told(growing: GrowingTexts, texts: Sequence[ToldText], prefix: int, loss: LossKind) -> np.ndarray:
    sums, here = np.zeros((len(texts), 3)), list(range(len(texts)))
    for place in range(prefix - 1, max(len(text.inputs) for text in texts)):
        staying = [n for n, text in enumerate(here) if place < len(texts[text].inputs)]
        if len(staying) < len(here):
            growing.keep(torch.tensor(staying, device=growing.numbers.device))
            here = [here[n] for n in staying]
        if place >= prefix:
            new = [texts[text].inputs[place] for text in here]
            growing.append(torch.tensor(new, device=growing.numbers.device))
        logs = log_probabilities(growing.next_logits(), loss)
        if place >= prefix:
            labels = torch.tensor([texts[text].labels[place] for text in here], device=logs.device)
            scored = labels != IGNORE
            nats = -logs.gather(1, labels.where(scored, 0).unsqueeze(1)).squeeze(1)
            columns = (nats * scored, (logs.argmax(-1) == labels) & scored, scored)
            sums[here] += torch.stack([column.float() for column in columns], 1).cpu().numpy()
    return sums
