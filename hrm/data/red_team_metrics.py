"""What a model's red-team conversations are worth: are the items of the opening named again, and does the text hang
together?

Two ways to ask. Teacher-forced (`named_later`): with the true text before it, is the item that comes next the most
likely token? Generated (`judge`): what does the model say on its own, given the opening turns alone?
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from hrm.data.red_team_continuations import tokens_of, turn_of
from hrm.data.red_team_turns import END, ITEMS, OPENING, ROLES, SPEAKERS
from hrm.tasks import Answers, Sums

NAMED_LATER = {"strategy": "strategy_accuracy", "tactic": "tactic_recall", "goal": "goal_accuracy"}
"""By sort of item, the metric of its mentions after the opening."""


def named_later(answers: Answers, vocabulary: list[str]) -> Sums:
    """For each sort of item, over the scored positions after the opening whose label is one: how often it is the most
    likely token, of how many."""
    inputs, labels = answers.rows["inputs"], answers.rows["labels"]
    later = turn_of(inputs, vocabulary) > OPENING
    sums: Sums = {}
    for sort, name in NAMED_LATER.items():
        named = later & np.isin(labels, tokens_of(ITEMS[sort], vocabulary))
        sums[name] = (float((answers.tokens == labels)[named].sum()), float(named.sum()))
    return sums


def judge(text: np.ndarray, given: np.ndarray, vocabulary: list[str]) -> dict[str, float]:
    """Metrics of continuations [B, S + 1] of openings of `given` [B] tokens.

    `coherence`: of all strategies, tactics and goals that they mention, the share that is the opening's; 0 where none
    is mentioned. `generated_...`: the share of conversations that mention the opening's item of that sort.
    `well_formed`: the share with the nine turns of the right roles, none of them empty, and `<eos>`.
    """
    opening = np.arange(text.shape[1]) < given[:, None]
    mentions = right_mentions = 0
    metrics: dict[str, float] = {}
    for sort, name in NAMED_LATER.items():
        named = np.isin(text, tokens_of(ITEMS[sort], vocabulary))
        known = np.any(named & opening, axis=1)  # an item that train lacks is `<unk>`
        right = text == text[np.arange(len(text)), (named & opening).argmax(axis=1)][:, None]
        later = named & ~opening & known[:, None]
        mentions, right_mentions = mentions + int(later.sum()), right_mentions + int((later & right).sum())
        metrics[f"generated_{name}"] = float((later & right).any(axis=1).sum() / max(known.sum(), 1))
    conversations = [[vocabulary[token] for token in row] for row in text.tolist()]
    metrics["coherence"] = right_mentions / max(mentions, 1)
    metrics["well_formed"] = sum(map(_is_well_formed, conversations)) / len(conversations)
    return metrics


def _is_well_formed(words: list[str]) -> bool:
    marks = [place for place, word in enumerate(words) if word in ROLES or word == END]
    in_order = [words[place] for place in marks] == [*(f"<{role}>" for role in SPEAKERS), END]
    return in_order and all(after - before > 1 for before, after in pairwise(marks))
