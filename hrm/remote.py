"""Archive: folders and files of a store that every node reaches: a local path, NFS, S3, whatever pyarrow opens by URI.

Nothing in it is changed once it is written. A folder exists when its manifest does, which is uploaded last and lists
the digest of every file. Trouble is tried again with growing pauses, for a bounded time; then StorageError names the
URI. Credentials come from the environment, as the store's own library reads them, and are never part of a URI.
"""

from __future__ import annotations

import contextlib
import copy
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from hrm.errors import Problem, SpecError, StorageError

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

MANIFEST = "manifest.json"
PATIENCE_SECONDS = float(os.environ.get("HRM_STORE_SECONDS", "120"))
"""How long a store that does not answer is asked again."""
_CHUNK_BYTES = 2**23
_OBJECT_STORES = ("s3", "gcs", "abfs")
"""Where a file appears whole or not at all; elsewhere it is written under another name and renamed."""
_HOPELESS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR)
_REFUSED = ("NO_SUCH_BUCKET", "ACCESS_DENIED", "INVALID_ACCESS_KEY", "SIGNATURE_DOES_NOT_MATCH")
T = TypeVar("T")


class DamagedFolderError(Exception):
    """A folder of the store is not what its manifest lists."""


class Archive:
    """A place in a store: everything below its URI. Safe to use from several threads and processes."""

    def __init__(self, uri: str, patience: float = PATIENCE_SECONDS) -> None:
        self.uri, self._patience = _checked(uri), patience
        self._system, self._path = _open(self.uri)

    def at(self, *parts: str) -> Archive:
        """A place below this one."""
        below, (base, mark, query) = copy.copy(self), self.uri.partition("?")
        below.uri = "/".join([base.rstrip("/"), *parts]) + mark + query
        below._path = self._at("/".join(parts))
        return below

    def __str__(self) -> str:
        return self.uri

    # --- folders ---------------------------------------------------------------------------------------------------

    def upload(self, folder: Path, name: str) -> None:
        """Send a folder that has a manifest, unless it is there; the manifest last."""
        if self.has(f"{name}/{MANIFEST}"):
            return
        listed: dict[str, Any] = json.loads((folder / MANIFEST).read_text())["files"]
        for file in [*listed, MANIFEST]:
            self.upload_file(folder / file, f"{name}/{file}")

    def folders(self, below: str = "") -> list[str]:
        """The names of all whole folders below a place."""
        ending = f"/{MANIFEST}"
        return [name.removesuffix(ending) for name in self.names(below) if name.endswith(ending)]

    def fetch(self, name: str, target: Path) -> None:
        """Make a verified copy of a folder at `target`, unless it is there; processes of one node do it once.

        Raises FileNotFoundError where the store has no whole one, DamagedFolderError.
        """
        target.parent.mkdir(parents=True, exist_ok=True)
        with (target.parent / f".{target.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if target.exists():
                return
            unfinished = target.with_name(f".{target.name}.fetching")
            shutil.rmtree(unfinished, ignore_errors=True)
            unfinished.mkdir()
            self._download(name, unfinished)
            unfinished.rename(target)

    def _download(self, name: str, folder: Path) -> None:
        text = self.read(f"{name}/{MANIFEST}")
        try:
            files: dict[str, dict[str, Any]] = json.loads(text)["files"]
        except (ValueError, TypeError, KeyError) as error:
            raise DamagedFolderError(f"{self.at(name)}: its manifest cannot be read ({error})") from error
        for file, facts in files.items():
            try:
                digest = self._patiently(partial(self._copy, f"{name}/{file}", folder / file))
            except FileNotFoundError as error:
                raise DamagedFolderError(f"{self.at(name, file)} is missing") from error
            if digest != facts["sha256"]:
                raise DamagedFolderError(f"{self.at(name, file)}: its bytes are not those that the manifest lists")
        (folder / MANIFEST).write_bytes(text)

    def _copy(self, name: str, target: Path) -> str:
        digest = hashlib.sha256()
        with self._system.open_input_stream(self._at(name)) as source, target.open("wb") as file:
            while chunk := source.read(_CHUNK_BYTES):
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        return digest.hexdigest()

    def set_aside(self, name: str) -> None:
        """A damaged folder stops to exist; its files are left for whoever wants to look."""
        old, new = self._at(f"{name}/{MANIFEST}"), self._at(f"{name}/{MANIFEST}.damaged")
        with contextlib.suppress(FileNotFoundError):  # another worker was first
            self._patiently(lambda: self._system.move(old, new))

    def delete(self, name: str) -> None:
        """Remove a folder, its manifest first; nothing happens if it is not there."""
        with contextlib.suppress(FileNotFoundError):
            self._patiently(lambda: self._system.delete_file(self._at(f"{name}/{MANIFEST}")))
        with contextlib.suppress(FileNotFoundError):
            self._patiently(lambda: self._system.delete_dir(self._at(name)))

    # --- files -----------------------------------------------------------------------------------------------------

    def write(self, name: str, content: bytes) -> None:
        """One file, whole or not at all."""
        self._patiently(lambda: self._put(name, [content]))

    def upload_file(self, path: Path, name: str) -> None:
        """One file from the disk."""
        self._patiently(lambda: self._put(name, _chunks(path)))

    def read(self, name: str) -> bytes:
        """A file's content. Raises FileNotFoundError."""

        def whole() -> bytes:
            with self._system.open_input_stream(self._at(name)) as file:
                return bytes(file.read())

        return self._patiently(whole)

    def names(self, below: str = "") -> list[str]:
        """The names of all files below a place, sorted."""
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(self._at(below), recursive=True, allow_not_found=True)
        found = self._patiently(lambda: self._system.get_file_info(selector))
        start = len(self._path.rstrip("/")) + 1
        return sorted(info.path[start:] for info in found if info.type == FileType.File)

    def children(self) -> list[str]:
        """The names of the folders right here, sorted."""
        from pyarrow.fs import FileSelector, FileType

        selector = FileSelector(self._path, allow_not_found=True)
        found = self._patiently(lambda: self._system.get_file_info(selector))
        return sorted(info.base_name for info in found if info.type == FileType.Directory)

    def has(self, name: str) -> bool:
        """True if there is a file of this name."""
        from pyarrow.fs import FileType

        info = self._patiently(lambda: self._system.get_file_info(self._at(name)))
        return bool(info.type == FileType.File)

    def _put(self, name: str, chunks: Iterable[bytes]) -> None:
        path = self._at(name)
        whole_at_once = self._system.type_name in _OBJECT_STORES
        target = path if whole_at_once else f"{path}.{os.getpid()}.partial"
        if not whole_at_once:
            self._system.create_dir(os.path.dirname(path), recursive=True)
        with self._system.open_output_stream(target) as file:
            for chunk in chunks:
                file.write(chunk)
        if not whole_at_once:
            self._system.move(target, path)

    def _at(self, name: str) -> str:
        return f"{self._path.rstrip('/')}/{name}" if name else self._path

    def _patiently(self, action: Callable[[], T]) -> T:
        """What `action` gives, tried again for a bounded time. Raises FileNotFoundError at once, StorageError."""
        deadline, pause = time.monotonic() + self._patience, 0.25
        while True:
            try:
                return action()
            except FileNotFoundError:
                raise
            except OSError as error:
                if "NO_SUCH_KEY" in str(error):
                    raise FileNotFoundError(str(error)) from error
                hopeless = error.errno in _HOPELESS or any(word in str(error) for word in _REFUSED)
                if hopeless or time.monotonic() + pause > deadline:
                    raise StorageError(f"the store {self.uri} failed: {error}") from error
            time.sleep(pause)
            pause = min(2 * pause, 10.0)


def node_cache() -> Path:
    """Where this node keeps what it has fetched: HRM_CACHE, or a folder among the system's temporary files."""
    return Path(os.environ.get("HRM_CACHE") or Path(tempfile.gettempdir()) / f"hrm-cache-{os.getuid()}")


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _checked(uri: str) -> str:
    """The URI; a plain path becomes absolute. Raises SpecError for one that holds a secret."""
    if "://" not in uri:
        return str(Path(uri).expanduser().absolute())
    if "@" in urlsplit(uri).netloc or any(word in uri.lower() for word in ("secret", "access_key", "token=")):
        shown = uri.partition("://")[0] + "://..."
        rule = "holds credentials, which would be written into the sweep's files"
        way_out = "Leave them out: they come from the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)"
        raise SpecError(Problem(f"--store {shown}", rule, way_out))
    return uri.rstrip("/")


def _open(uri: str) -> tuple[FileSystem, str]:
    """The filesystem and the path in it. Raises SpecError for a URI that pyarrow does not know."""
    import pyarrow as pa
    from pyarrow import fs

    try:
        parts = urlsplit(uri)
        if parts.scheme != "s3":
            system, path = fs.FileSystem.from_uri(uri)
            return system, path
        options = dict(parse_qsl(parts.query))
        if unknown := options.keys() - {"endpoint_override", "scheme", "region"}:
            raise TypeError(f"{', '.join(unknown)}: options are endpoint_override, scheme and region")
        if not {"endpoint_override", "region"} & options.keys():
            options["region"] = fs.resolve_s3_region(parts.netloc)
        once = fs.AwsStandardS3RetryStrategy(max_attempts=1)  # we ask again ourselves
        system = fs.S3FileSystem(**options, allow_delayed_open=True, retry_strategy=once, connect_timeout=5)
        return system, f"{parts.netloc}{parts.path}"
    except (pa.ArrowInvalid, TypeError, NotImplementedError, ImportError) as error:
        example = "Give a path, or such as s3://bucket/prefix?endpoint_override=host:9000&scheme=http"
        raise SpecError(Problem(f"--store {uri}", f"is no store that can be opened: {error}", example)) from error
    except OSError as error:
        raise StorageError(f"the store {uri} failed: {error}") from error
