"""The sweep that the fault tests disturb, and what must be equal afterwards."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import psutil
from command import check_mlflow, numbers, reports_of, same_weights, trials, wait_for

TRIAL_TITLES = ("ray::TrialProcess", "ray::ResourceTrainable")
"""What Ray calls a process in which trials train: between two calls, and in one."""
SLOT_TITLES = ("RayTrainWorker",)
SERVERS = ("raylet/raylet", "gcs_server")


def sweep(storage: Path, *settings: str) -> tuple[str | Path, ...]:
    """The command's arguments. Without a dashboard, which takes longer to start than these trials to train."""
    chosen = [part for setting in settings for part in ("--set", setting)]
    return ("sweep", storage / "steady.yaml", "--storage", storage, "--no-dashboard", *chosen)


def check_equal(storage: Path, undisturbed: Path) -> None:
    """The same trials, numbers, weights and MLflow runs; nothing is locked."""
    assert numbers(storage, "steady") == numbers(undisturbed, "steady")
    assert same_weights(storage, undisturbed, "steady", "steady")
    check_mlflow(storage, "steady")


def has_reports(storage: Path, key: str, count: int) -> bool:
    """Whether a trial has given so many reports."""
    return bool(reports_of(storage, "steady", key) >= count)


def both_at_work(storage: Path) -> bool:
    """Whether two trials are in the middle of their training now."""
    running = [key for key, trial in trials(storage, "steady").items() if trial.state == "running"]
    return sum(1 <= reports_of(storage, "steady", key) < 4 for key in running) == 2


def family(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    """All that a driver has started."""
    return psutil.Process(driver.pid).children(recursive=True)


def titled(processes: list[psutil.Process], *names: str) -> list[psutil.Process]:
    """Those whose command line has one of the names."""
    return [process for process in processes if any(name in title(process) for name in names)]


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def workers(driver: subprocess.Popen[str]) -> list[psutil.Process]:
    """The processes in which trials train, once there are any."""
    found: list[psutil.Process] = wait_for(lambda: titled(family(driver), *TRIAL_TITLES, *SLOT_TITLES))
    return found


def is_gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_gone(processes: list[psutil.Process], seconds: float = 30) -> None:
    """No orphan of them is left. Ray's agents take up to a minute to notice: give those that matter."""
    wait_for(lambda: all(is_gone(process) for process in processes), seconds)


def finish(driver: subprocess.Popen[str], expect: int = 0, seconds: float = 240) -> str:
    """Wait for a driver; what it said. Shows everything when the exit code is another."""
    try:
        output, errors = driver.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.kill(driver.pid, signal.SIGABRT)
        raise
    assert driver.returncode == expect, f"exit {driver.returncode}\n{output}\n{errors}"
    return output + errors


def goes_on_where_it_was_saved(storage: Path, key: str) -> bool:
    """True if the trial's first attempt was asked to stop, and its second began at the very step that was saved."""
    log = (storage / "sweeps" / "steady" / "trials" / key / "log.txt").read_text()
    saved, resumed = re.search(r"saved at step (\d+)", log), re.search(r"resumed from .*/step-(\d+)", log)
    return bool(saved and resumed and int(saved[1]) == int(resumed[1]) > 0)
