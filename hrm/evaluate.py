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
from hrm.models import Model
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
    for batch in _batches(rows, trial.batch_size, context):
        sums += _score(model, batch, trial)
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


def _batches(rows: StoredRows, batch_size: int, context: TrainContext) -> Iterator[dict[str, Tensor]]:
    """This worker's rows, in order."""
    mine = np.arange(context.rank, len(rows), context.world_size)
    for start in range(0, len(mine), batch_size):
        yield to_device(rows.gather(mine[start : start + batch_size]), context.device)


def to_device(columns: dict[str, np.ndarray], device: torch.device) -> dict[str, Tensor]:
    """Columns as int64 tensors; rows without puzzle identifiers get identifier 0."""
    batch = {name: torch.from_numpy(column).to(device, torch.int64) for name, column in columns.items()}
    if "puzzle_identifiers" not in batch:
        batch["puzzle_identifiers"] = torch.zeros(len(batch["inputs"]), dtype=torch.int64, device=device)
    return batch


def _score(model: Model, batch: dict[str, Tensor], trial: TrialSpec) -> Tensor:
    labels = batch["labels"]
    state = model.initial_state(len(labels))
    for _ in range(trial.model.halting_rule().segments):
        output = model.segment(state, batch["inputs"], batch["puzzle_identifiers"], Draws.none())
        state = output.state
    scored = labels != IGNORE
    correct = ((output.logits.argmax(-1) == labels) & scored).sum(-1)
    exact = (correct == scored.sum(-1)).sum()
    loss = cross_entropy(output.logits, labels, trial.loss).sum(dtype=torch.float32)
    return torch.stack([loss.cpu(), scored.sum().cpu(), correct.sum().cpu(), exact.cpu(), torch.tensor(len(labels))])
