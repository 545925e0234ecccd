"""The checkpoints of one trial, wherever they are kept: in the trial's folder, or in a store with this folder as cache.

With a store a checkpoint is there when its upload is whole. This node's copies are verified, fetched again where they
are damaged, and can be thrown away at any moment.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from hrm.checkpoint import (
    NEWEST_KEPT,
    Checkpoint,
    DamagedCheckpointError,
    checkpoints_of,
    in_order,
    newest_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from hrm.remote import Archive, DamagedFolderError

logger = logging.getLogger(__name__)


class CheckpointFolder:
    """Checkpoints by their names, which are relative to the trial's directory: `attempts/1/step-00000120`."""

    def __init__(self, directory: Path, archive: Archive | None) -> None:
        self.directory = directory
        self._archive = archive and archive.at(directory.name)
        self._brought: set[Path] = set()
        """What was fetched to this node."""

    def names(self, last: int, first: int = 1) -> list[str]:
        """Of the whole ones of the attempts `first` to `last`, the newest last."""
        if self._archive is None:
            return [str(path.relative_to(self.directory)) for path in checkpoints_of(self.directory, last, first)]
        return [str(path) for path in in_order(map(Path, self._archive.folders("attempts")), last, first)]

    def newest(self, last: int, first: int = 1) -> tuple[Path, Checkpoint] | None:
        """The newest good one of these attempts; a damaged one is set aside, and the one before it is used."""
        if self._archive is None:
            return newest_checkpoint(self.directory, last, first)
        for name in reversed(self.names(last, first)):
            try:
                return self.directory / name, self._fetched(self._archive, name)
            except (DamagedCheckpointError, DamagedFolderError) as error:
                logger.warning("%s; set aside, using the one before it", error)
                self._archive.set_aside(name)
            except FileNotFoundError:
                continue  # removed since it was listed
        return None

    def read(self, name: str) -> Checkpoint:
        """One of them. Raises DamagedCheckpointError."""
        if self._archive is None:
            return read_checkpoint(self.directory / name)
        try:
            return self._fetched(self._archive, name)
        except (DamagedFolderError, FileNotFoundError) as error:
            raise DamagedCheckpointError(f"{self._archive.at(name)} is no whole checkpoint: {error}") from error

    def _fetched(self, archive: Archive, name: str) -> Checkpoint:
        path = self.directory / name
        self._brought.add(path)
        with contextlib.suppress(DamagedCheckpointError):
            archive.fetch(name, path)
            return read_checkpoint(path)
        shutil.rmtree(path, ignore_errors=True)  # this node's copy was damaged
        archive.fetch(name, path)
        return read_checkpoint(path)

    def write(self, name: str, checkpoint: Checkpoint) -> None:
        """Write it, on this node first."""
        write_checkpoint(self.directory / name, checkpoint)
        if self._archive is not None:
            self._archive.upload(self.directory / name, name)

    def retain(self, last: int, keep: Iterable[str]) -> None:
        """Remove those of the attempts up to `last`, but the newest two and those in `keep`."""
        found = self.names(last)
        for name in set(found) - {*keep, *found[-NEWEST_KEPT:]}:
            if self._archive is not None:
                self._archive.delete(name)
            shutil.rmtree(self.directory / name, ignore_errors=True)

    def publish(self, file: str, name: str) -> None:
        """Send one of the directory's files to the store, where there is one."""
        if self._archive is not None and (self.directory / file).exists():
            self._archive.upload_file(self.directory / file, name)

    def forget(self, written: bool) -> None:
        """Remove this node's copies of what the store has. written: also what was not fetched but written here."""
        if self._archive is not None:
            for path in {*self._brought, self.directory / "attempts"} if written else self._brought:
                shutil.rmtree(path, ignore_errors=True)
