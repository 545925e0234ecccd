"""What a model's red-team conversations are worth: are the items of the opening named again, and does the text hang
together?

Two ways to ask. Teacher-forced (`named_later`): with the true text before it, is the item that comes next the most
likely token? Generated (`judge`): what does the model say on its own, given the opening turns alone?
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

import numpy as np

from hrm.data.red_team_turns import END, ITEMS, OPENING, ROLES, SPEAKERS
from hrm.tasks import Answers, Sums

NAMED_LATER = {"strategy": "strategy_accuracy", "tactic": "tactic_recall", "goal": "goal_accuracy"}
"""By sort of item, the metric of its mentions after the opening."""


def turn_of(inputs: np.ndarray, vocabulary: list[str]) -> np.ndarray:
    """Of each position the number of its turn, from 1."""
    turns: np.ndarray = np.isin(inputs, tokens_of(ROLES, vocabulary)).cumsum(axis=1)
    return turns


def tokens_of(words: Mapping[str, str] | tuple[str, ...], vocabulary: list[str]) -> list[int]:
    """The tokens of words, of those that train holds."""
    wanted = set(words)
    return [token for token, word in enumerate(vocabulary) if word in wanted]


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


def judge(conversations: Iterable[tuple[list[str], int]]) -> dict[str, float]:
    """Metrics of continued conversations: their words, and how many of these were given as the opening.

    `coherence`: of all strategies, tactics and goals that they mention, the share that is the opening's; 0 where none
    is mentioned. `generated_...`: the share of conversations that mention the opening's item of that sort.
    `well_formed`: the share with the nine turns of the right roles, none of them empty, and `<eos>`.
    """
    mentions: list[bool] = []
    named: dict[str, list[bool]] = {sort: [] for sort in NAMED_LATER}
    formed: list[bool] = []
    for words, given in conversations:
        for sort, items in ITEMS.items():
            own = next((word for word in words[:given] if word in items), None)
            if own is not None:  # an item that train lacks is `<unk>`
                right = [word == own for word in words[given:] if word in items]
                mentions += right
                named[sort].append(any(right))
        formed.append(_is_well_formed(words))
    metrics = {f"generated_{name}": _share(named[sort]) for sort, name in NAMED_LATER.items()}
    return {**metrics, "coherence": _share(mentions), "well_formed": _share(formed)}


def _share(found: list[bool]) -> float:
    return sum(found) / max(len(found), 1)


def _is_well_formed(words: list[str]) -> bool:
    marks = [place for place, word in enumerate(words) if word in ROLES or word == END]
    in_order = [words[place] for place in marks] == [*(f"<{role}>" for role in SPEAKERS), END]
    return in_order and all(after - before > 1 for before, after in pairwise(marks))
