"""A model on a held-out split, at full depth: every row gets all of its segments."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hrm.context import TrainContext
from hrm.data.dataset import Rows as StoredRows
from hrm.models import Model, Rows
from hrm.nn.draws import Draws
from hrm.nn.losses import cross_entropy
from hrm.tasks import IGNORE

if TYPE_CHECKING:
    from hrm.trial import TrialSpec

METRICS = ("loss", "perplexity", "token_accuracy", "exact_accuracy")
"""What `evaluate` gives, for every task."""
_SUMS = ("loss", "tokens", "correct", "exact", "rows")


@torch.no_grad()
def evaluate(model: Model, rows: StoredRows, trial: TrialSpec, context: TrainContext) -> dict[str, float]:
    """Metrics over all rows, summed over the workers.

    `loss`: nats per scored token; `perplexity`: its exponential; `token_accuracy`; `exact_accuracy`: share of rows with
    every scored token right.
    """
    model.eval()
    sums = torch.zeros(len(_SUMS), dtype=torch.float64)
    for numbers, batch in _batches(rows, trial.batch_size, context):
        sums += _score(model, batch, Draws(trial.seed, 0, numbers, training=False), trial)
    model.train()
    exact_type = torch.float32 if context.device.type == "mps" else torch.float64
    total = dict(zip(_SUMS, context.all_reduce(sums.to(context.device, exact_type)).tolist(), strict=True))
    loss = total["loss"] / max(total["tokens"], 1.0)
    return {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),
        "token_accuracy": total["correct"] / max(total["tokens"], 1.0),
        "exact_accuracy": total["exact"] / max(total["rows"], 1.0),
    }


def _batches(rows: StoredRows, batch_size: int, context: TrainContext) -> Iterator[tuple[Tensor, Rows]]:
    """This worker's rows, in order: their numbers, and the batch.

    Batches are of one size (a compiled model is compiled for one); the last is filled up with rows that score nothing.
    """
    mine = np.arange(context.rank, len(rows), context.world_size)
    size = max(1, min(-(-batch_size // context.world_size), len(mine)))
    for start in range(0, len(mine), size):
        numbers = mine[start : start + size]
        filled = np.resize(numbers, size)
        batch = to_device(rows.gather(filled), context.device)
        batch["labels"][len(numbers) :] = IGNORE
        yield torch.from_numpy(filled).to(context.device), batch


def to_device(columns: dict[str, np.ndarray], device: torch.device) -> Rows:
    """Columns as int64 tensors; rows without puzzle identifiers get identifier 0."""
    batch = {name: torch.from_numpy(column).to(device, torch.int64) for name, column in columns.items()}
    if "puzzle_identifiers" not in batch:
        batch["puzzle_identifiers"] = torch.zeros(len(batch["inputs"]), dtype=torch.int64, device=device)
    return batch


def _score(model: Model, batch: Rows, draws: Draws, trial: TrialSpec) -> Tensor:
    labels = batch["labels"]
    state = model.initial_state(len(labels), draws)
    for _ in range(trial.model.halting_rule().segments):
        output = model.segment(state, batch, draws)
        state = output.state
    scored = labels != IGNORE
    tokens, correct = scored.sum(-1), ((output.logits.argmax(-1) == labels) & scored).sum(-1)
    has_any = tokens > 0
    exact = ((correct == tokens) & has_any).sum()
    loss = cross_entropy(output.logits, labels, trial.loss).sum(dtype=torch.float32)
    return torch.stack([value.cpu() for value in (loss, tokens.sum(), correct.sum(), exact, has_any.sum())])
