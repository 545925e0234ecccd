"""A checkpoint as a model that evaluates, and what its tensors are parts of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hrm.checkpoint import Checkpoint, differences
from hrm.context import TrainContext
from hrm.errors import Problem, SpecError
from hrm.models import Model, ModelSpec
from hrm.resolve import resolve, resumed, take_effect
from hrm.spec import Spec, parse_spec
from hrm.tasks import TaskShape
from hrm.trial import AnyModelSpec, TrialSpec

_PARTS = {
    "H_level": "H",
    "L_level": "L",
    "level": "layers",
    "stack": "layers",
    "embed_tokens": "token embedding",
    "embed_pos": "positions",
    "lm_head": "head",
    "q_head": "Q head",
    "H_init": "initial states",
    "L_init": "initial states",
    "init_hidden": "initial states",
    "puzzle_emb": "puzzle table",
}
"""By the first word of a tensor's name: the part of the model that it belongs to."""


class _ModelHolder(Spec):
    """Lets any kind of model be parsed."""

    model: AnyModelSpec


def model_spec(checkpoint: Checkpoint, place: str) -> ModelSpec:
    """What the checkpoint's model is. Raises SpecError for one that this version does not know."""
    return parse_model(checkpoint.manifest["spec"]["model"], place)


def parse_model(said: Any, place: str) -> ModelSpec:
    """Plain data as the spec of some model. Raises SpecError."""
    return parse_spec(_ModelHolder, {"model": said}, place).model


def load_model(checkpoint: Checkpoint, shape: TaskShape, place: str) -> Model:
    """The model with the weights that evaluations use, on the CPU, in evaluation mode.

    Raises SpecError where a task of this shape does not fit it; `place` starts each problem.
    """
    with torch.random.fork_rng(devices=[]):
        model = model_spec(checkpoint, place).build(shape)
    weights, own = checkpoint.evaluation_weights, model.state_dict()
    wrong = differences(own, weights).values()
    if wrong:
        raise SpecError(*[Problem(place, rule, "Evaluate it on the task that it was trained on") for rule in wrong])
    model.load_state_dict(weights)
    return model.eval()


def working_model(
    checkpoint: Checkpoint, place: str, trial: TrialSpec, shape: TaskShape, context: TrainContext
) -> tuple[Model, str]:
    """The model in this process, computing as it was trained so far as this machine can, and in which precision.

    Raises SpecError as `load_model` does.
    """
    resolved = resolve(trial, shape, context)
    if trained := checkpoint.manifest.get("resolved"):
        resolved = resumed(trained, resolved) | {"threads": context.threads, "compiled": False}
    take_effect(resolved)
    model = load_model(checkpoint, shape, place)
    model.configure(getattr(torch, resolved["precision"]), resolved["attention"])
    return model, resolved["precision"]


def components(weights: Mapping[str, Tensor]) -> dict[str, int]:
    """How many values each part of the model has."""
    counts = dict.fromkeys(_PARTS.values(), 0)
    for name, tensor in weights.items():
        part = part_of(name)
        counts[part] = counts.get(part, 0) + tensor.numel()
    return {part: count for part, count in counts.items() if count}


def part_of(name: str) -> str:
    """The part of the model that a tensor belongs to; its name's first word where that is no part that is known."""
    first = name.split(".")[0]
    return _PARTS.get(first, first)
