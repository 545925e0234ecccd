"""From tokenised documents to rows of one length: cut into windows, padded or packed several to a row.

A label is the token after its position, within its document; every token of a document but the first is a label of one
row, so that losses and bytes over the rows of a split add up to the split's.

Shapes: N rows, S positions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from hrm.data.checks import IGNORE

OPEN_ROWS = 64
"""Rows that packing keeps open at once, so that memory stays flat and a short document finds a gap."""
CHUNK = 1 << 20
"""Positions of the rows that are handed on together."""


@dataclass(frozen=True, slots=True)
class TokenizedDocument:
    """Tokens [n] from the begin to the end token; which of them are scored; the bytes of each."""

    tokens: np.ndarray
    scored: np.ndarray
    num_bytes: np.ndarray
    prompt: int = 0
    """How many of the first tokens are a prompt that is read as a whole."""


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of one document that fits a row: inputs and labels [n], n <= S."""

    inputs: np.ndarray
    labels: np.ndarray
    num_bytes: int
    """UTF-8 bytes of the scored labels."""
    prompt: int = 0


def windows(document: TokenizedDocument, length: int) -> Iterator[Span]:
    """The document in stretches of at most `length` positions, those left out that score nothing."""
    scored = document.scored[1:]
    labels = np.where(scored, document.tokens[1:], IGNORE).astype(np.int32)
    num_bytes = np.where(scored, document.num_bytes[1:], 0)
    for start in range(0, len(labels), length):
        part = slice(start, start + length)
        if scored[part].any():
            # Copies: a view would keep its whole document in memory as long as its row is open.
            inputs, prompt = document.tokens[:-1][part].copy(), document.prompt if start == 0 else 0
            yield Span(inputs, labels[part].copy(), int(num_bytes[part].sum()), prompt)


def packed(spans: Iterable[Span], length: int) -> Iterator[list[Span]]:
    """Rows of several spans: each goes to the first open row that has room for it."""
    rows: list[list[Span]] = []
    room: list[int] = []
    for span in spans:
        size = len(span.inputs)
        place = next((n for n, free in enumerate(room) if free >= size), len(rows))
        if place == len(rows):
            rows.append([])
            room.append(length)
        rows[place].append(span)
        room[place] -= size
        full = place if room[place] == 0 else room.index(min(room)) if len(rows) > OPEN_ROWS else None
        if full is not None:
            yield rows.pop(full)
            room.pop(full)
    yield from rows


def chunks(
    rows: Iterable[list[Span]], length: int, pad: int, *, documents: bool = False, prompts: bool = False
) -> Iterator[dict[str, np.ndarray]]:
    """Columns of some rows at a time: `inputs`, `labels`, `num_bytes`, and where asked for `documents` [N, S] (a number
    per span, padding one of its own) or `prefix_lengths` [N]."""
    remaining = iter(rows)
    while batch := list(islice(remaining, max(1, CHUNK // length))):
        columns = {
            "inputs": np.full((len(batch), length), pad, dtype=np.int32),
            "labels": np.full((len(batch), length), IGNORE, dtype=np.int32),
            "num_bytes": np.array([sum(span.num_bytes for span in row) for row in batch], dtype=np.int32),
        }
        if documents:
            columns["documents"] = np.repeat(np.array([len(row) for row in batch], np.int32)[:, None], length, axis=1)
        if prompts:
            columns["prefix_lengths"] = np.array([row[0].prompt for row in batch], dtype=np.int32)
        for n, row in enumerate(batch):
            start = 0
            for number, span in enumerate(row):
                part = slice(start, start := start + len(span.inputs))
                columns["inputs"][n, part], columns["labels"][n, part] = span.inputs, span.labels
                if documents:
                    columns["documents"][n, part] = number
        yield columns
