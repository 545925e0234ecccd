"""The doctor on software: Python, the packages that the product needs, flash-attention and git.

Versions are held against the requirements of the installed product, so that no list of versions is kept here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec

from packaging.requirements import Requirement

from orchestrator.doctor.finding import Finding

PRODUCT = "hrm-orchestrator"
PACKAGES = ("torch", "ray", "optuna", "mlflow", "pyarrow", "pydantic")
OLDEST_PYTHON = (3, 11)


def examine_software() -> Iterable[Finding]:
    """Python, the packages against what the product asks for, whether flash-attention loads, git."""
    yield judge_python(sys.version_info[:3])
    wanted = _requirements()
    for name in PACKAGES:
        yield judge_package(name, installed(name), wanted.get(name))
    yield judge_flash_attention(*_flash_attention())
    yield judge_git(shutil.which("git"))


def judge_python(seen: tuple[int, ...]) -> Finding:
    """The interpreter against the oldest that is supported."""
    text = ".".join(map(str, seen))
    if seen[:2] < OLDEST_PYTHON:
        return Finding("python", text, "fail", "Use Python {}.{} or newer.".format(*OLDEST_PYTHON))
    return Finding("python", text)


def judge_package(name: str, seen: str | None, wanted: str | None) -> Finding:
    """An installed version against its requirement, such as `torch>=2.8`; None: not installed, nothing asked."""
    if seen is None:
        return Finding(name, "not installed", "fail", f"pip install '{wanted or name}'")
    if wanted and not Requirement(wanted).specifier.contains(seen, prereleases=True):
        return Finding(name, f"{seen}, but {wanted} is needed", "fail", f"pip install '{wanted}'")
    return Finding(name, seen)


def judge_flash_attention(name: str, error: str) -> Finding:
    """The package against this torch: one built for another does not load. Empty name: not installed."""
    if not name:
        return Finding("flash-attention", "not installed: torch's own attention is used")
    if error:
        fix = "Build it for this torch: pip install --no-build-isolation --force-reinstall --no-deps flash-attn."
        return Finding("flash-attention", f"{name} is installed and does not load: {error}", "warn", fix)
    return Finding("flash-attention", f"{name} loads")


def judge_git(path: str | None) -> Finding:
    """Whether a sweep can record its commit."""
    if path is None:
        return Finding("git", "not found", "warn", "Install git: without it no sweep records its commit.")
    return Finding("git", path)


def _flash_attention() -> tuple[str, str]:
    """The package with its version, and why it does not load. Tried in a process of its own, which it may crash."""
    found = [name for name in ("flash_attn_interface", "flash_attn") if find_spec(name) is not None]
    if not found:
        return "", ""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", f"from {found[0]} import flash_attn_func"]
    name = f"{found[0]} {installed('flash-attn') or ''}".strip()
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    except subprocess.TimeoutExpired:
        return name, "no answer in 120 s"
    lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
    return name, lines[-1] if done.returncode else ""


def _requirements() -> dict[str, str]:
    """The product's requirements by package, without extras and markers; empty if it is not installed."""
    try:
        wanted = [Requirement(line) for line in requires(PRODUCT) or []]
    except PackageNotFoundError:
        return {}
    return {item.name: f"{item.name}{item.specifier}" for item in wanted if item.marker is None}


def installed(package: str) -> str | None:
    """The version of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None
