"""What an export takes from the data that its model was trained on: the shape, the tokenizer, how prompts are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hrm.checkpoint import Checkpoint
from hrm.data.dataset import build_dataset
from hrm.data.tokenizing import TextTokenizer
from hrm.errors import Problem, SpecError
from hrm.huggingface.card import EXAMPLE
from hrm.huggingface.exporting import Export
from hrm.loading import model_spec
from hrm.spec import Spec, parse_spec
from hrm.tasks import TaskShape, TaskSpec
from hrm.trial import AnyTaskSpec

_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_QUESTION = "Name three rivers."
"""The example where a recipe has a template for what a person says."""


class _TaskHolder(Spec):
    """Lets any kind of task be parsed."""

    task: AnyTaskSpec


def export_of(checkpoint: Checkpoint, place: str, data_root: Path, task: TaskSpec | None = None) -> Export:
    """The export of a checkpoint as its task asks for it; the dataset is built if it is not.

    task: instead of the one that it was trained on. Raises SpecError where its data cannot be had or do not fit.
    """
    manifest = checkpoint.manifest
    said = manifest["spec"].get("task")
    if task is None and said is None:
        return Export(checkpoint, place, _shape(manifest), tokenizer_files=_tokenizer_of_origin(manifest))
    if model_spec(checkpoint, place).sees_the_future:  # a reason to refuse, before any data are built
        return Export(checkpoint, place, TaskShape(1, 1, next_token=True))
    task = task or parse_spec(_TaskHolder, {"task": said}, place).task
    dataset = build_dataset(task, data_root)
    held = len(checkpoint.model["embed_tokens.embedding_weight"])
    if held != dataset.shape.vocab_size:
        rule = f"the task must be of {held} tokens, as the model is, got {dataset.shape.vocab_size}"
        raise SpecError(Problem(place, rule, "Give the recipe that it was trained on"))
    tokenizer = task.text_tokenizer(dataset.directory, dataset.manifest.vocabulary)
    return Export(
        checkpoint,
        place,
        dataset.shape,
        tokenizer=tokenizer,
        prompts_whole=task.prompts_whole,
        prompt=_example(task, tokenizer, dataset.shape.sequence_length) if tokenizer else EXAMPLE,
    )


def _example(task: TaskSpec, tokenizer: TextTokenizer, length: int) -> str:
    """A prompt as the recipe puts it, of words that the vocabulary has, with room behind it."""
    try:
        asks = task.prompt(EXAMPLE) != EXAMPLE
    except SpecError:  # a template of further fields, which a person has to fill
        return EXAMPLE
    known = next(filter(str.isalpha, tokenizer.vocabulary), "")
    for text in (_QUESTION if asks else EXAMPLE, EXAMPLE, known):
        prompt = task.prompt(text)
        if not tokenizer.unknown_words(prompt) and 0 < len(tokenizer.prompt(prompt)) < length:
            return prompt
    return EXAMPLE


def _shape(manifest: dict[str, Any]) -> TaskShape:
    """As an imported checkpoint says it."""
    said = manifest["task_shape"]
    return TaskShape(said["vocab_size"], said["sequence_length"] or 1, said["num_puzzle_identifiers"], next_token=True)


def _tokenizer_of_origin(manifest: dict[str, Any]) -> dict[str, bytes] | None:
    """The tokenizer's files that lie where an imported checkpoint came from, if they still do."""
    origin = Path((manifest.get("lineage") or {}).get("path", ""))
    found = {name: (origin / name).read_bytes() for name in _TOKENIZER if (origin / name).is_file()}
    return found if _TOKENIZER[0] in found else None
