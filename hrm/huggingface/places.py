"""Which folder a person means by the name of a Transformers model: one here, or a repository on the hub."""

from __future__ import annotations

import re
from pathlib import Path

from hrm.data.hub import Repository
from hrm.errors import Problem, SpecError
from hrm.huggingface.reading import CONFIG

HUB = "hub:"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
_WANTED = (".safetensors", ".safetensors.index.json")
_BESIDE = (CONFIG, "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def names_a_repository(named: str) -> bool:
    """True for `hub:owner/name`, and for owner/name where neither such a path nor a folder `owner` is here."""
    if named.startswith(HUB):
        return True
    return _REPOSITORY.fullmatch(named) is not None and not (Path(named).exists() or Path(named).parent.exists())


def local_folder(named: str) -> Path:
    """A path as it is; the files of a repository (`hub:owner/name`, `@revision` behind it) brought to the hub's cache.

    What was brought once is found again without a network. Raises SpecError where it cannot be had.
    """
    if not names_a_repository(named):
        return Path(named)
    name, _, revision = named.removeprefix(HUB).partition("@")
    if not _REPOSITORY.fullmatch(name):
        raise SpecError(Problem(named, f"must be {HUB}owner/name", "Correct it, or give the path of a folder"))
    try:
        repository = Repository.resolve("model", name, revision or None)
    except SpecError as error:
        raise _also_no_folder(named, error) from error
    files = [file for file in repository.names() if "/" not in file and (file in _BESIDE or file.endswith(_WANTED))]
    if CONFIG not in files:
        raise SpecError(Problem(f"hub model {name}", "it has no config.json", "Name a model of Transformers"))
    return repository.download(files)[files.index(CONFIG)].parent


def _also_no_folder(named: str, error: SpecError) -> SpecError:
    """What may be a path with a slip was looked for on the hub: say both."""
    if named.startswith(HUB):
        return error
    return SpecError(
        *(
            Problem(p.place, f"there is no such folder here, and on the hub: {p.rule}", p.way_out)
            for p in error.problems
        )
    )
