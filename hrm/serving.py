"""A checkpoint packed to answer elsewhere, without its data and its optimizer: texts go on, puzzles are solved.

Prompts and puzzles are data: nothing of them is run, nothing is unpickled, and every byte of the weights is verified.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hrm.adaptive import adapt
from hrm.checkpoint import Checkpoint, open_checkpoint, write_checkpoint
from hrm.context import LocalContext
from hrm.data.dataset import Dataset
from hrm.data.parallel import usable_cpus
from hrm.data.tokenizing import TextTokenizer
from hrm.errors import Problem, SpecError
from hrm.generate import Sampling, continuations, generate
from hrm.loading import working_model
from hrm.models import Model
from hrm.prompts import continued_text, read_prompts
from hrm.puzzles import Puzzle, PuzzleKind, as_lines
from hrm.solve import puzzles_of, rows_of, usual_halt
from hrm.spec import parse_spec
from hrm.tasks import TaskShape
from hrm.trial import TrialSpec

SERVED = "served"
"""In the manifest: what is taken from the data."""


@dataclass(frozen=True, slots=True)
class Solved:
    """One puzzle."""

    solution: str
    """Drawn as `solve` draws it."""
    confidence: float
    segments: int


@dataclass(frozen=True, slots=True)
class TextAnswers:
    """A model that goes on with texts."""

    model: Model
    trial: TrialSpec
    tokenizer: TextTokenizer
    length: int

    def continued(self, prompts: Sequence[str], max_new_tokens: int, sampling: Sampling) -> list[str]:
        """What each prompt is followed by. Raises SpecError for what cannot be gone on from."""
        task = self.trial.task
        given = [(text, f"prompt {number}") for number, text in enumerate(prompts, 1)]
        read = read_prompts(given, task, self.tokenizer, self.length, raw=False, allow_unknown=False)
        steps = generate(
            self.model,
            [prompt.tokens for prompt in read],
            max_new_tokens=max_new_tokens,
            end=self.tokenizer.end,
            segments=self.trial.model.halting_rule().segments,
            length=self.length,
            sampling=sampling,
            prefix=task.prompts_whole,
            loss=self.trial.loss,
            batch_size=self.trial.batch_size,
        )
        found = zip(read, continuations(steps), strict=True)
        return [continued_text(self.tokenizer, prompt, said.tokens) for prompt, said in found]


@dataclass(frozen=True, slots=True)
class PuzzleAnswers:
    """A model that solves puzzles."""

    model: Model
    trial: TrialSpec
    kind: PuzzleKind

    def solved(self, texts: Sequence[str]) -> list[Solved]:
        """Each puzzle's answer. Raises SpecError for what is none of the model's puzzles."""
        puzzles = [self._puzzle(text, f"puzzle {number}") for number, text in enumerate(texts, 1)]
        if not puzzles:
            return []
        columns = rows_of(puzzles)
        found = adapt(
            self.model,
            lambda numbers: {name: values[numbers] for name, values in columns.items()},
            np.arange(len(puzzles)),
            self.trial,
            usual_halt(self.trial),
        )
        drawn = [
            self.kind.drawn(puzzle, tokens.astype(np.int64))
            for puzzle, tokens in zip(puzzles, found.tokens, strict=True)
        ]
        return [
            Solved("\n".join(as_lines(cells)), float(found.confidence[row]), int(found.segments[row]))
            for row, cells in enumerate(drawn)
        ]

    def _puzzle(self, text: str, place: str) -> Puzzle:
        puzzles = self.kind.parse(text, place)
        if len(puzzles) != 1:
            raise SpecError(Problem(place, f"must be one puzzle, got {len(puzzles)}", "Give each in a row of its own"))
        return puzzles[0]


Answers = TextAnswers | PuzzleAnswers


def pack(checkpoint: Checkpoint, dataset: Dataset, folder: Path) -> bool:
    """Write what `open_answers` needs; False, and nothing, for a task that has neither texts nor puzzles."""
    manifest = dataset.manifest
    tokenizer = dataset.task.text_tokenizer(dataset.directory, manifest.vocabulary)
    if tokenizer is None and puzzles_of(dataset.task, {}) is None:
        return False
    served: dict[str, Any] = {"shape": asdict(dataset.shape), "vocabulary": manifest.vocabulary, "identifiers": {}}
    if "first_identifiers" in manifest.facts:
        facts = manifest.facts
        served["identifiers"] = dict(zip(facts["tasks"], facts["first_identifiers"], strict=True))
    kept = {**checkpoint.manifest, SERVED: served}
    write_checkpoint(folder, Checkpoint(checkpoint.evaluation_weights, {}, {}, kept))
    for name, content in tokenizer.files().items() if tokenizer else ():
        (folder / name).write_bytes(content)
    return True


def open_answers(folder: Path) -> Answers:
    """The packed model, ready on this machine's CPUs. Raises SpecError for another folder."""
    checkpoint, place = open_checkpoint(folder), str(folder)
    served = checkpoint.manifest.get(SERVED)
    if served is None:
        raise SpecError(Problem(place, "is not packed to answer", "Use `generate` or `solve` on it"))
    trial = parse_spec(TrialSpec, checkpoint.manifest["spec"], place)
    context = LocalContext(folder, folder, threads=usable_cpus(), compile="never")
    model, _ = working_model(checkpoint, place, trial, TaskShape(**served["shape"]), context)
    if (kind := puzzles_of(trial.task, served["identifiers"])) is not None:
        return PuzzleAnswers(model, trial, kind)
    tokenizer = trial.task.text_tokenizer(folder, served["vocabulary"])
    assert tokenizer is not None, "pack has seen to it"
    return TextAnswers(model, trial, tokenizer, served["shape"]["sequence_length"])
