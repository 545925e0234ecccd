"""Where a recipe's records come from: a local file or folder, or a dataset on the Hugging Face hub.

Only data files are read (CSV, JSON, JSON lines, Parquet, text): no code of a dataset ever runs, nothing is unpickled.
With `sha256` the content names the data: the same bytes from elsewhere are the same dataset.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, model_validator

from hrm.data.hub import CONVERTED, Repository, RepositoryKind
from hrm.data.reading import GZIP, SUFFIXES, read_records
from hrm.errors import Problem, SpecError
from hrm.spec import Spec

_SPLIT_WORD = re.compile(r"(?<![a-z])(train|test|valid|validation|val|dev)(?![a-z])")


class SourceSpec(Spec):
    """`source:` of a recipe."""

    path: str | None = None
    """A local file or folder, relative to the working directory; `~` is the home directory."""
    hub: str | None = Field(default=None, pattern=r"^[\w.-]+/[\w.-]+$")
    """`owner/name` of a dataset on the hub. Exactly one of `path` and `hub` is given."""
    files: str | None = None
    """The files taken of a folder or a hub dataset, as a glob of their paths in it (`data/train-*.parquet`; `*` goes
    across folders). null: the data files of one format, in this order: Parquet, JSON lines, CSV, JSON, text."""
    revision: str | None = None
    """Branch, tag or commit of the hub dataset; null: main."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Of the file; of several, of their digests in order of name, by line: `sha256sum * | cut -c-64 | sha256sum`."""
    repository: ClassVar[RepositoryKind] = "dataset"

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        # Without a place but with a digest: what `canonical` leaves, good for everything but reading.
        if (self.path and self.hub) or not (self.path or self.hub or self.sha256):
            raise ValueError(
                f"exactly one of path and hub must be given, got path {self.path!r}, hub {self.hub!r}. Give one"
            )
        if self.revision and not self.hub:
            raise ValueError(f"revision is of a hub dataset, got {self.revision!r}. Leave it out, or give hub")
        return self

    def canonical(self) -> dict[str, Any]:
        """What the hash covers: with a digest no place, for the content names the data."""
        places = ("path", "hub", "files", "revision") if self.sha256 else ()
        return {name: value for name, value in super().canonical().items() if name not in places}

    def locate(self) -> list[Path]:
        """The local files, sorted by their names in the source; downloaded where needed.

        Raises SpecError if there are none, if the hub cannot be reached, and for another digest than `sha256`.
        """
        files = self._located()
        if self.sha256 and (found := _digest(files)) != self.sha256:
            names = ", ".join(str(file) for file in files[:3]) + (", ..." if len(files) > 3 else "")
            raise SpecError(
                Problem(
                    f"source: {names}",
                    f"sha256 must be {self.sha256}, got {found}",
                    "Fetch the data again, or correct sha256 if the new data is meant",
                )
            )
        return files

    def records(self) -> Iterator[dict[str, Any]]:
        """The records of all files, one after the other, read as they are asked for.

        CSV, JSON lines and Parquet: the rows. JSON: the items of a list, or of a mapping `{"id": ..., "value": ...}`.
        Text: one record `{"text": whole file}`. Raises SpecError naming the file and the line of what is broken.
        """
        for file in self.locate():
            yield from read_records(file)

    def digest(self) -> str:
        """What `sha256` of this source is."""
        return _digest(self.locate())

    def _located(self) -> list[Path]:
        if self.hub:
            return self._downloaded(self.hub)
        if not self.path:
            rule = f"the data of sha256 {self.sha256} has no place"
            raise SpecError(Problem("source", rule, "Give path or hub beside sha256"))
        path = Path(self.path).expanduser()
        if path.is_file():
            if self.files:
                rule = f"files is a glob for a folder, and path is one file, got {self.files!r}"
                raise SpecError(Problem(f"source: {path}", rule, "Leave files out"))
            return [path]
        if not path.is_dir():
            rule = f"there is no such file or folder (looked for {path.absolute()})"
            raise SpecError(Problem(f"source: {path}", rule, "Correct path, or name a hub dataset instead"))
        names = [file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file()]
        return [path / name for name in self._chosen(names, str(path))]

    def _downloaded(self, hub: str) -> list[Path]:
        repository = Repository.resolve(self.repository, hub, self.revision)
        names = repository.names()
        if self.repository == "dataset" and self.files is None and not self.usual_files(names):
            repository = Repository.resolve("dataset", hub, CONVERTED, missing_ok=True) or repository
            names = repository.names()
        return repository.download(self._chosen(names, hub))

    def _chosen(self, names: list[str], place: str) -> list[str]:
        """The names taken, sorted. Raises SpecError for none, and for several splits taken by default."""
        if self.files is not None:
            chosen = [name for name in names if fnmatchcase(name, self.files)]
        else:
            chosen = self.usual_files(names)
            if len(splits := {word for name in chosen for word in _SPLIT_WORD.findall(name.lower())}) > 1:
                rule = f"holds files of several splits ({', '.join(sorted(splits))})"
                raise SpecError(Problem(f"source: {place}", rule, "Say with files which are meant: train-*.parquet"))
        if not chosen:
            found = ", ".join(sorted(names)[:8]) or "nothing"
            wanted = f"named {self.files}" if self.files else "of a known format"
            raise SpecError(Problem(f"source: {place}", f"no file is {wanted}; there is {found}", "Correct files"))
        return sorted(chosen)

    @staticmethod
    def usual_files(names: list[str]) -> list[str]:
        """What is taken without `files`: the data files of the first format that occurs."""
        visible = [name for name in names if not any(part.startswith(".") for part in name.split("/"))]
        for suffix in SUFFIXES:
            chosen = [name for name in visible if name.lower().removesuffix(GZIP).endswith(suffix)]
            if suffix == ".txt":
                chosen = [name for name in chosen if not name.lower().endswith(("readme.txt", "license.txt"))]
            if chosen:
                return chosen
        return []


def _digest(files: list[Path]) -> str:
    digests = [_file_digest(file, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(f"{d}\n" for d in digests).encode()).hexdigest()


@cache
def _file_digest(path: Path, size: int, changed: int) -> str:
    """Cached, for a build asks for the same files more than once; other size or time, other file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
