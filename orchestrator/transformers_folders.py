"""`checkpoint export --format transformers`: the folder, with the tokenizer of the data that it was trained on."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from hrm.checkpoint import Checkpoint
from hrm.data.dataset import build_dataset
from hrm.errors import Problem, SpecError
from hrm.huggingface.card import UNKNOWN
from hrm.huggingface.exporting import Export, export_transformers
from hrm.loading import parse_model
from hrm.tasks import TaskShape
from orchestrator.commands import writing
from orchestrator.evaluation import trial_of

_OPTIONS = {"dtype": "--dtype", "task": "--task", "license": "--license", "license_file": "--license-file"}
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def refuse_options_of_folders(options: argparse.Namespace) -> None:
    """Raises SpecError for options that mean nothing for a file of weights."""
    given = [name for field, name in _OPTIONS.items() if getattr(options, field) is not None]
    if given:
        rule = f"means nothing for --format {options.format}"
        raise SpecError(*[Problem(name, rule, "Give --format transformers, or leave it out") for name in given])


def export_folder(checkpoint: Checkpoint, options: argparse.Namespace) -> int:
    """Write the folder and say what is in it; gives the exit code."""
    place = str(options.path)
    export = Export(
        checkpoint,
        place,
        **_of_data(checkpoint, place, options),
        weights=options.weights,
        dtype=options.dtype or "float32",
        license=options.license or (options.license_file.stem if options.license_file else UNKNOWN),
        license_text=_text_of(options.license_file),
    )
    with writing(options.output):
        facts = export_transformers(export, options.output)
    if options.json:
        print(json.dumps(facts))
        return 0
    size = sum(facts["files"].values()) / 2**20
    print(f"{options.output}: {facts['class']}, {facts['dtype']}, {len(facts['files'])} files, {size:.1f} MiB")
    if not facts["tokenizer"]:
        print("without a tokenizer: the checkpoint does not say which text it is for; --task RECIPE does")
    if facts["license"] == UNKNOWN:
        print("its card says that the license is unknown: --license NAME, --license-file FILE")
    return 0


def _of_data(checkpoint: Checkpoint, place: str, options: argparse.Namespace) -> dict[str, Any]:
    """Shape, tokenizer and prompts: of the task it was trained on, or as an imported checkpoint has them."""
    manifest = checkpoint.manifest
    if options.task is None and manifest["spec"].get("task") is None:
        said = manifest["task_shape"]
        shape = TaskShape(said["vocab_size"], said["sequence_length"] or 1, said["num_puzzle_identifiers"], True)
        return {"shape": shape, "tokenizer_files": _tokenizer_of_origin(manifest)}
    # Before any data are built: the model alone may be a reason to refuse.
    spec = parse_model(manifest["spec"]["model"], place)
    if spec.sees_the_future:
        return {"shape": TaskShape(1, 1, next_token=True)}
    task = trial_of(checkpoint, place, options.task).task
    dataset = build_dataset(task, options.storage.resolve() / "data")
    _refuse_another_vocabulary(checkpoint, dataset.shape, place)
    tokenizer = task.text_tokenizer(dataset.directory, dataset.manifest.vocabulary)
    return {"shape": dataset.shape, "tokenizer": tokenizer, "prompts_whole": task.prompts_whole}


def _refuse_another_vocabulary(checkpoint: Checkpoint, shape: TaskShape, place: str) -> None:
    held = len(checkpoint.model["embed_tokens.embedding_weight"])
    if held != shape.vocab_size:
        rule = f"--task must be of {held} tokens, as the model is, got {shape.vocab_size}"
        raise SpecError(Problem(place, rule, "Give the recipe that it was trained on"))


def _tokenizer_of_origin(manifest: dict[str, Any]) -> dict[str, bytes] | None:
    """The tokenizer's files that lie where an imported checkpoint came from, if they still do."""
    origin = Path((manifest.get("lineage") or {}).get("path", ""))
    found = {name: (origin / name).read_bytes() for name in _TOKENIZER if (origin / name).is_file()}
    return found if "tokenizer.json" in found else None


def _text_of(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        rule = f"cannot be read as a text: {error}"
        raise SpecError(Problem(f"--license-file {path}", rule, "Give the file of the license's text")) from error
