"""A model on a held-out split, at full depth: every row gets all of its segments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from hrm.asking import AskedModel, shares
from hrm.context import TrainContext
from hrm.data.dataset import Dataset
from hrm.data.predictions import write_predictions
from hrm.data.row_results import write_rows
from hrm.models import Model, Rows
from hrm.nn.draws import Draws
from hrm.nn.readout import read
from hrm.tasks import IGNORE, Answers, Sums

if TYPE_CHECKING:
    from hrm.trial import TrialSpec

METRICS = ("loss", "perplexity", "token_accuracy", "exact_accuracy")
"""What `evaluate` gives, for every task."""
Gather = Callable[[np.ndarray], Mapping[str, np.ndarray]]
"""Rows by number, as columns (`hrm.data.dataset.Rows.gather`)."""
_SUMS = ("loss", "tokens", "correct", "exact", "rows")


@torch.no_grad()
def evaluate(
    model: Model, dataset: Dataset, split: str, trial: TrialSpec, context: TrainContext, keep: Path | None = None
) -> dict[str, float]:
    """Metrics over all rows of a split, summed over the workers; `keep`: each row's results, too, as this file.

    `loss`: nats per scored token; `perplexity`: its exponential; `token_accuracy`; `exact_accuracy`: share of rows with
    every scored token right; and what the task scores (`TaskSpec.score`).
    """
    rows, names = dataset.split(split), trial.task.metrics
    mine = np.arange(context.rank, len(rows), context.world_size)
    sums, kept = np.zeros(len(_SUMS) + 2 * len(names)), []
    for answers in _answers(model, mine, rows.gather, trial, context):
        by_row = _by_row(answers)
        sums += _summed(by_row, trial.task.score(answers, dataset.manifest.vocabulary), names)
        if keep is not None:
            kept.append(np.stack(list(by_row.values()), axis=1))
    if keep is not None:
        _keep_rows(kept, len(rows), context, keep)
    common, own = np.split(_total(sums, context), [len(_SUMS)])
    total = dict(zip(_SUMS, common.tolist(), strict=True))
    loss = total["loss"] / max(total["tokens"], 1.0)
    return {
        "loss": loss,
        "perplexity": math.exp(min(loss, 700.0)),
        "token_accuracy": total["correct"] / max(total["tokens"], 1.0),
        "exact_accuracy": total["exact"] / max(total["rows"], 1.0),
        **{name: float(s / weight) for name, (s, weight) in zip(names, own.reshape(-1, 2), strict=True) if weight},
    }


@torch.no_grad()
def predict(model: Model, dataset: Dataset, split: str, trial: TrialSpec, context: TrainContext) -> pa.Table | None:
    """What `TaskSpec.predictions` asks of the model. Every worker answers its share of the rows and gets the whole."""

    def answer(columns: Mapping[str, np.ndarray]) -> Answers:
        mine = shares(len(columns["inputs"]), context)
        own = _answers(model, mine, lambda n: {name: values[n] for name, values in columns.items()}, trial, context)
        return _gathered(list(own), columns, context)

    asked = AskedModel(model, dataset, trial, context, answer)
    return trial.task.predictions(asked, dataset.split(split), dataset.manifest.vocabulary)


def judge(
    model: Model, dataset: Dataset, split: str, trial: TrialSpec, context: TrainContext, keep: Path | None
) -> dict[str, float]:
    """The metrics of the model's predictions for a whole split, which are kept as a file; none for a task without."""
    predictions = predict(model, dataset, split, trial, context)
    if predictions is None:
        return {}
    if keep is not None and context.rank == 0:
        write_predictions(predictions, dataset.task, keep)
    return trial.task.judge(predictions)


def to_device(columns: Mapping[str, np.ndarray], device: torch.device) -> Rows:
    """Columns as int64 tensors; rows without puzzle identifiers get identifier 0."""
    batch = {name: torch.from_numpy(column).to(device, torch.int64) for name, column in columns.items()}
    if "puzzle_identifiers" not in batch:
        batch["puzzle_identifiers"] = torch.zeros(len(batch["inputs"]), dtype=torch.int64, device=device)
    return batch


