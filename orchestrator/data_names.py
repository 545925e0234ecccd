"""What a dataset is called on the command line: its recipe in `datasets/`, a path, or the folder that was built."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from hrm.data.dataset import Dataset, open_dataset
from hrm.data.manifest import MANIFEST, DatasetManifest, damaged
from hrm.data.sources import SourceSpec
from hrm.errors import Problem, SpecError
from hrm.tasks import TaskSpec
from orchestrator.recipes import named_tasks


def built_folders(storage: Path) -> list[Path]:
    """What was built in a storage, good or damaged; unfinished builds have hidden names."""
    return sorted(path for path in (storage / "data").glob("[!.]*") if path.is_dir())


def folder_named(name: str, storage: Path) -> Path | None:
    """The built folder that `name` means by itself: its path, or its name in the storage."""
    if (directory := storage / "data" / name) in built_folders(storage):
        return directory
    return Path(name) if (Path(name) / MANIFEST).is_file() else None


def folder_meant(name: str, storage: Path) -> Path:
    """The built folder of a name: its own, or its recipe's. Raises SpecError where it is not built."""
    if directory := folder_named(name, storage):
        return directory
    spec = recipe_named(name, storage)
    directory = storage / "data" / folder_of(spec)
    if not directory.is_dir():
        raise SpecError(Problem(name, f"is not built in {storage / 'data'}", f"Build it: data build {name}"))
    return directory


def open_named(name: str, storage: Path) -> Dataset:
    """The built dataset of a name. Raises SpecError where it is not built, or damaged."""
    return open_folder(folder_meant(name, storage))


def open_folder(directory: Path) -> Dataset:
    """A built dataset with the recipe that its manifest holds."""
    tasks, problems = named_tasks([DatasetManifest.read(directory).recipe], directory / MANIFEST)
    if problems:
        raise SpecError(*problems)
    spec = next(iter(tasks.values()))
    if directory.name != (wanted := folder_of(spec)):
        raise damaged(directory / MANIFEST, f"its recipe belongs to a folder named {wanted}")
    return open_dataset(spec, directory.parent)


def recipes_by_folder() -> dict[str, list[str]]:
    """Folder -> the recipes in `datasets/` that give it. The hub is not asked for what a recipe leaves open."""
    names: dict[str, list[str]] = {}
    for path in sorted(Path("datasets").glob("*.yaml")):
        tasks, _ = named_tasks([str(path)], Path("data"))
        for spec in tasks.values():
            sources = [value for _, value in spec if isinstance(value, SourceSpec)]
            if any(source.hub and not source.sha256 for source in sources):
                continue
            with suppress(SpecError):  # a source that is not there
                names.setdefault(folder_of(spec.identified()), []).append(path.stem)
    return names


def folder_of(spec: TaskSpec) -> str:
    """The name of the folder that `build_dataset` makes."""
    return f"{spec.kind}-{spec.recipe().hash()}"


def recipe_named(name: str, storage: Path) -> TaskSpec:
    """A recipe by its name in `datasets/` or its path, with the digests of its sources. Raises SpecError."""
    tasks, problems = named_tasks([name], Path("data"))
    if problems and problems[0].place == "data: tasks[0]":
        built = ", ".join(path.name for path in built_folders(storage)) or "none"
        way_out = f"{problems[0].way_out}; built in {storage / 'data'}: {built}"
        raise SpecError(Problem(name, problems[0].rule, way_out))
    if problems:
        raise SpecError(*problems)
    return next(iter(tasks.values())).identified()
