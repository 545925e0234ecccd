"""Which sweep a command means: by its name in the storage or in a store, by its folder, or the newest."""

from __future__ import annotations

from pathlib import Path

from hrm.errors import Problem, SpecError
from orchestrator.store import SweepStore


def named_sweep(storage: Path, name: str | None, store: str | None = None) -> SweepStore:
    """The sweep of this name, or the newest; `store`: as its copies in a store say it is.

    Raises SpecError, naming the sweeps there are.
    """
    if store:
        from orchestrator.fetched import sweep_in

        return sweep_in(store, name)
    found = sorted((storage / "sweeps").glob("*/sweep.json"), key=lambda path: path.stat().st_mtime)
    names = [path.parent.name for path in found]
    if name is None and names:
        return SweepStore(storage, names[-1])
    if name in names:
        return SweepStore(storage, name)
    rule = f"there is no sweep {name!r}" if name else "there is no sweep yet"
    way_out = f"The sweeps here are {', '.join(names)}" if names else "Start one with `sweep`, or give its --storage"
    raise SpecError(Problem(str(storage), rule, way_out))


def sweep_directory(storage: Path, name: str | None, store: str | None = None) -> Path:
    """As `named_sweep`, its directory; `name` may also be the path of one, such as that of another storage."""
    if name is not None and (Path(name) / "sweep.json").exists():
        return Path(name)
    return named_sweep(storage, name, store).directory