def _answers(
    model: Model, mine: np.ndarray, gather: Gather, trial: TrialSpec, context: TrainContext
) -> Iterator[Answers]:
    """The model at full depth on this worker's rows, by number and in order, a share of the global batch at a time.

    Batches are of one size, since a compiled model is compiled for one; the last is filled up and cut again.
    """
    model.eval()
    size = max(1, min(-(-trial.batch_size // context.world_size), len(mine)))
    for start in range(0, len(mine), size):
        numbers = mine[start : start + size]
        columns, filled = gather(numbers), np.resize(np.arange(len(numbers)), size)
        batch = to_device({name: values[filled] for name, values in columns.items()}, context.device)
        draws = Draws(trial.seed, 0, torch.from_numpy(numbers[filled]).to(context.device), training=False)
        tokens, losses, q = _at_full_depth(model, batch, draws, trial)
        context.beat()
        count = len(numbers)
        confidence = None if q is None else to_host(q)[:count]
        yield Answers(columns, to_host(tokens)[:count], to_host(losses)[:count].astype(np.float64), confidence)
    model.train()


def to_host(tensor: Tensor) -> np.ndarray:
    """A tensor's values as an array."""
    values: np.ndarray = tensor.cpu().numpy()
    return values


def _at_full_depth(model: Model, batch: Rows, draws: Draws, trial: TrialSpec) -> tuple[Tensor, Tensor, Tensor | None]:
    """The answer's tokens [B, S], losses [B] and confidence [B], on the model's device."""
    state = model.initial_state(len(batch["labels"]), draws)
    for _ in range(trial.model.halting_rule().segments):
        output = model.segment(state, batch, draws)
        state = output.state
    nats, tokens = read(output.answer, output.head, batch["labels"], trial.loss)
    confidence = None if output.q is None else output.q[:, 0].float().sigmoid()
    return tokens.int(), nats.sum(-1), confidence


def _by_row(answers: Answers) -> dict[str, np.ndarray]:
    """Of each row what is summed: by the names of `_SUMS` but `rows`, the columns of `hrm.data.row_results`."""
    labels = answers.rows["labels"]
    scored = labels != IGNORE
    tokens, correct = scored.sum(1), ((answers.tokens == labels) & scored).sum(1)
    return {"loss": answers.losses, "tokens": tokens, "correct": correct, "exact": correct == tokens}


def _summed(by_row: Mapping[str, np.ndarray], own: Sums, names: Sequence[str]) -> np.ndarray:
    """The sums of `_SUMS`, then sum and weight of each metric of the task."""
    common = [*(values.sum() for values in by_row.values()), len(by_row["loss"])]
    return np.array([*common, *(value for name in names for value in own[name])], dtype=np.float64)


def _keep_rows(kept: list[np.ndarray], count: int, context: TrainContext, path: Path) -> None:
    """Write what all workers found: the row n of a split was the turn of worker n modulo their number."""
    columns = len(_SUMS) - 1
    mine = np.zeros((-(-count // context.world_size), columns), dtype=np.float32)
    own = np.concatenate(kept) if kept else mine[:0]
    mine[: len(own)] = own
    together = to_host(context.all_gather(torch.from_numpy(mine).to(context.device)))
    if context.rank == 0:
        by_turn = together.reshape(context.world_size, -1, columns).swapaxes(0, 1).reshape(-1, columns)
        write_rows(dict(zip(_SUMS, by_turn[:count].T, strict=False)), path)


def _total(sums: np.ndarray, context: TrainContext) -> np.ndarray:
    """Over all workers."""
    exact_type = torch.float32 if context.device.type == "mps" else torch.float64
    return to_host(context.all_reduce(torch.from_numpy(sums).to(context.device, exact_type)))


def _gathered(parts: list[Answers], columns: Mapping[str, np.ndarray], context: TrainContext) -> Answers:
    """The answers of all workers to the rows of `columns`."""
    count = len(columns["inputs"])

    def joined(arrays: list[np.ndarray]) -> np.ndarray:
        own = torch.from_numpy(np.concatenate(arrays)).to(context.device)
        return to_host(context.all_gather(own))[:count]

    tokens, losses = joined([part.tokens for part in parts]), joined([part.losses for part in parts])
    confidences = [part.confidence for part in parts if part.confidence is not None]
    return Answers(columns, tokens, losses, joined(confidences) if confidences else None)
