"""Copies of a sweep's control files in its store, from which a lost control directory is rebuilt.

An epoch is one driver's: `copies/EPOCH/000000` holds every file whole, each next object what was added since: whole new
lines of the journal and of records, other files anew where they changed. Objects are never changed. They are written
before the driver goes on, so that at most the event in flight is missing. The newest epoch counts; a driver that finds
a newer one than its own has been replaced.
"""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
import zlib
from pathlib import Path
from typing import Any

from hrm.errors import StorageError
from hrm.remote import Archive
from orchestrator.lease import LeaseLostError

_GROWING = ("journal.log", "records.jsonl")
"""Files to which lines are added, by their last name."""
_EPOCH = "epoch.txt"
"""In the control directory: which epoch its files are of."""
logger = logging.getLogger(__name__)


class Copies:
    """The driver's side: `commit` after each event. archive: the sweep's place in the store."""

    def __init__(self, archive: Archive, directory: Path) -> None:
        self._archive, self._directory = archive.at("copies"), directory
        self._sent: dict[str, int | str] = {}
        """By file: how many bytes of a growing one, the digest of another."""
        self._number = 0
        self._failed: StorageError | None = None
        before = _newest_epoch(self._archive)
        self.epoch = f"{int(before.partition('-')[0]) + 1 if before else 1:06d}-{uuid.uuid4().hex[:8]}"

    def begin(self) -> None:
        """Copy everything, as the first object of a new epoch."""
        names = [path for pattern in ("sweep.json", "journal.log") for path in self._directory.glob(pattern)]
        names += [path for name in ("trial.json", "records.jsonl") for path in self._directory.glob(f"trials/*/{name}")]
        self._send([str(path.relative_to(self._directory)) for path in sorted(names)], even_nothing=True)
        (self._directory / _EPOCH).write_text(self.epoch)

    def commit(self, key: str) -> None:
        """Copy what an event of a trial has changed. Raises StorageError, LeaseLostError."""
        if _newest_epoch(self._archive, self.epoch) is not None:
            raise LeaseLostError(
                f"another driver has taken over {self._archive}; this one ends and writes nothing more"
            )
        self._send(["sweep.json", "journal.log", f"trials/{key}/trial.json", f"trials/{key}/records.jsonl"])

    def _send(self, names: list[str], even_nothing: bool = False) -> None:
        if self._failed is not None:
            raise self._failed  # asked long enough
        parts = {name: part for name in names if (part := self._news(name)) is not None}
        if not parts and not even_nothing:
            return
        try:
            self._archive.write(
                f"{self.epoch}/{self._number:06d}", _packed({name: text for name, (text, _) in parts.items()})
            )
        except StorageError as error:
            self._failed = error
            raise
        self._number += 1
        self._sent |= {name: mark for name, (_, mark) in parts.items()}

    def _news(self, name: str) -> tuple[str, int | str] | None:
        """What is new in a file, and the mark of it; None for nothing."""
        path = self._directory / name
        if not path.exists():
            return None
        if path.name not in _GROWING:
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            return None if self._sent.get(name) == digest else (content.decode(), digest)
        start = int(self._sent.get(name, 0))
        with path.open("rb") as file:
            file.seek(start)
            content = file.read()
        whole = content[: content.rfind(b"\n") + 1]
        return (whole.decode(), start + len(whole)) if whole else None


def rebuild(archive: Archive, directory: Path) -> bool:
    """Make control files of the copies in the store, `sweep.json` last. False if there are none."""
    copies = archive.at("copies")
    epoch = _newest_epoch(copies)
    if epoch is None:
        return False
    for name in ("sweep.json", "journal.log", "trials"):  # what an unfinished rebuilding, or an older driver, left
        if (directory / name).is_file() or any((directory / name).glob("*")):
            (directory / "replaced").mkdir(exist_ok=True)
            (directory / name).rename(directory / "replaced" / f"{name}-{uuid.uuid4().hex[:8]}")
    directory.mkdir(parents=True, exist_ok=True)
    contents = _contents(copies, epoch)
    for file in sorted(contents, key=lambda file: file == "sweep.json"):
        path = directory / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(contents[file])
    (directory / _EPOCH).write_text(epoch)
    return True


def _contents(copies: Archive, epoch: str) -> dict[str, str]:
    """Every file as it was at the last copy of an epoch."""
    contents: dict[str, str] = {}
    for number, name in enumerate(copies.names(epoch)):
        if name != f"{epoch}/{number:06d}":
            logger.warning("%s is missing: what came after it is left out", copies.at(f"{epoch}/{number:06d}"))
            break
        for file, text in _unpacked(copies.read(name), str(copies.at(name))).items():
            growing = file.rpartition("/")[2] in _GROWING
            contents[file] = contents.get(file, "") + text if growing else text
    return contents


def is_behind(archive: Archive, directory: Path) -> bool:
    """True if another driver has gone on from the copies since this control directory was last used."""
    epoch, own = _newest_epoch(archive.at("copies")), directory / _EPOCH
    return epoch is not None and own.exists() and own.read_text() != epoch


def _newest_epoch(copies: Archive, after: str = "") -> str | None:
    """The newest that has begun; of two drivers that began at once chance decides, for both alike."""
    epochs = (epoch for epoch in reversed(copies.children()) if epoch > after)
    return next((epoch for epoch in epochs if copies.has(f"{epoch}/000000")), None)


def _packed(parts: dict[str, Any]) -> bytes:
    content = zlib.compress(json.dumps(parts).encode())
    return hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def _unpacked(content: bytes, place: str) -> dict[str, str]:
    digest, _, packed = content.partition(b"\n")
    if hashlib.sha256(packed).hexdigest().encode() != digest:
        raise StorageError(f"{place} is damaged: its bytes are not those that were written")
    parts: dict[str, str] = json.loads(zlib.decompress(packed))
    return parts
