"""`data build`, `list`, `verify`, `export`: datasets made, listed, compared with their digests, given away."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from analysis.numbers import duration
from hrm.data.dataset import Dataset, build_dataset
from hrm.data.manifest import DatasetManifest
from hrm.data.original_export import export_original_folder
from hrm.errors import Problem, SpecError
from orchestrator.build_progress import build_progress
from orchestrator.data_names import (
    built_folders,
    folder_meant,
    folder_named,
    folder_of,
    open_folder,
    recipe_named,
    recipes_by_folder,
)


def build(options: argparse.Namespace) -> int:
    """Build a recipe's dataset, unless it is there."""
    spec = recipe_named(options.recipe, options.storage)
    root = options.storage / "data"
    was_there = (root / folder_of(spec)).is_dir()
    began = time.monotonic()
    with build_progress() as progress:
        dataset = build_dataset(spec, root, progress)
    seconds = time.monotonic() - began
    facts = {**_facts(dataset), "built": not was_there, "seconds": round(seconds, 3)}
    if options.json:
        print(json.dumps(facts | {"facts": dataset.manifest.facts}))
        return 0
    print(f"{dataset.directory}: {'there already' if was_there else f'built in {duration(seconds)}'}")
    for split, rows in facts["rows"].items():
        forms = facts["forms"][split]
        print(f"  {split:<12}{rows:>12,} rows" + (f", each in {forms:,} forms" if forms > 1 else ""))
    print(f"  {facts['vocab_size']} tokens in the vocabulary, {facts['sequence_length']} in a row")
    print(f"  {_size(facts['bytes'])}, fingerprint {facts['fingerprint'][:16]}")
    return 0


def list_built(options: argparse.Namespace) -> int:
    """The built datasets of a storage."""
    names = recipes_by_folder()
    rows = [_listed(directory, names.get(directory.name, [])) for directory in built_folders(options.storage)]
    if options.json:
        print(json.dumps(rows))
        return 0
    if not rows:
        print(f"No datasets in {options.storage / 'data'}. Build one: python -m orchestrator data build red_team")
        return 0
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("folder", "recipe", "rows", "size", "fingerprint"):
        table.add_column(title, no_wrap=True, justify="right" if title in ("rows", "size") else "left")
    for row in rows:
        if "damaged" in row:
            table.add_row(row["folder"], f"[red]damaged[/]: see data verify {row['folder']}")
        else:
            sizes = f"{sum(row['rows'].values()):,}", _size(row["bytes"])
            table.add_row(row["folder"], ", ".join(row["recipes"]), *sizes, row["fingerprint"][:16])
    Console().print(table)
    return 0


def verify(options: argparse.Namespace) -> int:
    """Compare every file with its digest; all that is wrong, of all datasets, is said at once."""
    folders = [folder_meant(options.name, options.storage)] if options.name else built_folders(options.storage)
    good: list[dict[str, Any]] = []
    problems: list[Problem] = []
    for directory in folders:
        try:
            dataset = open_folder(directory)
            dataset.verify()
            files = len(dataset.manifest.files) + 1  # and the manifest
            good.append({"dataset": str(directory), "files": files, "bytes": _bytes(dataset.manifest)})
        except SpecError as error:
            problems += error.problems
    if not options.json:
        for fact in good:
            print(f"{fact['dataset']}: {fact['files']} files, {_size(fact['bytes'])}, as they were built")
        if not folders:
            print(f"No datasets in {options.storage / 'data'}.")
    if problems:
        raise SpecError(*problems)
    if options.json:
        print(json.dumps(good))
    return 0


def export(options: argparse.Namespace) -> int:
    """A dataset as a folder that the original code reads."""
    output: Path = options.output
    if output.exists():
        raise SpecError(Problem(str(output), "is there already", "Remove it, or give another --output"))
    with build_progress() as progress:
        if directory := folder_named(options.name, options.storage):
            dataset = open_folder(directory)
        else:
            dataset = build_dataset(recipe_named(options.name, options.storage), options.storage / "data", progress)
        try:
            facts = export_original_folder(dataset, output, progress)
        except OSError as error:
            rule = f"cannot be written: {error.strerror}"
            raise SpecError(Problem(str(output), rule, "Give another --output, or make room")) from error
    if options.json:
        print(json.dumps({"folder": str(output), "dataset": str(dataset.directory), **facts}))
        return 0
    rows = ", ".join(f"{split} {count:,}" for split, count in facts["rows"].items())
    left_out = f"; the format has no place for {', '.join(facts['left_out'])}" if facts["left_out"] else ""
    print(f"{output}: {rows} rows{left_out}")
    return 0


def _facts(dataset: Dataset) -> dict[str, Any]:
    manifest, task = dataset.manifest, dataset.task
    return {
        "dataset": str(dataset.directory),
        "kind": manifest.name,
        "rows": manifest.rows,
        "forms": {split: task.forms(split) for split in manifest.rows},
        "vocab_size": manifest.vocab_size,
        "sequence_length": manifest.sequence_length,
        "num_puzzle_identifiers": manifest.num_puzzle_identifiers,
        "bytes": _bytes(manifest),
        "fingerprint": manifest.fingerprint,
    }


def _bytes(manifest: DatasetManifest) -> int:
    return sum(file["bytes"] for file in manifest.files.values())


def _size(count: int) -> str:
    """`950 B`, `12.3 MB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _listed(directory: Path, recipes: list[str]) -> dict[str, Any]:
    try:
        manifest = DatasetManifest.read(directory)
    except SpecError as error:
        return {"folder": directory.name, "damaged": str(error)}
    facts = {"folder": directory.name, "kind": manifest.name, "recipes": recipes}
    return facts | {"rows": manifest.rows, "bytes": _bytes(manifest), "fingerprint": manifest.fingerprint}
