"""Rows of several documents: what may look at what, and where a position is in its document.

A row's column `documents` [S] numbers the document of each position, in runs: a number does not come back later in its
row. Padding is a document of its own. What a document gives does not depend on the others of its row.

Shapes: B rows, S positions.
"""

from __future__ import annotations

import torch
from torch import Tensor


def document_mask(documents: Tensor, causal: bool) -> Tensor:
    """[B, 1, S, S] bool, True where a position may look: within its document, and back only where `causal`."""
    same = documents.unsqueeze(1) == documents.unsqueeze(2)
    return (same.tril() if causal else same).unsqueeze(1)


def places(documents: Tensor) -> Tensor:
    """[B, S] int64: the position of each token counted from the start of its document."""
    position = torch.arange(documents.shape[1], device=documents.device)
    begins = documents.diff(prepend=documents[:, :1] - 1) != 0
    return position - (position * begins).cummax(dim=1).values
