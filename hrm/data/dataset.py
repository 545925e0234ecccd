"""From a recipe to a built dataset and back to rows.

A dataset is a folder `KIND-HASH` that appears by one rename, whole, whoever is killed and however many build it at
once. Rows are read from memory-mapped Arrow files and never loaded whole.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from hrm.data.manifest import DatasetManifest, damaged, file_digest, fsync_directory
from hrm.data.writer import SPLITS, DatasetWriter, boundaries_file
from hrm.errors import Problem, SpecError

if TYPE_CHECKING:
    from hrm.tasks import TaskShape, TaskSpec  # hrm.tasks imports this module

__all__ = ["SPLITS", "Dataset", "DatasetManifest", "DatasetWriter", "Rows", "build_dataset", "open_dataset"]


class Rows:
    """The rows of one split, memory-mapped, and where its puzzles and groups end.

    The rows of puzzle p are `puzzle_indices[p]` up to `puzzle_indices[p + 1]`, the puzzles of group g
    `group_indices[g]` up to `group_indices[g + 1]`. Without a file of them each row is a puzzle and a group of its own.
    """

    def __init__(self, path: Path, boundaries: Path | None = None) -> None:
        self._columns = _columns(path)
        self.puzzle_indices = self.group_indices = np.arange(len(self) + 1)
        if boundaries is not None:
            stored = _columns(boundaries)
            self.puzzle_indices, self.group_indices = stored["puzzle_indices"][0], stored["group_indices"][0]

    def __len__(self) -> int:
        return len(self._columns["inputs"])

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The rows at `indices` [B], in that order, as int32 copies: column -> [B, S] or [B]. Raises IndexError."""
        return {name: column[indices] for name, column in self._columns.items()}


class Dataset:
    """A built dataset, open for reading."""

    def __init__(self, directory: Path, manifest: DatasetManifest) -> None:
        self.directory = directory
        self.manifest = manifest

    @property
    def shape(self) -> TaskShape:
        """What a model must know of the data."""
        from hrm.tasks import TaskShape

        m = self.manifest
        return TaskShape(m.vocab_size, m.sequence_length, m.num_puzzle_identifiers, m.next_token)

    def split(self, name: str) -> Rows:
        """The rows of a split. Raises SpecError for a name that the dataset lacks."""
        if name not in self.manifest.rows:
            known = ", ".join(self.manifest.rows)
            raise SpecError(Problem(str(self.directory), f"there is no split {name!r}", f"The splits here are {known}"))
        boundaries = self.directory / boundaries_file(name)
        return Rows(self.directory / f"{name}.arrow", boundaries if boundaries.name in self.manifest.files else None)

    def verify(self) -> None:
        """Read every file and compare its SHA-256. Raises SpecError with every file that is not as it was built."""
        self._refuse_unless_equal(("bytes", "sha256"))

    def verify_sizes(self) -> None:
        """The cheap half of `verify`: every file is there and has its size."""
        self._refuse_unless_equal(("bytes",))

    def _refuse_unless_equal(self, facts: tuple[str, ...]) -> None:
        problems: list[Problem] = []
        for name, expected in self.manifest.files.items():
            path = self.directory / name
            if not path.is_file():
                problems.extend(damaged(path, "is missing").problems)
                continue
            found = file_digest(path) if "sha256" in facts else {"bytes": path.stat().st_size}
            wrong = next((fact for fact in facts if found[fact] != expected[fact]), None)
            if wrong:
                rule = f"is damaged: {wrong} must be {expected[wrong]}, got {found[wrong]}"
                problems.extend(damaged(path, rule).problems)
        if problems:
            raise SpecError(*problems)


def build_dataset(spec: TaskSpec, root: Path) -> Dataset:
    """Build the recipe under `root`, unless it is there. Of several builders at once, one builds and the others wait.

    Raises SpecError for a recipe that cannot be built, and for a folder that is there and damaged (never repaired in
    silence).
    """
    directory = _directory(spec, root)
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root / f".{directory.name}.lock"):
        if not directory.exists():
            _build(spec, directory)
    return open_dataset(spec, root)


def open_dataset(spec: TaskSpec, root: Path) -> Dataset:
    """Open what `build_dataset` made. Raises SpecError if it is not there, damaged, or of another recipe."""
    directory = _directory(spec, root)
    if not directory.is_dir():
        raise SpecError(Problem(str(directory), "the dataset is not built", "Build it first (`build_dataset`)"))
    dataset = Dataset(directory, DatasetManifest.read(directory))
    if dataset.manifest.recipe != spec.canonical():
        raise damaged(
            directory / "manifest.json", f"must be of the recipe {spec.canonical()}, got {dataset.manifest.recipe}"
        )
    dataset.verify_sizes()
    return dataset


def _directory(spec: TaskSpec, root: Path) -> Path:
    return root / f"{spec.kind}-{spec.hash()}"


def _build(spec: TaskSpec, directory: Path) -> None:
    """Build beside `directory` and rename. What a killed builder left is cleared by the next: the lock is ours."""
    unfinished = directory.with_name(f".{directory.name}.building")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        writer = DatasetWriter(unfinished, spec.canonical())
        spec.build(writer)
        writer.finish(next_token=spec.next_token)
        unfinished.rename(directory)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    fsync_directory(directory.parent)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold an exclusive flock; the kernel drops it with the process, so a kill leaves no stale lock."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _columns(path: Path) -> dict[str, np.ndarray]:
    batch = pa.ipc.open_file(pa.memory_map(str(path), "r")).get_batch(0)
    return {name: _view(batch.column(name)) for name in batch.schema.names}


def _view(column: pa.Array) -> np.ndarray:
    """A column of the map as an array [N] or [N, S], without a copy."""
    if not pa.types.is_fixed_size_list(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=True))
    return np.asarray(column.flatten().to_numpy(zero_copy_only=True)).reshape(len(column), column.type.list_size)
