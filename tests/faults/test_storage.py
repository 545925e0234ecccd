"""Damaged checkpoints, full disks, a store that goes away, a head that loses its disk: the same numbers in the end.

Really done: files are damaged, small file systems are full, workers live in a mount namespace in which the driver's
folders are not there. The S3 server is moto's, in this process.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from command import STEADY, kill, numbers, run, s3_store, same_weights, start, trials, wait_for
from steady import check_equal, finish, has_reports, sweep, workers

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to mount")


def checkpoints(storage: Path, key: str) -> list[Path]:
    """A trial's whole checkpoints, the newest last."""
    found = (storage / "sweeps" / "steady" / "trials" / key / "attempts").glob("*/step-*")
    return sorted((path for path in found if path.suffix != ".damaged"), key=lambda path: path.name)


def damage(checkpoint: Path, how: str) -> None:
    weights = checkpoint / "model.safetensors"
    content = bytearray(weights.read_bytes())
    if how == "truncated":
        weights.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        content[len(content) // 2] ^= 1
        weights.write_bytes(content)
    else:
        shutil.rmtree(checkpoint)


@pytest.mark.slow
def test_damaged_checkpoints_cost_steps_and_no_trial(storage: Path, undisturbed: Path) -> None:
    driver = start(*sweep(storage))
    wait_for(lambda: has_reports(storage, "hrm-search-0000", 1) and has_reports(storage, "hrm-search-0001", 1))
    kill(driver, signal.SIGTERM)  # at once: the trials take two seconds
    finish(driver, expect=130)
    damage(checkpoints(storage, "hrm-search-0000")[-1], "truncated")
    damage(checkpoints(storage, "hrm-search-0001")[-1], "flipped")
    driver = start(*sweep(storage))  # and now one that is in use
    wait_for(
        lambda: has_reports(storage, "transformer-search-0000", 1) and checkpoints(storage, "transformer-search-0000")
    )
    damage(checkpoints(storage, "transformer-search-0000")[-1], "deleted")
    for worker in workers(driver):
        worker.kill()
    finish(driver)
    check_equal(storage, undisturbed)
    aside = [path.parent.parent.parent.name for path in storage.glob("sweeps/steady/trials/*/attempts/*/*.damaged")]
    logs = {key: (storage / f"sweeps/steady/trials/{key}/log.txt").read_text() for key in trials(storage, "steady")}
    assert sum("set aside, using the one before it" in log for log in logs.values()) >= 2, aside


@contextmanager
def small_disk(place: Path, kilobytes: int) -> Iterator[None]:
    """While it lasts, `place` (a folder or a file) lies on a file system with so much free."""
    if not place.exists():
        place.mkdir(parents=True)
    files = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    size = kilobytes + sum(-(-file.stat().st_size // 4096) * 4 for file in files)
    disk = Path(tempfile.mkdtemp())
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", disk], check=True)
    shutil.move(place, disk / place.name)
    place.symlink_to(disk / place.name)
    try:
        yield
    finally:
        place.unlink()
        shutil.move(disk / place.name, place)
        subprocess.run(["umount", disk], check=True)
        disk.rmdir()


@contextmanager
def elsewhere(place: Path, storage: Path) -> Iterator[None]:
    """While it lasts, the folder `place` is not on the disk of the folder that it is in."""
    other = storage / "elsewhere"
    shutil.move(place, other)
    place.symlink_to(other)
    try:
        yield
    finally:
        place.unlink()
        shutil.move(other, place)


@ROOT_ONLY
@pytest.mark.slow
def test_full_disks_end_the_sweep_and_lose_nothing(storage: Path, undisturbed: Path) -> None:
    directory = storage / "sweeps" / "steady"
    first, journal = directory / "trials" / "hrm-search-0000", directory / "journal.log"

    def ends_for_want_of_space() -> None:
        said = finish(start(*sweep(storage)), expect=3)
        assert "No space left on device" in said
        assert "failed" not in {trial.state for trial in trials(storage, "steady").values()}

    with small_disk(first / "attempts", 64):  # a checkpoint
        ends_for_want_of_space()
    with elsewhere(first / "attempts", storage), small_disk(first, 12):  # its records
        ends_for_want_of_space()
    with small_disk(journal, 8):  # the study
        ends_for_want_of_space()
    run(*sweep(storage))
    check_equal(storage, undisturbed)


@pytest.fixture
def apart(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A Ray cluster in a mount namespace where nothing of the driver's storage is to be seen; its environment."""
    driver, cache = tmp_path / "driver", tmp_path / "cache"
    driver.mkdir()
    environment = {
        "HRM_CACHE": str(cache),
        "HRM_STORE_SECONDS": "4",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a-token-of-this-test-alone-0123456789",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    port = "6411"
    ray = f"{sys.executable} -m ray.scripts.scripts start --head --block --num-cpus=2 --port={port}"
    ray += " --node-ip-address=127.0.0.1 --include-dashboard=false --object-store-memory=80000000"
    ray += f" --temp-dir=/tmp/ray-{os.getpid()}"
    head = subprocess.Popen(
        ["unshare", "--mount", "bash", "-c", f"mount -t tmpfs -o ro tmpfs {driver} && exec {ray}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )
    yield {**environment, "address": f"127.0.0.1:{port}"}
    for process in [*psutil.Process(head.pid).children(recursive=True), psutil.Process(head.pid)]:
        process.kill()
    head.wait()


@ROOT_ONLY
@pytest.mark.slow
def test_workers_that_share_no_disk_with_a_driver_that_loses_its_own(
    tmp_path: Path, undisturbed: Path, apart: dict[str, str]
) -> None:
    storage = tmp_path / "driver"
    (storage / "steady.yaml").write_text(STEADY)
    address = apart.pop("address")
    with s3_store() as uri:
        command = (*sweep(storage), "--address", address, "--store", uri)
        driver = start(*command, environment=apart)
        wait_for(lambda: has_reports(storage, "hrm-search-0001", 2), 150)
        kill(driver)
        driver.wait(30)
        before = trials(storage, "steady")
        shutil.rmtree(storage / "sweeps")
        shutil.rmtree(storage / "data")
        assert "steady" in run("status", "steady", "--storage", storage, "--store", uri)
        finish(start(*command, environment=apart))
        check_equal(storage, undisturbed)
        after = trials(storage, "steady")
        assert all(after[key].attempts == t.attempts for key, t in before.items() if t.ended), (
            "an ended trial ran again"
        )
        assert not list(storage.glob("sweeps/steady/trials/*/attempts"))
        assert not list(Path(apart["HRM_CACHE"]).glob("sweeps/*/trials/*/attempts")), "a node keeps nothing"
        best = run("report", "steady", "--storage", storage)
        shown = run("checkpoint", "show", next(word for word in best.split() if word.startswith("s3://")))
        assert "model" in shown


@pytest.mark.slow
def test_a_store_that_goes_away_ends_the_sweep_in_time_and_nothing_is_lost(
    storage: Path, undisturbed: Path, tmp_path: Path
) -> None:
    environment = {"HRM_CACHE": str(tmp_path / "cache"), "HRM_STORE_SECONDS": "4"}
    with s3_store(name="away") as uri:
        driver = start(*sweep(storage), "--store", uri, environment=environment)
        wait_for(lambda: has_reports(storage, "hrm-search-0001", 1))
    said = finish(driver, expect=3, seconds=120)
    assert f"the store {uri.partition('?')[0]}" in said
    assert "failed" not in {trial.state for trial in trials(storage, "steady").values()}
    assert f"the store {uri.partition('?')[0]}" in finish(start(*sweep(storage), environment=environment), expect=3)
    with s3_store(int(uri.partition("127.0.0.1:")[2].partition("&")[0]), "away"):
        finish(start(*sweep(storage), environment=environment))
        assert numbers(storage, "steady") == numbers(undisturbed, "steady")
        assert same_weights(storage, undisturbed, "steady", "steady")
