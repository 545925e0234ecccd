"""A store: whole folders or none, nothing that is not what was written, a bounded wait. The S3 server is moto's."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from command import s3_store
from conftest import MakeTrial, run

from hrm.context import LocalContext
from hrm.data.dataset import build_dataset, fetch_dataset, open_dataset
from hrm.errors import SpecError, StorageError
from hrm.remote import Archive, DamagedFolderError
from hrm.tasks.red_team import RedTeamSpec
from hrm.train import StopRequested, train

MakeContext = Callable[..., LocalContext]


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_store() as uri:
        yield uri


@pytest.fixture(params=["local", "s3"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Archive:
    if request.param == "local":
        return Archive(str(tmp_path / "store"), patience=1)
    return Archive(request.getfixturevalue("s3"), patience=1).at(tmp_path.name)


def folder(root: Path, content: bytes = b"12345") -> Path:
    """A folder as checkpoints and datasets are: a file and the manifest of it."""
    root.mkdir(parents=True)
    (root / "file").write_bytes(content)
    facts = {"file": {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}}
    (root / "manifest.json").write_text(json.dumps({"files": facts}))
    return root


def test_a_folder_comes_back_as_it_was_and_can_be_deleted(archive: Archive, tmp_path: Path) -> None:
    archive.upload(folder(tmp_path / "one"), "a/one")
    archive.upload(folder(tmp_path / "two"), "a/two")
    assert archive.folders("a") == ["a/one", "a/two"]
    assert archive.at("a").folders() == ["one", "two"]
    archive.at("a").fetch("one", tmp_path / "copy")
    assert (tmp_path / "copy" / "file").read_bytes() == b"12345"
    archive.delete("a/one")
    archive.delete("a/one")
    assert archive.folders() == ["a/two"]
    assert archive.names("nothing") == []


def test_a_folder_without_its_manifest_is_not_there(archive: Archive, tmp_path: Path) -> None:
    archive.upload_file(folder(tmp_path / "one") / "file", "one/file")
    assert archive.folders() == []
    with pytest.raises(FileNotFoundError):
        archive.fetch("one", tmp_path / "copy")


@pytest.mark.parametrize("damage", ["flipped", "truncated", "deleted"])
def test_a_damaged_folder_is_refused_and_stops_to_exist_when_set_aside(
    archive: Archive, tmp_path: Path, damage: str
) -> None:
    archive.upload(folder(tmp_path / "one"), "one")
    if damage == "deleted":
        archive.write("other", b"")
        archive._system.delete_file(archive._at("one/file"))
    else:
        archive.write("one/file", b"12355" if damage == "flipped" else b"12")
    with pytest.raises(DamagedFolderError, match="one/file"):
        archive.fetch("one", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    archive.set_aside("one")
    archive.set_aside("one")
    assert archive.folders() == []


def test_several_workers_of_a_node_fetch_a_folder_once(archive: Archive, tmp_path: Path) -> None:
    archive.upload(folder(tmp_path / "one", b"x" * 10**6), "one")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: archive.fetch("one", tmp_path / "copy"), range(8)))
    assert (tmp_path / "copy" / "file").stat().st_size == 10**6


def test_a_store_that_does_not_answer_is_left_after_a_bounded_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    archive = Archive(f"s3://bucket/x?endpoint_override=127.0.0.1:{port}&scheme=http", patience=1)
    began = time.monotonic()
    with pytest.raises(StorageError, match=f"s3://bucket/x.*127.0.0.1:{port}"):
        archive.write("name", b"content")
    assert time.monotonic() - began < 10


def test_a_store_that_is_back_in_time_costs_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    archive = Archive(f"s3://bucket/x?endpoint_override=127.0.0.1:{port}&scheme=http", patience=20)
    back = threading.Event()

    def serve() -> None:
        time.sleep(1.0)
        with s3_store(port):
            back.wait(30)

    server = threading.Thread(target=serve)
    server.start()
    try:
        archive.write("name", b"content")
        assert archive.read("name") == b"content"
    finally:
        back.set()
        server.join()


def test_credentials_in_a_uri_are_refused_and_not_shown() -> None:
    for uri in ("s3://KEY:TOPSECRET@bucket/x", "s3://bucket/x?secret_key=TOPSECRET"):
        with pytest.raises(SpecError, match="come from the environment") as refused:
            Archive(uri)
        assert "TOPSECRET" not in str(refused.value)


def test_a_uri_that_nothing_opens_is_refused() -> None:
    for uri in ("foo://x", "s3://bucket/x?endpoint=y"):
        with pytest.raises(SpecError, match="is no store that can be opened"):
            Archive(uri)


# --- a training whose checkpoints go to a store -----------------------------------------------------------------------


def contexts(make_context: MakeContext, archive: Archive) -> Callable[[int], LocalContext]:
    """Each attempt on a node of its own, which shares nothing with the others but the store."""

    def make(attempt: int) -> LocalContext:
        context = make_context(f"node-{attempt}/trial", attempt=attempt)
        context.archive = archive.at("trials")
        return context

    return make


def test_a_training_goes_on_on_another_node_and_equals_one_that_stayed(
    make_trial: MakeTrial, make_context: MakeContext, archive: Archive
) -> None:
    trial, node = make_trial(), contexts(make_context, archive)
    whole, result = run(trial, make_context("whole"), test=True)
    generator = train(trial, node(1))
    parts = [next(generator), next(generator)]
    generator.close()
    rest, resumed = run(trial, node(2), known_reports=2, test=True)
    assert [r.validation for r in [*parts, *rest]] == [r.validation for r in whole]
    assert (resumed.best_validation, resumed.test) == (result.best_validation, result.test)
    stored = archive.at("trials").folders("trial")
    assert f"trial/{resumed.best_checkpoint}" in stored
    assert len(stored) <= 3, "the newest two and the best"
    assert not (node(2).trial_directory / "attempts").exists(), "a node keeps nothing"


def test_a_stop_waits_for_the_upload(
    make_trial: MakeTrial, make_context: MakeContext, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = contexts(make_context, archive)(1)
    generator = train(make_trial(), context)
    next(generator)
    monkeypatch.setattr(context, "should_stop", iter([False, True]).__next__)  # after the report, then after a step
    with pytest.raises(StopRequested):
        next(generator)
    assert archive.folders() == ["trials/trial/attempts/1/step-00000002", "trials/trial/attempts/1/step-00000003"]


def test_a_checkpoint_that_is_damaged_in_the_store_is_set_aside_and_the_one_before_it_is_used(
    make_trial: MakeTrial, make_context: MakeContext, archive: Archive
) -> None:
    trial, node = make_trial(), contexts(make_context, archive)
    whole, _ = run(trial, make_context("whole"))
    generator = train(trial, node(1))
    newest = [next(generator), next(generator)][-1].checkpoint
    generator.close()
    archive.write(f"trials/trial/{newest}/model.safetensors", b"damaged")
    rest, _ = run(trial, node(2), known_reports=1)
    assert [r.validation for r in rest] == [r.validation for r in whole[1:]]
    assert f"trials/trial/{newest}/manifest.json.damaged" in archive.names()


def test_a_damaged_copy_on_the_node_is_fetched_again(
    make_trial: MakeTrial, make_context: MakeContext, archive: Archive
) -> None:
    generator = train(make_trial(), contexts(make_context, archive)(1))
    name = next(generator).checkpoint
    generator.close()
    context = contexts(make_context, archive)(2)
    archive.fetch(f"trials/trial/{name}", context.trial_directory / name)
    (context.trial_directory / name / "state.json").write_text("{}")
    rest, _ = run(make_trial(), context, known_reports=1)
    assert rest[0].index == 2


def test_a_dataset_is_fetched_from_the_store_and_verified(archive: Archive, tmp_path: Path) -> None:
    task = RedTeamSpec.smoke()
    built = build_dataset(task, tmp_path / "driver")
    archive.upload(built.directory, built.directory.name)
    fetch_dataset(built.task, tmp_path / "node", archive)
    assert open_dataset(built.task, tmp_path / "node").manifest == built.manifest
    archive.write(f"{built.directory.name}/train.arrow", b"damaged")
    with pytest.raises(StorageError, match=r"train\.arrow"):
        fetch_dataset(built.task, tmp_path / "other", archive)
    archive.delete(built.directory.name)
    with pytest.raises(StorageError, match="is not in the store"):
        fetch_dataset(built.task, tmp_path / "other", archive)
