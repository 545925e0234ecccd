"""Files of a repository on the Hugging Face hub, through `huggingface_hub`: its cache, its login, its mirrors.

HF_ENDPOINT, HF_HOME, HF_TOKEN and HF_HUB_OFFLINE are honoured. What has been fetched once is found again without a
network. Files only: nothing that they hold is run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from hrm.errors import Problem, SpecError

if TYPE_CHECKING:
    from huggingface_hub import ResolvedRevision

CONVERTED = "refs/convert/parquet"
"""The branch on which the hub keeps its own Parquet form of a dataset."""

RepositoryKind = Literal["dataset", "model"]


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository at one commit."""

    kind: RepositoryKind
    name: str
    revision: ResolvedRevision

    @overload
    @classmethod
    def resolve(cls, kind: RepositoryKind, name: str, revision: str | None) -> Repository: ...
    @overload
    @classmethod
    def resolve(
        cls, kind: RepositoryKind, name: str, revision: str | None, *, missing_ok: bool
    ) -> Repository | None: ...
    @classmethod
    def resolve(
        cls, kind: RepositoryKind, name: str, revision: str | None, *, missing_ok: bool = False
    ) -> Repository | None:
        """The repository at a branch, tag or commit (null: main), as the hub or, without a network, the cache says.

        Raises SpecError if there is none, except that with `missing_ok` a missing revision is None.
        """
        from huggingface_hub import HfApi
        from huggingface_hub.errors import RevisionNotFoundError

        with _errors_of(kind, name, revision):
            try:
                return cls(kind, name, HfApi().resolve_revision(name, repo_type=kind, revision=revision))
            except RevisionNotFoundError:
                if missing_ok:
                    return None
                raise

    def names(self) -> list[str]:
        """The paths of all files."""
        from huggingface_hub import HfApi, get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError

        with _errors_of(self.kind, self.name, self.revision):
            try:
                return [
                    file.path for file in get_cached_repo_tree(self.name, repo_type=self.kind, revision=self.revision)
                ]
            except CachedRepoTreeNotFoundError:
                return HfApi().list_repo_files(self.name, repo_type=self.kind, revision=self.revision)

    def download(self, names: list[str]) -> list[Path]:
        """Local copies of these files, in the hub's cache."""
        from huggingface_hub import snapshot_download

        patterns = [escape(name) for name in names]
        with _errors_of(self.kind, self.name, self.revision):
            folder = snapshot_download(self.name, repo_type=self.kind, revision=self.revision, allow_patterns=patterns)
        return [Path(folder, name) for name in names]


@contextmanager
def _errors_of(kind: RepositoryKind, name: str, revision: str | None) -> Iterator[None]:
    """Turn what the hub refuses into SpecErrors with the way out."""
    import httpx2
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
        RevisionResolutionError,
    )

    place = f"hub {kind} {name}"
    try:
        yield
    except GatedRepoError as error:
        way_out = "Accept its terms on its page, then log in (`hf auth login`, or HF_TOKEN)"
        raise SpecError(Problem(place, "its owner asks for terms to be accepted first", way_out)) from error
    except RepositoryNotFoundError as error:
        way_out = "Correct owner/name, or log in if it is private (`hf auth login`, or HF_TOKEN)"
        raise SpecError(Problem(place, f"there is no such {kind} on the hub", way_out)) from error
    except RevisionNotFoundError as error:
        rule = f"there is no revision {revision or 'main'}"
        raise SpecError(Problem(place, rule, "Correct revision: a branch, a tag or a commit")) from error
    except (RevisionResolutionError, httpx2.HTTPError, OSError) as error:
        raise SpecError(
            Problem(
                place,
                f"the hub cannot be reached: {_first_line(error)}",
                "Set HF_ENDPOINT to a mirror that can, or HF_HOME to a cache that holds it, or give a local path",
            )
        ) from error


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
