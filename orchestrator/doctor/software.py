"""The doctor on software: Python, the packages that the product needs, flash-attention and git.

Versions are held against the requirements of the installed product, so that no list of versions is kept here.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

from orchestrator.doctor.finding import Finding

PRODUCT = "hrm-orchestrator"
PACKAGES = ("torch", "ray", "optuna", "mlflow", "pyarrow", "pydantic")
OLDEST_PYTHON = (3, 11)


def examine_software() -> Iterable[Finding]:
    """Python, the packages against what the product asks for, flash-attention, git."""
    yield judge_python(sys.version_info[:3])
    wanted = _requirements()
    for name in PACKAGES:
        yield judge_package(name, _version(name), wanted.get(name))
    flash = _version("flash-attn")
    yield Finding("flash-attention", flash or "not installed: torch's own attention is used")
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


def judge_git(path: str | None) -> Finding:
    """Whether a sweep can record its commit."""
    if path is None:
        return Finding("git", "not found", "warn", "Install git: without it no sweep records its commit.")
    return Finding("git", path)


def _requirements() -> dict[str, str]:
    """The product's requirements by package, without extras and markers; empty if it is not installed."""
    try:
        wanted = [Requirement(line) for line in requires(PRODUCT) or []]
    except PackageNotFoundError:
        return {}
    return {item.name: f"{item.name}{item.specifier}" for item in wanted if item.marker is None}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
