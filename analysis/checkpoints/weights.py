"""The tensors of a checkpoint, ours or a state dict of the original code, one at a time: nothing is held in memory.

Every byte is verified before a number is read. Names are ours, whatever the file calls its tensors.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from hrm.checkpoint import DamagedCheckpointError, read_manifest
from hrm.errors import Problem, SpecError
from hrm.original.conversion import our_names
from hrm.original.reading import read_state_dict

ORIGINAL, OURS = "original state dict", "checkpoint"
Read = Callable[[str], Tensor]
_BUFFERS = {"H_init", "L_init", "init_hidden", "puzzle_emb"}
"""The first words of tensors that no optimizer of the main model trains."""


@dataclass(frozen=True, slots=True)
class Weights:
    """The weights of one checkpoint that evaluations use, the averaged ones where there are any."""

    label: str
    """Short and unique in a report."""
    path: str
    format: str
    """`checkpoint`, or `original state dict`."""
    training: str
    """What one training's checkpoints have in common: only these are compared over steps."""
    step: int | None
    bytes: int
    """Of the file of the weights."""
    names: tuple[str, ...]
    read: Read
    raw: Read | None = None
    """As trained, where evaluations use an average; of the tensors that are averaged."""
    squares: Mapping[str, Read] = field(default_factory=dict)
    """By tensor the optimizer's running mean of its squared gradients, where the checkpoint holds it."""
    manifest: Mapping[str, Any] = field(default_factory=dict)


def is_buffer(name: str) -> bool:
    """True for what the main optimizer does not train: initial states, and the puzzle table with its own rule."""
    return name.split(".")[0] in _BUFFERS


def open_weights(path: Path) -> Weights:
    """A checkpoint's folder or a file of the original code. Raises SpecError for what is neither, or damaged."""
    return _ours(path) if path.is_dir() else _original(path)


def labelled(found: list[Weights]) -> list[Weights]:
    """The same in the order of trainings and steps, with labels that are short and unique."""
    trainings = list(dict.fromkeys(weights.training for weights in found))
    order = sorted(found, key=lambda weights: (trainings.index(weights.training), _step(weights)))
    labels = [_label(weights, len(trainings) > 1) for weights in order]
    again = {label for label in labels if labels.count(label) > 1}
    return [
        replace(weights, label=f"{label} ({number})" if label in again else label)
        for number, (weights, label) in enumerate(zip(order, labels, strict=True), start=1)
    ]


def _step(weights: Weights) -> int:
    return -1 if weights.step is None else weights.step


def _label(weights: Weights, several: bool) -> str:
    name = Path(weights.path).name if weights.step is None else f"step {weights.step:,}"
    return f"{Path(weights.training).name}, {name}" if several else name


def _ours(path: Path) -> Weights:
    try:
        manifest = read_manifest(path)
        files: dict[str, Any] = manifest["files"]
        for name in files:
            _verify(path / name, files[name])
        opened = {name: _Tensors(path / name) for name in files if name.endswith(".safetensors")}
        model, average = opened["model.safetensors"], opened.get("ema.safetensors")
    except (DamagedCheckpointError, KeyError, TypeError, SafetensorError, OSError) as error:
        rule = f"is no whole checkpoint: {error}" if path.exists() else "there is no such folder"
        way_out = "Give the folder of a checkpoint, of a trial, or a file of the original code"
        raise SpecError(Problem(str(path), rule, way_out)) from error
    averaged = average.names if average else frozenset()
    return Weights(
        label=path.name,
        path=str(path),
        format=OURS,
        training=_training(path, manifest),
        step=manifest["progress"].get("step"),
        bytes=int(files["model.safetensors"]["bytes"]),
        names=tuple(manifest.get("tensors") or sorted(model.names)),
        read=lambda name: average(name) if average and name in averaged else model(name),
        raw=model if average else None,
        squares=_squares(opened.get("training.safetensors")),
        manifest=manifest,
    )


def _original(path: Path) -> Weights:
    source = read_state_dict(path, mapped=True)
    names = our_names(source)
    return Weights(
        label=path.name,
        path=str(path),
        format=ORIGINAL,
        training=str(path.resolve().parent),
        step=source.step,
        bytes=path.stat().st_size,
        names=tuple(names),
        read=lambda name: source.tensors[names[name]],
    )


class _Tensors:
    """A safetensors file, mapped."""

    def __init__(self, path: Path) -> None:
        opened: Callable[..., Any] = safe_open  # which has types for a part of itself
        self._file = opened(path, framework="pt")
        self.names: frozenset[str] = frozenset(self._file.keys())

    def __call__(self, name: str) -> Tensor:
        tensor: Tensor = self._file.get_tensor(name)
        return tensor


def _squares(training: _Tensors | None) -> dict[str, Read]:
    found = re.compile(r"optimizer\.(.+)\.exp_avg_sq")
    names = training.names if training else frozenset()
    matches = [match for name in names if (match := found.fullmatch(name))]
    return {match[1]: _reader(training, match[0]) for match in matches if training}


def _reader(file: _Tensors, name: str) -> Read:
    return lambda _: file(name)


def _training(path: Path, manifest: Mapping[str, Any]) -> str:
    """The trial's folder; of an imported checkpoint the folder of the file that it was made of."""
    if manifest.get("trial_id"):
        above = path.resolve().parents
        return str(above[2]) if above[1].name == "attempts" else str(manifest["trial_id"])
    lineage = manifest.get("lineage") or {}
    return str(Path(lineage.get("path", path.resolve())).parent)


def _verify(path: Path, facts: Mapping[str, Any]) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != facts["sha256"]:
        raise DamagedCheckpointError(f"{path}: its bytes are not those that the manifest lists")
