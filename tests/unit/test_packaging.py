"""What is shipped, and that `datasets/` and `experiments/` stay plain folders that hide no package of that name."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("datasets", "experiments")
WHERE = "import importlib.util as u; s = u.find_spec('datasets'); print(s.origin if s else None)"


def origin_of_datasets(python_path: Path | None = None) -> str:
    """Where `import datasets` leads in a process started in the repository; None: nowhere, or to a bare folder."""
    environment = {"PYTHONPATH": str(python_path)} if python_path else {}
    done = subprocess.run([sys.executable, "-c", WHERE], cwd=ROOT, env=environment, capture_output=True, check=True)
    return done.stdout.decode().strip()


@pytest.mark.parametrize("folder", FOLDERS)
def test_data_folders_hold_no_code(folder: str) -> None:
    assert list((ROOT / folder).rglob("*.py")) == []


@pytest.mark.parametrize("folder", [*FOLDERS, "tests", "benchmarks", "docs"])
def test_only_the_three_packages_are_shipped(folder: str) -> None:
    find = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    assert find["namespaces"] is False
    assert not any(fnmatch(folder, pattern) for pattern in find["include"])
    for package in ("orchestrator", "hrm", "analysis"):
        assert any(fnmatch(package, pattern) for pattern in find["include"])


def test_our_datasets_folder_is_no_package() -> None:
    origin = origin_of_datasets()
    assert origin == "None" or not Path(origin).is_relative_to(ROOT)


def test_an_installed_package_named_datasets_wins(tmp_path: Path) -> None:
    """A stand-in for Hugging Face's `datasets`, later on the path than the repository."""
    package = tmp_path / "datasets" / "__init__.py"
    package.parent.mkdir()
    package.write_text("")
    assert origin_of_datasets(tmp_path) == str(package)


def test_every_package_of_ours_can_be_found_by_setuptools() -> None:
    """With `namespaces = false` a folder without an `__init__.py` would be left out of the wheel in silence."""
    for package in ("orchestrator", "hrm", "analysis"):
        folders = {path.parent for path in (ROOT / package).rglob("*.py")}
        assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


def test_the_pins_fit_any_build_of_torch() -> None:
    pins = (ROOT / "constraints.txt").read_text().split()
    assert all(pin.count("==") == 1 and "+" not in pin for pin in pins)
    assert any(pin.startswith("torch==") for pin in pins)
