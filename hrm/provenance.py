"""Which code and which machine made a result: stored in every checkpoint and sweep."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "ray", "optuna", "mlflow", "numpy", "pyarrow", "pydantic", "safetensors")


@cache
def code_version() -> dict[str, Any]:
    """`{commit, dirty, diff_sha256}` of the checkout that this package runs from; empty outside of one."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return {}
    try:
        commit = _git(root, "rev-parse", "HEAD").strip()
        diff = _git(root, "diff", "HEAD")
        untracked = _git(root, "ls-files", "--others", "--exclude-standard", "*.py", "*.yaml")
    except (OSError, subprocess.SubprocessError):
        return {}
    changes = diff + untracked
    return {
        "commit": commit,
        "dirty": bool(changes),
        "diff_sha256": hashlib.sha256(changes.encode()).hexdigest() if changes else "",
    }


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout


@cache
def environment() -> dict[str, Any]:
    """Python, package versions, host, processor, cores."""
    return {
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "host": platform.node(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count() or 1,
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def changes_since(manifest: dict[str, Any], resolved: dict[str, Any]) -> list[str]:
    """What is no longer as a checkpoint's manifest says: numbers may differ from those of an unbroken run."""
    pairs = {
        "resolved": (manifest["resolved"], resolved),
        "code": (manifest["code"], code_version()),
        "environment": (manifest["environment"], environment()),
    }
    return [f"{name} was {then}, is {now}" for name, (then, now) in pairs.items() if then != now]
