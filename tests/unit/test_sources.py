"""Sources: every format, local and from the hub (a real HTTP server on this machine), and what is refused."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_stub import Hub, running_hub, use

from hrm.data.sources import SourceSpec
from hrm.errors import SpecError
from hrm.spec import parse_spec

RECORDS = [{"question": 'Why, "now"?\nSay.', "answer": "Über"}, {"question": "b", "answer": ""}]


def as_csv() -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, ["question", "answer"])
    writer.writeheader()
    writer.writerows(RECORDS)
    return file.getvalue().encode()


def as_parquet(records: list[dict[str, str]]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), sink)
    return sink.getvalue()


LINES = "\n".join(json.dumps(record) for record in RECORDS).encode() + b"\n\n"
FORMS = {
    "rows.csv": as_csv(),
    "rows.json": json.dumps(RECORDS, indent=1).encode(),
    "rows.jsonl": LINES,
    "lines_by_another_name.json": LINES,
    "list_by_another_name.jsonl": json.dumps(RECORDS).encode(),
    "rows.parquet": as_parquet(RECORDS),
    "rows.csv.gz": gzip.compress(as_csv()),
    "rows.json.gz": gzip.compress(json.dumps(RECORDS).encode()),
    "rows.jsonl.gz": gzip.compress(LINES),
    "marked.csv": b"\xef\xbb\xbf" + as_csv(),
}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as hub:
        use(hub, tmp_path / "cache", monkeypatch)
        yield hub


@pytest.mark.parametrize("name", FORMS)
def test_every_format_gives_the_same_records(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(FORMS[name])
    assert list(SourceSpec(path=str(tmp_path / name)).records()) == RECORDS


def test_text_is_one_record_with_every_byte_of_it(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("one\r\ntwo\rthrée\n".encode())
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(b"four"))
    assert list(SourceSpec(path=str(tmp_path)).records()) == [{"text": "one\r\ntwo\rthrée\n"}, {"text": "four"}]


def test_a_json_mapping_gives_ids_and_values(tmp_path: Path) -> None:
    (tmp_path / "tasks.json").write_text('{"007bbfb7": {"train": []}, "b": 2}')
    records = list(SourceSpec(path=str(tmp_path / "tasks.json")).records())
    assert records == [{"id": "007bbfb7", "value": {"train": []}}, {"id": "b", "value": 2}]


def test_files_of_a_folder_are_chosen_by_glob_and_read_in_order_of_name(tmp_path: Path) -> None:
    for name in ("data/train-b.jsonl", "data/train-a.jsonl", "data/test-a.jsonl", "z.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"name": name}))
    source = SourceSpec(path=str(tmp_path), files="data/train-*.jsonl")
    assert [record["name"] for record in source.records()] == ["data/train-a.jsonl", "data/train-b.jsonl"]


def test_without_files_one_format_is_taken_and_several_splits_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not data")
    (tmp_path / ".hidden.parquet").write_text("not data")
    (tmp_path / "train.jsonl").write_bytes(LINES)
    assert SourceSpec(path=str(tmp_path)).locate() == [tmp_path / "train.jsonl"]
    (tmp_path / "latest.jsonl").write_bytes(LINES)
    assert len(SourceSpec(path=str(tmp_path)).locate()) == 2
    (tmp_path / "test.jsonl").write_bytes(LINES)
    with pytest.raises(SpecError, match=r"holds files of several splits \(test, train\)\. Say with files which"):
        SourceSpec(path=str(tmp_path)).locate()


def test_a_path_is_relative_to_the_working_directory_and_home_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.csv").write_bytes(as_csv())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert list(SourceSpec(path="rows.csv").records()) == list(SourceSpec(path="~/rows.csv").records()) == RECORDS


def test_the_digest_is_that_of_the_file_or_of_the_files_digests_in_order_of_name(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "a.txt").write_text("first")
    each = [hashlib.sha256(content).hexdigest() for content in (b"first", b"second")]
    assert SourceSpec(path=str(tmp_path / "b.txt")).digest() == each[1]
    expected = hashlib.sha256(f"{each[0]}\n{each[1]}\n".encode()).hexdigest()
    assert SourceSpec(path=str(tmp_path)).digest() == expected
    assert SourceSpec(path=str(tmp_path), sha256=expected).digest() == expected
    (tmp_path / "b.txt").write_text("changed")
    with pytest.raises(SpecError, match=rf"a.txt, .*b.txt: sha256 must be {expected}, got .*Fetch the data again"):
        SourceSpec(path=str(tmp_path), sha256=expected).locate()


def test_content_names_the_data_and_not_its_place() -> None:
    digest = "0" * 64
    here, there = SourceSpec(path="a.txt", sha256=digest), SourceSpec(hub="b/c", revision="v1", sha256=digest)
    assert here.hash() == there.hash()
    assert here.canonical() == {"sha256": digest}
    assert parse_spec(SourceSpec, here.canonical(), "recipe").hash() == here.hash()
    assert SourceSpec(path="a.txt").hash() != SourceSpec(path="b.txt").hash()
    with pytest.raises(SpecError, match=r"has no place\. Give path or hub beside sha256"):
        SourceSpec(sha256=digest).locate()


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.jsonl", b'{"a": 1}\n{"a": \n', r"a\.jsonl: line 2: is no JSON: Expecting value\. Correct the file"),
        ("a.jsonl", b'{"a": 1}\n[2]\n', r"a\.jsonl: line 2: must be a mapping of fields, got list"),
        ("a.json", b'[{"a": 1},\n {"a" 2}]', r"a\.json: line 2: is no JSON: Expecting ':' delimiter"),
        ("a.json", b"[1]", r"a\.json: item 0: must be a mapping of fields, got int"),
        ("a.json", b'"word"', r"a\.json: must hold a list or a mapping, got str"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", r"a\.csv: line 3: must hold 2 values \(a, b\), got another number"),
        ("a.csv", b"a,b\n1\n", r"a\.csv: line 2: must hold 2 values \(a, b\), got another number"),
        ("a.txt", b"caf\xe9", r"a\.txt: cannot be read: 'utf-8' codec can't decode"),
        ("a.txt.gz", gzip.compress(b"whole text", mtime=0)[:-9], r"a\.txt\.gz: cannot be read: .*end-of-stream"),
        ("a.txt.gz", b"not compressed", r"a\.txt\.gz: cannot be read: Not a gzipped file"),
        ("a.parquet", b"PAR1 no", r"a\.parquet: is no Parquet: "),
        ("a.pkl", b"", r"a\.pkl: is none of \.parquet, \.jsonl, \.csv, \.json, \.txt .* Convert it"),
    ],
)
def test_what_is_broken_is_named_by_file_and_line(name: str, content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SpecError, match=problem):
        list(SourceSpec(path=str(tmp_path / name)).records())


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({}, "source: exactly one of path and hub must be given, got path None, hub None. Give one."),
        ({"path": "a", "hub": "b/c"}, "source: exactly one of path and hub must be given, got path 'a', hub 'b/c'."),
        ({"path": "a", "revision": "main"}, "source: revision is of a hub dataset, got 'main'. Leave it out, or"),
        ({"hub": "name"}, "source: hub: "),
        ({"path": "a", "sha256": "12"}, "source: sha256: "),
    ],
)
def test_a_source_that_cannot_be_is_refused(fields: dict[str, str], problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(SourceSpec, fields, "source")
    assert str(caught.value).startswith(problem)


def test_a_missing_path_and_a_glob_that_matches_nothing_say_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"there is no such file or folder .*name a hub dataset instead"):
        SourceSpec(path=str(tmp_path / "no")).locate()
    (tmp_path / "a.csv").write_bytes(as_csv())
    with pytest.raises(SpecError, match=r"no file is named \*\.json; there is a\.csv\. Correct files"):
        SourceSpec(path=str(tmp_path), files="*.json").locate()
    with pytest.raises(SpecError, match="files is a glob for a folder"):
        SourceSpec(path=str(tmp_path / "a.csv"), files="*.csv").locate()


def test_parquet_larger_than_the_memory_used_is_read_row_by_row(tmp_path: Path) -> None:
    rows, width = 20_000, 1_000
    schema = pa.schema([("text", pa.string())])
    with pq.ParquetWriter(tmp_path / "big.parquet", schema, compression="zstd") as writer:
        for start in range(0, rows, 2_000):
            writer.write_table(pa.table({"text": [f"{start + n:0{width}d}" for n in range(2_000)]}, schema))
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    held = 0
    count = 0
    for record in SourceSpec(path=str(tmp_path / "big.parquet")).records():
        count += 1
        assert len(record["text"]) == width
        held = max(held, pa.total_allocated_bytes() - before)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == rows
    assert peak + held < rows * width / 2


def test_a_hub_dataset_is_listed_downloaded_and_read(hub: Hub) -> None:
    rest = {"README.md": b"# words", "dataset.py": b"raise SystemExit", "data/test-0.parquet": as_parquet(RECORDS[:1])}
    hub.add("owner/name", {f"data/train-{n}.parquet": as_parquet([record]) for n, record in enumerate(RECORDS)} | rest)
    source = SourceSpec(hub="owner/name", files="data/train-*.parquet")
    assert list(source.records()) == RECORDS
    assert [path.name for path in source.locate()] == ["train-0.parquet", "train-1.parquet"]
    fetched = {request.rsplit("/", 1)[-1] for request in hub.requests if "/resolve/" in request}
    assert fetched == {"train-0.parquet", "train-1.parquet"}
    with pytest.raises(SpecError, match=r"owner/name: holds files of several splits \(test, train\)"):
        SourceSpec(hub="owner/name").locate()


def test_a_revision_is_a_branch_or_a_commit(hub: Hub) -> None:
    hub.add("owner/name", {"a.txt": b"new"})
    old = hub.add("owner/name", {"a.txt": b"old"}, revision="v1")
    for revision, text in ((None, "new"), ("main", "new"), ("v1", "old"), (old, "old")):
        assert list(SourceSpec(hub="owner/name", revision=revision).records()) == [{"text": text}]


def test_a_dataset_without_data_files_is_read_as_the_hub_converted_it(hub: Hub) -> None:
    hub.add("owner/name", {"name.py": b"raise SystemExit", "README.md": b""})
    hub.add("owner/name", {"default/train/0000.parquet": as_parquet(RECORDS)}, revision="refs/convert/parquet")
    assert list(SourceSpec(hub="owner/name").records()) == RECORDS
    hub.add("owner/bare", {"name.py": b"raise SystemExit"})
    with pytest.raises(SpecError, match=r"source: owner/bare: no file is of a known format; there is name\.py"):
        SourceSpec(hub="owner/bare").locate()


def test_what_was_fetched_once_is_found_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_hub() as hub:
        use(hub, tmp_path / "cache", monkeypatch)
        hub.add("owner/name", {"a.csv": as_csv()})
        assert list(SourceSpec(hub="owner/name").records()) == RECORDS
    assert list(SourceSpec(hub="owner/name").records()) == RECORDS
    with pytest.raises(SpecError, match=r"(?s)hub dataset owner/other: the hub cannot be reached: .*HF_ENDPOINT.*path"):
        SourceSpec(hub="owner/other").locate()


def test_the_hubs_refusals_are_errors_with_a_way_out(hub: Hub) -> None:
    hub.add("owner/name", {"a.csv": as_csv()})
    hub.gated.add("owner/gated")
    for fields, problem in (
        ({"hub": "owner/no"}, "hub dataset owner/no: there is no such dataset on the hub. Correct owner/name"),
        ({"hub": "owner/gated"}, "hub dataset owner/gated: its owner asks for terms to be accepted first"),
        ({"hub": "owner/name", "revision": "v9"}, "hub dataset owner/name: there is no revision v9. Correct"),
        ({"hub": "owner/name", "files": "b.csv"}, "source: owner/name: no file is named b.csv; there is a.csv."),
        ({"hub": "owner/name", "sha256": "0" * 64}, "source: "),
    ):
        with pytest.raises(SpecError) as caught:
            SourceSpec(**fields).locate()
        assert str(caught.value).startswith(problem)


def test_hf_endpoint_and_hf_home_say_where_the_hub_and_its_cache_are(tmp_path: Path) -> None:
    program = "from hrm.data.sources import SourceSpec; print(*SourceSpec(hub='owner/name').records())"
    with running_hub() as hub:
        hub.add("owner/name", {"a.txt": b"hello"})
        environment = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_HOME": str(tmp_path / "home")}
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
    assert done.stdout == "{'text': 'hello'}\n"
    assert list((tmp_path / "home").rglob("a.txt"))
