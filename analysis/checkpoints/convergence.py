"""Whether the trainings that checkpoints are from have converged: from the reports that lie beside or in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.convergence import Convergence
from analysis.histories import convergence_of_checkpoint, convergence_of_trial
from analysis.section import Section
from analysis.sections.convergence import blocks_of

UNKNOWN = "Whether the training has converged cannot be told: its validation metrics are not in these files."


@dataclass(frozen=True, slots=True)
class CheckpointConvergence:
    """Of each training that has its reports; empty where none has."""

    trainings: list[Convergence]

    def answer(self) -> str:
        """One sentence for each."""
        if not self.trainings:
            return UNKNOWN
        return " ".join(f"Convergence of {each.name}: {each.sentence}." for each in self.trainings)

    def sections(self) -> list[Section]:
        """The verdicts and the curves; nothing where there is nothing to see."""
        names = [each.name for each in self.trainings]
        return [Section("Convergence", blocks_of(self.trainings, names, "convergence"), level=2)] if names else []


def convergence_at(checkpoints: Sequence[Path]) -> CheckpointConvergence:
    """Of the trainings of these checkpoints, each once: by its records, else by what its last checkpoint holds."""
    by_training: dict[Path, Path] = {}
    for path in sorted(checkpoints, key=lambda each: each.name):
        by_training[_training(path)] = path
    found = [
        convergence_of_trial(place) or convergence_of_checkpoint(last, place.name)
        for place, last in by_training.items()
    ]
    return CheckpointConvergence([each for each in found if each is not None])


def _training(checkpoint: Path) -> Path:
    """The trial's directory where it lies in one, else the folder that it is in."""
    path = checkpoint.resolve()
    return path.parents[2] if len(path.parents) > 2 and path.parents[1].name == "attempts" else path.parent
