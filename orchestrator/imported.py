"""A model of Transformers to start from: imported into the storage once as a checkpoint of ours, and found again there.

The folder there is named by what was imported, so that other weights under the same name are another start.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from hrm.checkpoint import write_checkpoint
from hrm.errors import Problem, SpecError
from hrm.huggingface.places import HUB, local_folder
from hrm.huggingface.reading import CONFIG, read_transformers


def imported_from_hub(storage: Path, name: str, revision: str | None, place: str) -> Path:
    """The checkpoint of `owner/name` at a branch, tag or commit; `place` starts each problem."""
    named = f"{HUB}{name}" + (f"@{revision}" if revision else "")
    try:
        folder = local_folder(named)
    except SpecError as error:
        raise _placed(error, place) from error
    return imported(storage, folder, place, name.rpartition("/")[2])


def imported(storage: Path, folder: Path, place: str, name: str = "") -> Path:
    """The checkpoint of a folder that `save_pretrained` wrote. Raises SpecError for one that we cannot compute."""
    output = storage.absolute() / "imported" / f"{name or folder.name}-{_digest(folder)}"
    if output.exists():
        return output
    try:
        checkpoint = read_transformers(folder)
    except SpecError as error:
        raise _placed(error, place) from error
    own = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        write_checkpoint(own, checkpoint)
        try:
            own.rename(output)
        except OSError:
            if not output.exists():  # else another process was first
                raise
    except OSError as error:
        rule = f"cannot be written: {error.strerror}"
        raise SpecError(Problem(str(output), rule, "Give another --storage, or change its rights")) from error
    shutil.rmtree(own, ignore_errors=True)
    return output


def _digest(folder: Path) -> str:
    """Of the configuration and the weights, for the folder's name."""
    digest = hashlib.sha256()
    for path in [folder / CONFIG, *sorted(folder.glob("*.safetensors"))]:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _placed(error: SpecError, place: str) -> SpecError:
    return SpecError(*(Problem(place, f"{p.place}: {p.rule}", p.way_out) for p in error.problems))
