"""`checkpoint import`, `export`, `show`: weights from elsewhere, back to there, and what is in a checkpoint.

Elsewhere is the original code (files) and Transformers (folders, here or on the hub).
"""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from hrm.checkpoint import Checkpoint, open_checkpoint, weights_sha256, write_checkpoint
from hrm.errors import Problem, SpecError
from hrm.huggingface.lineage import link_in_words
from hrm.huggingface.places import local_folder, names_a_repository
from hrm.huggingface.reading import read_transformers
from hrm.loading import components
from hrm.original.configuration import said_of
from hrm.original.conversion import import_original, original_state_dict
from hrm.original.reading import read_state_dict
from orchestrator.commands import writing
from orchestrator.transformers_folders import export_folder, refuse_options_of_folders


def import_checkpoint(options: argparse.Namespace) -> int:
    """A checkpoint of ours from a state dict of the original code, or from a folder of Transformers."""
    if (options.path / "manifest.json").exists():
        rule = "is a checkpoint of ours already"
        raise SpecError(
            Problem(str(options.path), rule, "Use it as it is: `checkpoint show` it, or start a trial from it")
        )
    checkpoint = _from_elsewhere(options)
    digest = checkpoint.manifest["lineage"]["sha256"][:8]
    output: Path = options.output or options.storage / "imported" / f"{options.path.stem}-{digest}"
    _refuse_existing(output)
    if output.absolute().parent.parent.name == "attempts":
        rule = "is a folder of a trial, which would take it for a checkpoint of its own"
        raise SpecError(Problem(str(output), rule, "Give another --output"))
    with writing(output):
        write_checkpoint(output, checkpoint)
    facts = {"checkpoint": str(output), **_facts(output, checkpoint)}
    if options.json:
        print(json.dumps(facts))
    else:
        print(f"{output}: {_summary(facts)}")
        print("\n".join(_assumptions(facts)))
        print(f"start a trial from it: base: {{initialize_from: {output}}}")
    return 0


def export_checkpoint(options: argparse.Namespace) -> int:
    """A checkpoint's weights: the original's state dict, safetensors under our names, a folder for Transformers."""
    checkpoint = open_checkpoint(options.path)
    if options.format == "transformers":
        _refuse_existing(options.output)
        return export_folder(checkpoint, options)
    refuse_options_of_folders(options)
    weights = _chosen(checkpoint, options.weights, options.path)
    _refuse_existing(options.output)
    buffer = io.BytesIO()
    if options.format == "original":
        torch.save(original_state_dict(checkpoint, weights, str(options.path)), buffer)
    else:
        buffer.write(save(weights, {"model": json.dumps(checkpoint.manifest["spec"]["model"])}))
    _write(options.output, buffer.getbuffer())
    narrowed = (checkpoint.manifest.get("lineage") or {}).get("narrowed", [])
    facts = {"file": str(options.output), "format": options.format, "tensors": len(weights), "narrowed": narrowed}
    lost = f"; {', '.join(narrowed)} lost digits when float64 became float32" if narrowed else ""
    print(json.dumps(facts) if options.json else f"{options.output}: {len(weights)} tensors{lost}")
    return 0


def show_checkpoint(options: argparse.Namespace) -> int:
    """What is in a checkpoint, ours or an original state dict."""
    is_ours = (options.path / "manifest.json").exists()
    if is_ours:
        _refuse_configuration(options)
    checkpoint = open_checkpoint(options.path) if is_ours else _from_elsewhere(options)
    facts = _facts(options.path, checkpoint)
    if options.json:
        print(json.dumps(facts))
        return 0
    print(f"{options.path}: {_summary(facts)}")
    total = sum(facts["components"].values())
    for part, count in facts["components"].items():
        print(f"  {part:<16}{count:>15,}{count / total:>8.1%}")
    print(f"  {'all':<16}{total:>15,}")
    print(f"model: {json.dumps(facts['spec']['model'])}")
    if facts["validation"]:
        print("validation: " + ", ".join(f"{name} {value:.4g}" for name, value in facts["validation"].items()))
    print("\n".join([*_lineage(facts["lineage"]), *_assumptions(facts)]))
    return 0


def _from_elsewhere(options: argparse.Namespace) -> Checkpoint:
    named = str(options.path)
    if options.path.is_dir() or names_a_repository(named):
        _refuse_configuration(options)
        return read_transformers(local_folder(named))
    source = read_state_dict(options.path)
    return import_original(source, said_of(options.path, options.config, options.fields))


def _refuse_configuration(options: argparse.Namespace) -> None:
    if options.config or options.fields:
        rule = "--config and --set are for a state dict of the original code, and this is a folder"
        raise SpecError(Problem(str(options.path), rule, "Leave them out, or import the state dict again with them"))


def _facts(path: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    """What there is to know of it, as plain data."""
    manifest, weights = checkpoint.manifest, checkpoint.evaluation_weights
    dtypes = [str(tensor.dtype).removeprefix("torch.") for tensor in weights.values()]
    return {
        "path": str(path),
        "kind": manifest["spec"]["model"]["kind"],
        "trial_id": manifest.get("trial_id"),
        "spec": manifest["spec"],
        "task_shape": manifest.get("task_shape"),
        "step": manifest["progress"].get("step"),
        "validation": manifest["validation"],
        "num_parameters": manifest["num_parameters"],
        "components": components(weights),
        "dtypes": {name: dtypes.count(name) for name in sorted(set(dtypes))},
        "averaged": checkpoint.ema is not None,
        "weights_sha256": weights_sha256(manifest) if "files" in manifest else None,
        "lineage": manifest.get("lineage"),
    }


def _summary(facts: dict[str, Any]) -> str:
    lineage = facts["lineage"] or {}
    stored = ", ".join(f"{count} {name}" for name, count in lineage.get("dtypes", facts["dtypes"]).items())
    step = "" if facts["step"] is None else f", step {facts['step']}"
    return f"{facts['kind']}, {facts['num_parameters']:,} parameters without tables ({stored} tensors){step}"


def _lineage(lineage: dict[str, Any] | None) -> list[str]:
    """Where the weights came from, the nearest source first."""
    lines = []
    while lineage:
        what, digest = link_in_words(lineage), f"sha256 {lineage['sha256'][:16]}"
        lines.append(f"from {lineage['path']} ({what}, {digest})" if "path" in lineage else f"from {what} ({digest})")
        lineage = lineage.get("lineage")
    return lines


def _assumptions(facts: dict[str, Any]) -> list[str]:
    assumed = (facts["lineage"] or {}).get("assumed", {})
    if not assumed:
        return []
    listed = ", ".join(f"{name}={value}" for name, value in assumed.items())
    return [
        f"assumed, as neither shapes nor a configuration say: {listed}",
        "if it was another: --set field=value, or --config all_config.yaml",
    ]


def _chosen(checkpoint: Checkpoint, which: str | None, path: Path) -> dict[str, Tensor]:
    if which == "ema" and checkpoint.ema is None:
        raise SpecError(Problem(str(path), "it has no averaged weights", "Leave --weights out, or give --weights raw"))
    return checkpoint.model if which == "raw" else checkpoint.evaluation_weights


def _refuse_existing(output: Path) -> None:
    if output.exists():
        raise SpecError(Problem(str(output), "is there already", "Remove it, or give another --output"))


def _write(output: Path, content: bytes | memoryview) -> None:
    """The whole file or none. Raises SpecError where the file system refuses."""
    temporary = output.with_name(f".{output.name}.partial")
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.rename(output)
