"""Texts that grow at their ends, several at once, and what a causal model says after them.

Texts of different length stand side by side with padding before them, so that they end together. With a cache a new
token costs one position; without one, the whole text. Under `carry` the states that the positions have come to are
kept and go on from there, which no cache can follow: the texts are then computed whole, too.

Shapes: B texts, S computed positions, T positions of the whole texts, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, cast

import torch
from torch import Tensor

from hrm.models import Model, Rows, State
from hrm.nn.cache import CachePass, KeyValueCache
from hrm.nn.draws import Draws

StateRule = Literal["reset", "carry"]
"""`reset`: every position is computed from the initial state. `carry`: for each new token a position gets all segments
again, on the whole new text, and starts where its last ones ended; a new position starts at the initial state."""


class GrowingTexts:
    """The texts, and what the model keeps of them. The model is in evaluation mode."""

    def __init__(
        self,
        model: Model,
        prompts: Sequence[Sequence[int]],
        *,
        segments: int,
        state: StateRule = "reset",
        cached: bool = True,
        prefix: bool | Sequence[int] = False,
        seed: int = 0,
        numbers: Sequence[int] | None = None,
    ) -> None:
        """prefix: the prompts, or so many of their first tokens [B], are read as a whole by models that can. seed,
        numbers [B]: what random starts are drawn from; numbers (default: from 0) are the texts' own, so that no text
        depends on the others."""
        device = next(model.parameters()).device
        width = max(map(len, prompts))
        padded = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        self._model, self._segments, self._seed = model, segments, seed
        self._tokens = torch.tensor(padded, device=device)
        self._pads = torch.tensor([width - len(prompt) for prompt in prompts], device=device)
        self.numbers = torch.tensor(list(range(len(prompts)) if numbers is None else numbers), device=device)
        """[B] int64."""
        whole = list(map(len, prompts)) if prefix is True else prefix
        self._prefix = torch.tensor(whole, device=device) if whole else None
        self._carries = state == "carry"
        self._cache = KeyValueCache() if cached and not self._carries else None
        self._state: State = {}
        self._read = 0

    @torch.no_grad()
    def next_logits(self) -> Tensor:
        """[B, V] float32: of the token after each text as it stands. Ask once after each `append`."""
        start = 0 if self._cache is None else self._read
        state = self._state_of(self._read if self._carries else start)
        rows, draws = self._rows(start), self._draws()
        one = None if self._cache is None else CachePass(self._cache, start)
        with self._eager():
            for _ in range(self._segments):
                output = self._model.segment(state, rows, draws, one)
                state = output.state
        self._read = self._tokens.shape[1]
        if self._carries:
            self._state = state
        return output.head(output.answer[:, -1:])[:, 0].float()

    def append(self, tokens: Tensor) -> None:
        """Add a token to each text, [B]."""
        self._tokens = torch.cat((self._tokens, tokens.unsqueeze(1)), 1)

    def keep(self, places: Tensor) -> None:
        """Let the other texts go; places: indices of those that stay, or a mask [B]."""
        self._tokens, self._pads, self.numbers = self._tokens[places], self._pads[places], self.numbers[places]
        self._prefix = None if self._prefix is None else self._prefix[places]
        self._state = {name: z[places] for name, z in self._state.items()}
        if self._cache is not None:
            self._cache.keep(places)

    def _eager(self) -> AbstractContextManager[None]:
        """Each length would be compiled anew. What has no compiled part is spared the import of the compiler."""
        if all(module._compiled_call_impl is None for module in self._model.modules()):
            return nullcontext()
        return cast("AbstractContextManager[None]", torch.compiler.set_stance("force_eager"))

    def _state_of(self, start: int) -> State:
        """What is kept, and the initial state of the positions from `start` on."""
        positions = self._positions(start)
        fresh = self._model.state_at(len(self._tokens), self._draws(), positions)
        return {name: torch.cat((self._state[name], z), 1) if name in self._state else z for name, z in fresh.items()}

    def _rows(self, start: int) -> Rows:
        rows = {"inputs": self._tokens[:, start:], "puzzle_identifiers": torch.zeros_like(self._pads)}
        if self._pads.any():
            rows["documents"] = (self._places() >= 0).long()
            rows["positions"] = self._positions(start)
        if self._prefix is not None:
            rows["prefix_lengths"] = self._pads + self._prefix
        return rows

    def _positions(self, start: int) -> Tensor:
        """[B, S]: where the positions from `start` on stand in their text; 0 for padding."""
        return self._places()[:, start:].clamp(min=0)

    def _places(self) -> Tensor:
        """[B, T]: negative for padding."""
        return torch.arange(self._tokens.shape[1], device=self._pads.device) - self._pads.unsqueeze(1)

    def _draws(self) -> Draws:
        """The same at each pass, so that a position starts where it started."""
        return Draws(self._seed, 0, self.numbers, training=False)
