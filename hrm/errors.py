"""The three fates of a failure: the author's, the science's, the cluster's.

`SpecError` ends the command before anything runs (exit 2). `TrialError` is a result of the trial, recorded with its
reason and never retried as it is. `InfrastructureError` is retried from the newest good checkpoint. All three pickle.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where (`file: path.to.field`), the rule with the value, and the way out."""

    place: str
    rule: str
    way_out: str = ""

    def __str__(self) -> str:
        sentence = f"{self.place}: {self.rule.rstrip('.')}."
        end = "" if self.way_out.endswith("?") else "."
        return f"{sentence} {self.way_out.rstrip('.')}{end}" if self.way_out else sentence


class SpecError(Exception):
    """The input is wrong. Holds every problem found, not only the first."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__(*problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


class TrialError(Exception):
    """The trial itself cannot go on. `reason` is a short stable word: `not_finite`, `diverged`, `out_of_memory`."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class InfrastructureError(Exception):
    """A worker, a node or a file system failed; the trial is not to blame."""


class StorageError(InfrastructureError):
    """A place where files are kept cannot be written or read: nothing is to blame, and the same command goes on."""
