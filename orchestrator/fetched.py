"""What lies in a store, brought to this machine: a checkpoint that a person names, a sweep to look at."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import shutil
from pathlib import Path

from analysis.records import read_sweep_record
from analysis.sweep import Sweep, load_sweep
from hrm.data.row_results import TEST_ROWS
from hrm.errors import Problem, SpecError, StorageError
from hrm.remote import Archive, DamagedFolderError, node_cache
from orchestrator.copies import rebuild
from orchestrator.store import SweepStore

logger = logging.getLogger(__name__)
PATIENCE_SECONDS = 5.0
"""For what a report can do without."""


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


def sweep_with_rows(directory: Path) -> Sweep:
    """A sweep as its directory says it is; of one with a store, the results by test row are brought from there.

    Where the store cannot be read it is the sweep without these: a report is not worth less than its store.
    """
    sweep = load_sweep(directory)
    if sweep.record.store:
        try:
            _bring_rows(sweep, Archive(sweep.record.store, PATIENCE_SECONDS).at("sweeps", sweep.record.name, "trials"))
        except (SpecError, StorageError, OSError) as error:
            logger.warning("the results by test row stay in the store: %s", error)
    return sweep


def _bring_rows(sweep: Sweep, archive: Archive) -> None:
    for trial in sweep.select(phase="replica", state="completed"):
        path = sweep.folder_of(trial) / TEST_ROWS
        if not path.exists():
            with contextlib.suppress(FileNotFoundError):
                content = archive.read(f"{trial.key}/{TEST_ROWS}")
                temporary = path.with_suffix(".tmp")
                temporary.write_bytes(content)
                temporary.replace(path)


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
