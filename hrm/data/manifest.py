"""The manifest of a built dataset: what the rows are, which recipe made them, and the digest of every file.

It is written last and atomically, so that a folder with a manifest is a whole dataset.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hrm.errors import Problem, SpecError

MANIFEST = "manifest.json"
SCHEMA = 2
"""The version of the folder's layout."""


@dataclass(frozen=True, slots=True)
class DatasetManifest:
    """Everything that is known of a built dataset without opening its rows."""

    schema: int
    name: str
    """The recipe's kind."""
    recipe: dict[str, Any]
    """The recipe's canonical form (`Spec.canonical`)."""
    rows: dict[str, int]
    """Stored rows per split; what forms make of them is not counted."""
    vocab_size: int
    sequence_length: int
    num_puzzle_identifiers: int
    next_token: bool
    vocabulary: list[str]
    facts: dict[str, Any]
    """What the task measured while it built: plain JSON."""
    files: dict[str, dict[str, Any]]
    """File name -> `sha256` (hexadecimal) and `bytes` (its size)."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over everything but the facts: two datasets with one fingerprint hold the same rows and words."""
        content = {name: value for name, value in asdict(self).items() if name != "facts"}
        return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def write(self, directory: Path) -> None:
        """Write `manifest.json` whole or not at all. Raises ValueError for facts that are not JSON."""
        text = json.dumps({**asdict(self), "fingerprint": self.fingerprint}, indent=1, allow_nan=False)
        temporary = directory / f"{MANIFEST}.tmp"
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(directory / MANIFEST)
        fsync_directory(directory)

    @classmethod
    def read(cls, directory: Path) -> DatasetManifest:
        """Read it back. Raises SpecError if it is missing, torn, altered, or of another schema."""
        path = directory / MANIFEST
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            fingerprint = data.pop("fingerprint")
            if data["schema"] != SCHEMA:
                raise damaged(path, f"must have schema {SCHEMA}, got {data['schema']}")
            manifest = cls(**data)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise damaged(path, f"cannot be read as a manifest: {error}") from error
        if manifest.fingerprint != fingerprint:
            raise damaged(path, f"does not match its own fingerprint {fingerprint[:16]}")
        return manifest


def damaged(path: Path, rule: str) -> SpecError:
    """The error for a built folder that cannot be trusted, with the way out."""
    return SpecError(Problem(str(path), rule, f"Delete the folder {path.parent} and build the dataset again"))


def fsync_directory(directory: Path) -> None:
    """Make the names in a directory durable (a rename is, only after this)."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_digest(path: Path) -> dict[str, Any]:
    """`sha256` and `bytes` of a file."""
    with path.open("rb") as file:
        return {"sha256": hashlib.file_digest(file, "sha256").hexdigest(), "bytes": path.stat().st_size}
