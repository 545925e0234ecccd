"""From a recipe to a built dataset and back to rows.

A dataset is a folder `KIND-HASH` that appears by one rename, whole, whoever is killed and however many build it at
once. Rows are read from memory-mapped Arrow files and never loaded whole; augmentations are made as they are read.
"""

from __future__ import annotations

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from hrm.data.manifest import MANIFEST, DatasetManifest, damaged, file_digest, fsync_directory
from hrm.data.parallel import BuildProgress
from hrm.data.writer import SPLITS, DatasetWriter, boundaries_file
from hrm.errors import Problem, SpecError, StorageError
from hrm.remote import Archive, DamagedFolderError

if TYPE_CHECKING:
    from hrm.tasks import TaskShape, TaskSpec  # hrm.tasks imports this module

MakeForms = Callable[[dict[str, np.ndarray], np.ndarray], dict[str, np.ndarray]]
"""Stored rows [B] and the numbers of their forms [B] -> the rows in these forms (`TaskSpec.form`)."""
__all__ = [
    "SPLITS",
    "Dataset",
    "DatasetManifest",
    "DatasetWriter",
    "Rows",
    "build_dataset",
    "fetch_dataset",
    "open_dataset",
]


class Rows:
    """The rows of one split, memory-mapped, and where its puzzles and groups end.

    The rows of puzzle p are `puzzle_indices[p]` up to `puzzle_indices[p + 1]`, the puzzles of group g
    `group_indices[g]` up to `group_indices[g + 1]`. Without a file of them each row is a puzzle and a group of its own.

    Where rows have F forms, each stored puzzle stands for F: stored rows [a, b) are the rows [a * F, b * F), form by
    form, and the forms of a group's puzzles are its puzzles.
    """

    def __init__(
        self, path: Path, boundaries: Path | None = None, forms: int = 1, make_forms: MakeForms | None = None
    ) -> None:
        self._batches = _batches(path)
        self._starts = np.cumsum([0, *(len(batch["inputs"]) for batch in self._batches)])
        self._forms, self._make_forms = forms, make_forms
        stored: dict[str, np.ndarray] = _batches(boundaries)[0] if boundaries else {}
        self._ends = stored["puzzle_indices"][0] if stored else None
        puzzles = np.arange(self._starts[-1] + 1) if self._ends is None else self._ends
        groups = stored["group_indices"][0] if stored else puzzles
        self.puzzle_indices, self.group_indices = _boundaries_of_forms(puzzles, groups, forms)
        self._sizes = None if self._ends is None else np.diff(self._ends)

    def __len__(self) -> int:
        return int(self._starts[-1]) * self._forms

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the stored columns."""
        return tuple(self._batches[0])

    def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The rows at `indices` [B], in that order, as int32 copies: column -> [B, S] or [B]. Raises IndexError."""
        indices = np.asarray(indices)
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"rows must be >= 0 and < {len(self)}, got {indices.min()}..{indices.max()}")
        if self._make_forms is None or self._forms == 1:
            return self._stored(indices)
        stored, forms = self._parted(indices)
        return self._make_forms(self._stored(stored), forms)

    def _parted(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of rows as numbers of stored rows and of forms."""
        if self._ends is None or self._sizes is None:
            return indices // self._forms, indices % self._forms
        puzzles = np.searchsorted(self._ends, indices // self._forms, side="right") - 1
        starts, sizes = self._ends[puzzles].astype(np.int64), self._sizes[puzzles]
        forms, places = np.divmod(indices - starts * self._forms, sizes)
        return starts + places, forms

    def _stored(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        if len(self._batches) == 1:
            return {name: column[indices].astype(np.int32) for name, column in self._batches[0].items()}
        owners = np.searchsorted(self._starts, indices, side="right") - 1
        result = {
            name: np.empty((len(indices), *column.shape[1:]), np.int32) for name, column in self._batches[0].items()
        }
        for owner in np.unique(owners).tolist():
            here = owners == owner
            for name, column in self._batches[owner].items():
                result[name][here] = column[indices[here] - self._starts[owner]]
        return result


def _boundaries_of_forms(puzzles: np.ndarray, groups: np.ndarray, forms: int) -> tuple[np.ndarray, np.ndarray]:
    if forms == 1:
        return puzzles, groups
    sizes = np.repeat(np.diff(puzzles), forms)
    return np.concatenate(([0], np.cumsum(sizes, dtype=np.int64))), groups.astype(np.int64) * forms


class Dataset:
    """A built dataset, open for reading."""

    def __init__(self, directory: Path, manifest: DatasetManifest, task: TaskSpec) -> None:
        self.directory = directory
        self.manifest = manifest
        self.task = task
        """The recipe, with the digests of its sources and the fingerprint of the rows; it makes the forms of rows."""

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
        return Rows(
            self.directory / f"{name}.arrow",
            boundaries if boundaries.name in self.manifest.files else None,
            self.task.forms(name),
            self.task.form,
        )

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


def build_dataset(spec: TaskSpec, root: Path, progress: BuildProgress | None = None) -> Dataset:
    """Build the recipe under `root`, unless it is there. Of several builders at once, one builds and the others wait.

    Raises SpecError for a recipe that cannot be built, and for a folder that is there and damaged (never repaired in
    silence).
    """
    spec = spec.identified()
    directory = _directory(spec, root)
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root / f".{directory.name}.lock"):
        if not directory.exists():
            _build(spec, directory, progress)
    return open_dataset(spec, root)


def open_dataset(spec: TaskSpec, root: Path) -> Dataset:
    """Open what `build_dataset` made. Raises SpecError if it is not there, damaged, of another recipe or other rows."""
    spec = spec.identified()
    recipe, directory = spec.recipe(), _directory(spec, root)
    if not directory.is_dir():
        raise SpecError(Problem(str(directory), "the dataset is not built", "Build it first (`data build`)"))
    manifest = DatasetManifest.read(directory)
    if manifest.recipe != recipe.canonical():
        raise damaged(directory / MANIFEST, f"must be of the recipe {recipe.canonical()}, got {manifest.recipe}")
    if spec.fingerprint not in (None, manifest.fingerprint):
        rule = f"must have the fingerprint {spec.fingerprint}, as the recipe says, got {manifest.fingerprint}"
        raise damaged(directory / MANIFEST, rule)
    dataset = Dataset(directory, manifest, spec.model_copy(update={"fingerprint": manifest.fingerprint}))
    dataset.verify_sizes()
    return dataset


def fetch_dataset(spec: TaskSpec, root: Path, archive: Archive) -> None:
    """Bring a built dataset from a store, verified, unless it is under `root`. Raises StorageError."""
    directory = _directory(spec.identified(), root)
    try:
        archive.fetch(directory.name, directory)
    except FileNotFoundError as error:
        raise StorageError(f"the dataset {directory.name} is not in the store {archive}") from error
    except DamagedFolderError as error:
        raise StorageError(f"{error}; delete the folder, the same command sends it again") from error


def _directory(spec: TaskSpec, root: Path) -> Path:
    return root / f"{spec.kind}-{spec.recipe().hash()}"


def _build(spec: TaskSpec, directory: Path, progress: BuildProgress | None) -> None:
    """Build beside `directory` and rename. What a killed builder left is cleared by the next: the lock is ours."""
    unfinished = directory.with_name(f".{directory.name}.building")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    try:
        writer = DatasetWriter(unfinished, spec.recipe().canonical(), progress)
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


def _batches(path: Path) -> list[dict[str, np.ndarray]]:
    file = pa.ipc.open_file(pa.memory_map(str(path), "r"))
    batches = [file.get_batch(number) for number in range(file.num_record_batches)]
    return [{name: _view(batch.column(name)) for name in batch.schema.names} for batch in batches]


def _view(column: pa.Array) -> np.ndarray:
    """A column of the map as an array [N] or [N, S], without a copy."""
    if not pa.types.is_fixed_size_list(column.type):
        return np.asarray(column.to_numpy(zero_copy_only=True))
    return np.asarray(column.flatten().to_numpy(zero_copy_only=True)).reshape(len(column), column.type.list_size)
