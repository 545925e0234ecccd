"""Checkpoints: write (manifest last), verify, read, find the newest good one.

A checkpoint is a folder: `model.safetensors` (weights and buffers), `training.safetensors` (optimizer and carry),
`ema.safetensors` (the averaged weights, where the trial has them), `state.json` (counters, records not yet reported)
and `manifest.json` with the SHA-256 of each file, the trial's spec, metrics so far, dataset fingerprint, code and
environment. It appears under its name only when it is whole. Nothing in it is pickled.

An imported checkpoint (`hrm.original`) has weights and a manifest only, and never lies in a trial's folder.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from hrm.data.manifest import fsync_directory
from hrm.errors import Problem, SpecError

SCHEMA = 1
_WEIGHTS = ("model.safetensors", "ema.safetensors")
logger = logging.getLogger(__name__)


class DamagedCheckpointError(Exception):
    """The folder is not a whole checkpoint of ours; the message says what is wrong with which file."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint in memory, on the CPU."""

    model: dict[str, Tensor]
    training: dict[str, Tensor]
    state: dict[str, Any]
    manifest: dict[str, Any]
    ema: dict[str, Tensor] | None = None
    """The averaged parameters, by name; None where the trial has no EMA."""

    @property
    def evaluation_weights(self) -> dict[str, Tensor]:
        """The weights and buffers to evaluate with: the averaged parameters where there are any."""
        return {**self.model, **(self.ema or {})}


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the folder `path`, which must not exist: under another name first, flushed to disk, then renamed."""
    temporary = path.with_name(f".{path.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    contents = {
        "model.safetensors": save(checkpoint.model),
        "training.safetensors": save(checkpoint.training),
        "state.json": json.dumps(checkpoint.state, allow_nan=False).encode(),
    }
    if checkpoint.ema is not None:
        contents["ema.safetensors"] = save(checkpoint.ema)
    for name, content in contents.items():
        _write_flushed(temporary / name, content)
    files = {name: {"sha256": _sha256(content), "bytes": len(content)} for name, content in contents.items()}
    manifest = {"schema": SCHEMA, **checkpoint.manifest, "files": files}
    _write_flushed(temporary / "manifest.json", json.dumps(manifest, indent=1).encode())
    temporary.rename(path)
    fsync_directory(path.parent)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read and verify every byte. Raises DamagedCheckpointError."""
    manifest = read_manifest(path)
    try:
        contents = {name: _read_verified(path / name, facts) for name, facts in manifest["files"].items()}
        return Checkpoint(
            model=load(contents["model.safetensors"]),
            training=load(contents["training.safetensors"]),
            state=json.loads(contents["state.json"]),
            manifest=manifest,
            ema=load(contents["ema.safetensors"]) if "ema.safetensors" in contents else None,
        )
    except (KeyError, TypeError, AttributeError, ValueError, SafetensorError) as error:
        raise DamagedCheckpointError(f"{path}: its manifest lists no whole checkpoint ({error!r})") from error


def open_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint that a person named. Raises SpecError where there is none, or a damaged one."""
    try:
        return read_checkpoint(path)
    except DamagedCheckpointError as error:
        rule = f"is no whole checkpoint: {error}" if path.exists() else "there is no such folder"
        way_out = "Give the folder of a checkpoint; `checkpoint import` makes one of an original state dict"
        if _is_of_transformers(path):
            rule = "is a folder of Transformers, and no checkpoint of ours"
            way_out = f"`checkpoint import {path} --output NAME` makes a checkpoint of it"
        raise SpecError(Problem(str(path), rule, way_out)) from error


def _is_of_transformers(path: Path) -> bool:
    """True for a folder whose config.json names a type of model, and that has no manifest."""
    if (path / "manifest.json").exists():
        return False
    try:
        config = json.loads((path / "config.json").read_text())
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "model_type" in config


def weights_sha256(manifest: dict[str, Any]) -> str:
    """Names the weights that evaluations use: the digest of model.safetensors and, where there is one, the EMA's."""
    digests = [manifest["files"][name]["sha256"] for name in _WEIGHTS if name in manifest["files"]]
    return digests[0] if len(digests) == 1 else _sha256("".join(digests).encode())


def differences(own: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> dict[str, str]:
    """Why `weights` do not fit a model of the tensors `own`: one reason for each part (a name's first word)."""
    found: dict[str, str] = {}
    for name in sorted(own.keys() | weights.keys()):
        part = name.split(".")[0]
        if name not in weights:
            found.setdefault(part, f"the model has {name}, the checkpoint has not")
        elif name not in own:
            found.setdefault(part, f"the checkpoint has {name}, the model has not")
        elif own[name].shape != weights[name].shape:
            expected, got = list(own[name].shape), list(weights[name].shape)
            found.setdefault(part, f"{name} must be {expected} in this model, got {got} from the checkpoint")
    return found


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest alone. Raises DamagedCheckpointError."""
    try:
        manifest: dict[str, Any] = json.loads((path / "manifest.json").read_text())
    except (OSError, ValueError) as error:
        raise DamagedCheckpointError(f"{path / 'manifest.json'} cannot be read ({error})") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != SCHEMA:
        raise DamagedCheckpointError(f"{path}: its manifest is not of schema {SCHEMA}, which this version reads")
    if missing := {"spec", "progress", "files"} - manifest.keys():
        raise DamagedCheckpointError(f"{path}: its manifest lacks {', '.join(sorted(missing))}")
    return manifest


def newest_checkpoint(trial_directory: Path, attempt: int, first: int = 1) -> tuple[Path, Checkpoint] | None:
    """The good checkpoint of the largest step among the attempts `first` to `attempt`; None if there is none.

    A damaged one is set aside (renamed to `*.damaged`) and the one before it is used.
    """
    for path in reversed(checkpoints_of(trial_directory, attempt, first)):
        try:
            return path, read_checkpoint(path)
        except DamagedCheckpointError as error:
            logger.warning("%s; set aside, using the one before it", error)
            with contextlib.suppress(FileNotFoundError):  # another worker of the trial was first
                path.rename(path.with_name(f"{path.name}.damaged"))
    return None


def checkpoint_path(trial_directory: Path, attempt: int, step: int) -> Path:
    """Where the checkpoint of an attempt at a step lives."""
    return trial_directory / "attempts" / str(attempt) / f"step-{step:08d}"


NEWEST_KEPT = 2
"""The newest checkpoint, and the one before it in case the newest is damaged."""


def checkpoints_of(trial_directory: Path, attempt: int, first: int = 1) -> list[Path]:
    """The checkpoints of the attempts `first` to `attempt`, the newest last."""
    return in_order((trial_directory / "attempts").glob("*/step-*"), attempt, first)


def in_order(paths: Iterable[Path], attempt: int, first: int = 1) -> list[Path]:
    """Of paths as `checkpoint_path` makes them: those of the attempts `first` to `attempt`, the newest last."""
    return sorted((p for p in paths if p.suffix != ".damaged" and first <= int(p.parent.name) <= attempt), key=_order)


def _order(path: Path) -> tuple[int, int]:
    return int(path.name.removeprefix("step-")), int(path.parent.name)


def _read_verified(path: Path, facts: dict[str, Any]) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedCheckpointError(f"{path}: {error.strerror}") from error
    if len(content) != facts["bytes"] or _sha256(content) != facts["sha256"]:
        raise DamagedCheckpointError(f"{path}: its bytes are not those that the manifest lists")
    return content


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _write_flushed(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
