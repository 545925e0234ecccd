"""What a position may look at, and where it is: rows with a prompt, and rows of several documents.

A row's column `documents` [T] numbers the document of each position, in runs: a number does not come back later in its
row. Padding is a document of its own, after a text or before it. What a document gives does not depend on the others of
its row. `positions` [S] says where tokens stand, where their places in the row do not.

Shapes: B rows, S positions, T positions of the whole row, of which the last S are computed (T = S without a cache).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


def visible(rows: Mapping[str, Tensor], causal: bool, past: int = 0, prompts: Tensor | None = None) -> Tensor | None:
    """[B, 1, S, T] bool, True where a position may look; None where `causal`, or everything, says it all.

    past: T - S, the positions that were computed before; `documents` is of all T. prompts [B]: the lengths of prompts
    that are read as a whole.
    """
    documents = rows.get("documents")
    if not past and documents is None and prompts is None:
        return None
    length = rows["inputs"].shape[1]
    place = torch.arange(past + length, device=rows["inputs"].device)
    seen = torch.ones_like(place, dtype=torch.bool).expand(1, length, -1)
    if causal:
        seen = (place <= place[past:, None]).unsqueeze(0)
    if prompts is not None:
        inside = place < prompts.view(-1, 1, 1)
        seen = seen | (inside & inside.mT[:, past:])
    if documents is not None:
        seen = seen & (documents.unsqueeze(1) == documents[:, past:].unsqueeze(2))
    return seen.unsqueeze(1)


def positions_of(rows: Mapping[str, Tensor], past: int = 0) -> Tensor:
    """Where each computed position stands: [S], or [B, S] where rows differ (`positions`)."""
    positions = rows.get("positions")
    length = rows["inputs"].shape[1]
    return torch.arange(past, past + length, device=rows["inputs"].device) if positions is None else positions


def places(documents: Tensor) -> Tensor:
    """[B, S] int64: the position of each token counted from the start of its document."""
    position = torch.arange(documents.shape[1], device=documents.device)
    begins = documents.diff(prepend=documents[:, :1] - 1) != 0
    return position - (position * begins).cummax(dim=1).values
