"""What lies in a store, brought to this machine: a checkpoint that a person names, a sweep to look at."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from analysis.records import read_sweep_record
from hrm.errors import Problem, SpecError
from hrm.remote import Archive, DamagedFolderError, node_cache
from orchestrator.copies import rebuild
from orchestrator.store import SweepStore


def checkpoint_folder(named: str) -> Path:
    """The folder of a checkpoint: a path, a URI, or a path in a sweep whose checkpoints are in a store."""
    path = Path(named)
    if "://" in named:
        place, _, query = named.partition("?")
        above, _, name = place.rstrip("/").rpartition("/")
        return _fetched(Archive(above + (f"?{query}" if query else "")), name, named)
    if path.exists():
        return path
    for sweep in path.parents:
        if (sweep / "sweep.json").exists() and (uri := read_sweep_record(sweep).store):
            return _fetched(Archive(uri).at("sweeps", sweep.resolve().name), str(path.relative_to(sweep)), named)
    return path


def _fetched(archive: Archive, name: str, named: str) -> Path:
    own = hashlib.sha256(str(archive.at(name)).encode()).hexdigest()[:16]
    path = node_cache() / "checkpoints" / own / Path(name).name
    try:
        archive.fetch(name, path)
    except (FileNotFoundError, DamagedFolderError) as error:
        raise SpecError(Problem(named, f"is no whole checkpoint: {error}", "`report` names the best ones")) from error
    return path


def sweep_in(uri: str, name: str | None) -> SweepStore:
    """A copy of a sweep's directory as its store has it, to look at. Raises SpecError, naming the sweeps there are."""
    root = Archive(uri)
    names = root.at("sweeps").children()
    if name is None and len(names) == 1:
        name = names[0]
    if name is None or name not in names:
        rule = f"there is no sweep {name!r}" if name else "say which sweep"
        raise SpecError(Problem(f"--store {uri}", rule, f"The sweeps there are {', '.join(names) or 'none'}"))
    views = node_cache() / "views" / hashlib.sha256(root.uri.encode()).hexdigest()[:16]
    store = SweepStore(views, name, root)
    shutil.rmtree(store.directory, ignore_errors=True)
    store.directory.mkdir(parents=True)
    if not rebuild(root.at("sweeps", name), store.directory) or not store.exists():
        raise SpecError(Problem(f"--store {uri}", f"holds no copy of the sweep {name!r}", "Start it with `sweep`"))
    return store
