"""The report of checkpoints: what their weights show, and what was measured with them, if it was.

`report.html`, `report.md`, `report.json`, and every tensor of every checkpoint in `tensors.csv` and `tensors.parquet`.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from analysis.checkpoints.health import Health
from analysis.checkpoints.health_sections import health_sections, is_intact, verdict
from analysis.markdown import document_text
from analysis.numbers import finite
from analysis.page import render_document
from analysis.section import Code, Notes, Section
from analysis.table_files import table_of
from analysis.writing import write_whole

SCHEMA = 1


class Part(Protocol):
    """What another module measured: a dataclass of plain values that says it in sections."""

    def answer(self) -> str:
        """One sentence for the head of the report, with its certainty; empty where there is none."""

    def sections(self) -> list[Section]:
        """Its part of the page."""


@dataclass(frozen=True, slots=True)
class CheckpointReport:
    """Of one checkpoint or several. What was not measured is None."""

    name: str
    health: Health
    behaviour: Part | None = None
    candidates: Part | None = None
    convergence: Part | None = None
    notes: tuple[str, ...] = ()
    """What was left out, and why."""
    command: str = ""
    """That makes this report again."""

    def sections(self) -> list[Section]:
        """The whole page: the answers, what to use, how it behaves, whether it converged, then the weights."""
        measured = [part for part in self._parts().values() if part is not None]
        told = [answer for answer in [*self.answers()[1:], *self.notes] if answer]
        short = [Section("", [Notes(told)], level=2)] if told else []
        again = [Section("This report again", [Code(self.command)])] if self.command else []
        parts = [section for part in measured for section in part.sections()]
        return [*short, *parts, *health_sections(self.health), *again]

    def lead(self) -> str:
        """The first answer, with its certainty."""
        return self.answers()[0]

    def answers(self) -> list[str]:
        """Broken weights first, else what to use of them; whether they are intact is said in any case."""
        said = [part.answer() for part in self._parts().values() if part is not None]
        whole = verdict(self.health)
        answers = [answer for answer in said if answer]
        return [whole, *answers] if self.candidates is None or not is_intact(self.health) else [*answers, whole]

    def to_json(self) -> str:
        """Everything, for programs; what is not finite becomes null."""
        return json.dumps({"schema": SCHEMA, **finite(asdict(self))}, allow_nan=False)

    def _parts(self) -> dict[str, Part | None]:
        return {"candidates": self.candidates, "behaviour": self.behaviour, "convergence": self.convergence}


def write_checkpoint_report(report: CheckpointReport, directory: Path) -> None:
    """Write all five files, each whole or not at all."""
    directory.mkdir(parents=True, exist_ok=True)
    title, sections, lead = f"Checkpoints: {report.name}", report.sections(), report.lead()
    write_whole(directory / "report.html", render_document(title, sections, lead=lead))
    write_whole(directory / "report.md", document_text(title, sections, lead=lead))
    write_whole(directory / "report.json", report.to_json())
    _write_tensors(report.health, directory)


def tensor_rows(health: Health) -> list[dict[str, Any]]:
    """A row for every tensor of every checkpoint, with how far it moved since its training's first."""
    moved = {
        (course.training, label, drift.name): drift.distance[number]
        for course in health.courses
        for number, label in enumerate(course.labels)
        for drift in course.tensors
    }
    return [
        {
            "checkpoint": checkpoint.label,
            "step": checkpoint.step,
            **asdict(tensor),
            "shape": "x".join(map(str, tensor.shape)),
            "share": tensor.parameters / checkpoint.parameters,
            "distance_from_first": moved.get((checkpoint.training, checkpoint.label, tensor.name)),
            "path": checkpoint.path,
        }
        for checkpoint in health.checkpoints
        for tensor in checkpoint.tensors
    ]


def _write_tensors(health: Health, directory: Path) -> None:
    from pyarrow import csv, parquet

    table = table_of(tensor_rows(health))
    for name, write in (("tensors.csv", csv.write_csv), ("tensors.parquet", parquet.write_table)):
        temporary = directory / f".{name}.partial"
        write(table, temporary)
        temporary.replace(directory / name)
