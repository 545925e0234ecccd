"""State dicts of the original HRM, TRM and URM code as checkpoints of ours, and back, key by key and bit by bit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hrm.checkpoint import Checkpoint
from hrm.errors import Problem, SpecError
from hrm.original.configuration import Architecture, Kind, architecture
from hrm.original.reading import StateDict, dtype_name, refused
from hrm.provenance import code_version, environment
from hrm.tasks import TaskShape

FORMAT = "original state dict"
_PREFIX = "_orig_mod.model.inner."
"""Of the keys that are written for a model of ours: with it the original loads the file compiled and not compiled."""
_ABSENT = {"causal": False, "convolution": 0, "damping": 0.0, "start": "fixed", "tied_embeddings": False}
"""What the original code cannot do, and the value with which a model of ours computes what it does."""
_POSITIONS = {"hrm": ("rotary", "learned"), "trm": ("rotary", "learned", "none"), "urm": ("rotary",)}
"""By kind: the positions that the original code knows."""


def import_original(source: StateDict, said: dict[str, Any]) -> Checkpoint:
    """The checkpoint that holds these weights in float32; `said`: fields of the original's configuration.

    Raises SpecError where the tensors are not those of a model that the fields and the shapes describe.
    """
    names = our_names(source)
    shapes = {name: tuple(source.tensors[key].shape) for name, key in names.items()}
    found = architecture(_kind(source.path, names), shapes, said, str(source.path))
    num_parameters = _prove(source.path, found, shapes)
    weights = {name: source.tensors[key].to(torch.float32).contiguous() for name, key in names.items()}
    narrowed = [name for name, key in names.items() if _loses(source.tensors[key], weights[name])]
    manifest = {
        "spec": {"model": found.model.model_dump(mode="json"), **found.training},
        "task_shape": {
            "vocab_size": found.vocab_size,
            "sequence_length": found.sequence_length,
            "num_puzzle_identifiers": found.num_puzzle_identifiers,
        },
        "progress": {} if source.step is None else {"step": source.step},
        "validation": {},
        "num_parameters": num_parameters,
        "lineage": {
            "format": FORMAT,
            "path": str(source.path.resolve()),
            "sha256": source.sha256,
            "dtypes": source.dtypes,
            "narrowed": narrowed,
            "said": said,
            "assumed": found.assumed,
        },
        "tensors": {name: [key, dtype_name(source.tensors[key])] for name, key in names.items()},
        "code": code_version(),
        "environment": environment(),
    }
    return Checkpoint(weights, {}, {}, manifest)


def original_state_dict(checkpoint: Checkpoint, weights: Mapping[str, Tensor], place: str) -> dict[str, Tensor]:
    """These weights of the checkpoint as the original code saves them.

    Of an imported checkpoint: with the keys, the order and the types of its source. Of one of ours: in float32, but for
    the initial states, which the original keeps in its compute dtype. Raises SpecError for a model that it lacks.
    """
    if "tensors" in checkpoint.manifest:
        source: dict[str, tuple[str, str]] = checkpoint.manifest["tensors"]
        return {key: weights[name].to(getattr(torch, dtype)) for name, (key, dtype) in source.items()}
    _refuse_unless_original(checkpoint.manifest["spec"]["model"], place)
    compute_dtype = getattr(torch, checkpoint.manifest.get("resolved", {}).get("precision", "float32"))
    return {
        _PREFIX + name.removeprefix("level."): value.to(compute_dtype if "init" in name else value.dtype)
        for name, value in weights.items()
    }


def _refuse_unless_original(model: dict[str, Any], place: str) -> None:
    if model["kind"] not in _POSITIONS:
        rule = f"the original format has no model of kind {model['kind']!r}"
        raise SpecError(Problem(place, rule, "Export it with --format safetensors"))
    wrong = [name for name, value in _ABSENT.items() if model.get(name, value) != value]
    if model["kind"] != "trm" and model["puzzle_tokens"] > -(-model["puzzle_embedding_size"] // model["hidden_size"]):
        wrong.append("puzzle_tokens")
    if model.get("gated_convolution", 2) != 2:
        wrong.append("gated_convolution")
    if model["positions"] not in _POSITIONS[model["kind"]]:
        wrong.append("positions")
    if wrong:
        listed = ", ".join(f"{name}: {model[name]}" for name in wrong)
        rule = f"the original code has no {listed}, and would compute something else with these weights"
        raise SpecError(Problem(place, rule, "Export it with --format safetensors"))


def our_names(source: StateDict) -> dict[str, str]:
    """Our name of each tensor -> its key in the file, in the file's order."""
    names: dict[str, str] = {}
    for key in source.tensors:
        name = key.replace("_orig_mod.", "").removeprefix("model.").removeprefix("inner.")
        name = f"level.{name}" if name.startswith("layers.") else name
        if name in names:
            rule = f"has two tensors of one name, {names[name]} and {key}"
            raise refused(source.path, rule, "Save the state dict of one model")
        names[name] = key
    return names


def _kind(path: Path, names: Iterable[str]) -> Kind:
    """Which of the models it is, by what stacks it has."""
    stacks = {name.split(".")[0] for name in names} & {"H_level", "L_level", "level"}
    kinds: dict[frozenset[str], Kind] = {
        frozenset({"H_level", "L_level"}): "hrm",
        frozenset({"L_level"}): "trm",
        frozenset({"level"}): "urm",
    }
    if frozenset(stacks) not in kinds or "embed_tokens.embedding_weight" not in names:
        first = ", ".join(list(names)[:3])
        rule = f"is a state dict of something else than HRM, TRM or URM; its first tensors are {first}"
        raise refused(path, rule, "Give a checkpoint of one of these")
    return kinds[frozenset(stacks)]


def _prove(path: Path, found: Architecture, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The parameters of the model that was found, whose tensors must be those of the file. Raises SpecError."""
    shape = TaskShape(found.vocab_size, found.sequence_length or 1, found.num_puzzle_identifiers)
    with torch.device("meta"):
        model = found.model.build(shape)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    problems = []
    for rule, names in (
        ("lacks", expected.keys() - shapes.keys()),
        (f"holds what the {found.model.kind} of the original has not:", shapes.keys() - expected.keys()),
    ):
        if names:
            problems.append(Problem(str(path), f"{rule} {_few(sorted(names))}", "Give a checkpoint of HRM, TRM or URM"))
    for name in expected.keys() & shapes.keys():
        if expected[name] != shapes[name]:
            rule = f"{name} must be {list(expected[name])} in this model, got {list(shapes[name])}"
            problems.append(Problem(str(path), rule, "Give a checkpoint of HRM, TRM or URM"))
    if problems:
        raise SpecError(*problems)
    return model.num_parameters()


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _loses(tensor: Tensor, stored: Tensor) -> bool:
    """True if float32 does not hold all that `tensor` does (only float64 has more)."""
    return tensor.dtype == torch.float64 and not torch.equal(stored.double(), tensor)
