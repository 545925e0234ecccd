"""What a model says on its own after the opening turns of conversations: the most likely token, again and again.

A pass of the model for each token would cost as much as a training. So a draft of the rest is guessed, one pass checks
it whole, and it is kept up to the first token that the model would not have said. (Speculative decoding; Leviathan et
al. 2023, arXiv 2211.17192.) Drafts change how many passes it takes and never what comes out.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hrm.data.red_team_turns import END, ITEMS, PAD, ROLES
from hrm.tasks import IGNORE, Answer

_CONTEXT = 3
"""Tokens that a draft's next one is guessed from."""


def continue_openings(
    answer: Answer, rows: Mapping[str, np.ndarray], turns: int, vocabulary: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Greedy continuations of the first `turns` turns of rows [B, S]: tokens [B, S + 1], `<pad>` after `<eos>`, and
    how many tokens of each were given [B]."""
    pad, end = vocabulary.index(PAD), vocabulary.index(END)
    inputs = rows["inputs"]
    given = (turn_of(inputs, vocabulary) <= turns).sum(axis=1)
    places = np.arange(inputs.shape[1] + 1)
    whole = np.pad(inputs, ((0, 0), (0, 1)), constant_values=pad)
    whole[np.arange(len(whole)), (inputs != pad).sum(axis=1)] = end
    text = np.where(places < given[:, None], whole, pad)
    drafts = _Drafts(whole, text, vocabulary)
    settled = given.copy()
    unscored = np.full_like(inputs, IGNORE)
    for row, start in enumerate(given.tolist()):
        drafts.extend(text[row], row, start)
    while True:
        said = answer({**rows, "inputs": text[:, :-1], "labels": unscored}).tokens
        over = np.cumsum(text == end, axis=1) - (text == end)
        wrong = (places >= settled[:, None]) & (over == 0)
        wrong[:, 1:] &= text[:, 1:] != said
        for row in np.flatnonzero(wrong.any(axis=1)).tolist():
            place = int(wrong[row].argmax())
            text[row, place], text[row, place + 1 :] = said[row, place - 1], pad
            settled[row] = place + 1
            if text[row, place] != end:
                drafts.extend(text[row], row, place + 1)
        if not wrong.any():
            return text, given


def turn_of(inputs: np.ndarray, vocabulary: list[str]) -> np.ndarray:
    """Of each position the number of its turn, from 1."""
    turns: np.ndarray = np.isin(inputs, tokens_of(ROLES, vocabulary)).cumsum(axis=1)
    return turns


def tokens_of(words: Mapping[str, str] | tuple[str, ...], vocabulary: list[str]) -> list[int]:
    """The tokens of words, of those that train holds."""
    wanted = set(words)
    return [token for token, word in enumerate(vocabulary) if word in wanted]


class _Drafts:
    """Guesses how rows go on, from what follows the same few tokens in `whole` rows. An item stands for its sort, and
    the guess of a sort is the item that the row's opening names."""

    def __init__(self, whole: np.ndarray, openings: np.ndarray, vocabulary: list[str]) -> None:
        self._end = vocabulary.index(END)
        self._sorts = {token: -n for n, items in enumerate(ITEMS.values(), 1) for token in tokens_of(items, vocabulary)}
        self._items = [{self._sorts[t]: t for t in row if t in self._sorts} for row in openings.tolist()]
        self._next: dict[tuple[int, ...], int] = {}
        for tokens in whole.tolist():
            plain = self._plain(tokens[: tokens.index(self._end) + 1])
            for place in range(_CONTEXT, len(plain)):
                self._next.setdefault(plain[place - _CONTEXT : place], plain[place])

    def extend(self, text: np.ndarray, row: int, start: int) -> None:
        """Write a guess into `text` from `start` on, as far as there is one."""
        context = self._plain(text[start - _CONTEXT : start].tolist())
        for place in range(start, len(text)):
            token = self._next.get(context)
            if token is None or (token < 0 and token not in self._items[row]):
                return
            text[place] = self._items[row].get(token, token)
            if token == self._end:
                return
            context = (*context[1:], token)

    def _plain(self, tokens: list[int]) -> tuple[int, ...]:
        return tuple(self._sorts.get(token, token) for token in tokens)
