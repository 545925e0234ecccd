"""Records of data files, one at a time: CSV, JSON, JSON lines, Parquet and text, also compressed with gzip.

Memory holds a line, a batch of Parquet rows, or one JSON or text file. What is broken is named by file and line.
"""

from __future__ import annotations

import csv
import gzip
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO, cast

from hrm.errors import Problem, SpecError

SUFFIXES = (".parquet", ".jsonl", ".csv", ".json", ".txt")
"""The formats, in the order in which a folder's are looked for."""
GZIP = ".gz"

Record = dict[str, Any]


def read_records(path: Path) -> Iterator[Record]:
    """The records of a file in its order. Raises SpecError for another format, and where the file is broken."""
    readers = {".parquet": _parquet, ".jsonl": _json, ".csv": _csv, ".json": _json, ".txt": _text}
    suffix = Path(path.name.lower().removesuffix(GZIP)).suffix
    if suffix not in readers or path.name.lower().endswith(".parquet.gz"):
        rule = f"is none of {', '.join(SUFFIXES)} (each but Parquet also {GZIP})"
        raise _broken(path, rule, "Convert it, or name other files")
    try:
        yield from readers[suffix](path)
    except (UnicodeDecodeError, EOFError, OSError, zlib.error) as error:
        raise _broken(path, f"cannot be read: {error}") from error


def _broken(place: Path | str, rule: str, way_out: str = "Correct the file, or fetch it again") -> SpecError:
    return SpecError(Problem(str(place), rule, way_out))


def _open(path: Path) -> TextIO:
    """As UTF-8, a byte order mark skipped, line ends as they are."""
    if path.name.lower().endswith(GZIP):
        return cast(TextIO, gzip.open(path, "rt", encoding="utf-8-sig", newline=""))
    return path.open(encoding="utf-8-sig", newline="")


def _text(path: Path) -> Iterator[Record]:
    with _open(path) as file:
        yield {"text": file.read()}


def _csv(path: Path) -> Iterator[Record]:
    csv.field_size_limit(sys.maxsize)
    with _open(path) as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for record in reader:
                if None in record or None in record.values():
                    names = reader.fieldnames or []
                    rule = f"must hold {len(names)} values ({', '.join(names)}), got another number"
                    raise _broken(f"{path}: line {reader.line_num}", rule)
                yield record
        except csv.Error as error:
            raise _broken(f"{path}: line {reader.line_num}", f"is no CSV: {error}") from error


def _json(path: Path) -> Iterator[Record]:
    """A list, a mapping, or lines: told apart by the content, for their names are used for one another."""
    with _open(path) as file:
        start = file.read(4096).lstrip()[:1]
    if start == "{" and ".jsonl" in path.name.lower():
        yield from _lines(path)
        return
    try:
        yield from _whole(path)
    except _SeveralValuesError:
        yield from _lines(path)


class _SeveralValuesError(Exception):
    """The file holds JSON values one after the other."""


def _whole(path: Path) -> Iterator[Record]:
    with _open(path) as file:
        try:
            content = json.load(file)
        except json.JSONDecodeError as error:
            if error.msg == "Extra data":
                raise _SeveralValuesError from error
            raise _broken(f"{path}: line {error.lineno}", f"is no JSON: {error.msg}") from error
    if isinstance(content, dict):
        yield from ({"id": name, "value": value} for name, value in content.items())
        return
    if not isinstance(content, list):
        raise _broken(path, f"must hold a list or a mapping, got {type(content).__name__}")
    for number, record in enumerate(content):
        yield _checked(record, f"{path}: item {number}")


def _lines(path: Path) -> Iterator[Record]:
    with _open(path) as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            place = f"{path}: line {number}"
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise _broken(place, f"is no JSON: {error.msg}") from error
            yield _checked(record, place)


def _checked(record: Any, place: str) -> Record:
    if not isinstance(record, dict):
        raise _broken(place, f"must be a mapping of fields, got {type(record).__name__}")
    return record


def _parquet(path: Path) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                yield from batch.to_pylist()
    except pa.ArrowInvalid as error:
        raise _broken(path, f"is no Parquet: {error}") from error
