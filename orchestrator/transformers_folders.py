"""`checkpoint export --format transformers`: the folder, with the tokenizer of the data that it was trained on."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from hrm.checkpoint import Checkpoint
from hrm.errors import Problem, SpecError
from hrm.huggingface.card import UNKNOWN
from hrm.huggingface.exporting import export_transformers
from hrm.huggingface.of_data import export_of
from hrm.tasks import TaskSpec
from orchestrator.commands import writing
from orchestrator.recipes import named_tasks

_OPTIONS = {"dtype": "--dtype", "task": "--task", "license": "--license", "license_file": "--license-file"}


def refuse_options_of_folders(options: argparse.Namespace) -> None:
    """Raises SpecError for options that mean nothing for a file of weights."""
    given = [name for field, name in _OPTIONS.items() if getattr(options, field) is not None]
    if given:
        rule = f"means nothing for --format {options.format}"
        raise SpecError(*[Problem(name, rule, "Give --format transformers, or leave it out") for name in given])


def export_folder(checkpoint: Checkpoint, options: argparse.Namespace) -> int:
    """Write the folder and say what is in it; gives the exit code."""
    data_root = options.storage.resolve() / "data"
    export = replace(
        export_of(checkpoint, str(options.path), data_root, task_option(options.task)),
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
    if facts["loss"] != "softmax":
        print(f"trained for {facts['loss']}: greedy generation is right there, but Transformers samples by softmax")
    if facts["license"] == UNKNOWN:
        print("its card says that the license is unknown: --license NAME, --license-file FILE")
    return 0


def task_option(named: str | None) -> TaskSpec | None:
    """The recipe that `--task` names. Raises SpecError."""
    if named is None:
        return None
    tasks, problems = named_tasks([named], Path("--task"))
    if problems:
        raise SpecError(*problems)
    return next(iter(tasks.values()))


def _text_of(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        rule = f"cannot be read as a text: {error}"
        raise SpecError(Problem(f"--license-file {path}", rule, "Give the file of the license's text")) from error
