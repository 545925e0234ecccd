"""The model `hrm` of the lm-evaluation-harness: its own model of Transformers, over an export of a checkpoint of ours.

A document's begin token stands before every context, as in the rows, and is never scored. The harness says nothing of
prompts, so that PrefixLM models read them causally. Probabilities are those that the model was trained for.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from lm_eval.api.registry import register_model
from lm_eval.models.huggingface import HFLM
from safetensors import SafetensorError

from hrm.checkpoint import open_checkpoint
from hrm.errors import Problem, SpecError
from hrm.huggingface.exporting import LOSS_KEY, export_transformers
from hrm.huggingface.of_data import export_of
from hrm.huggingface.places import local_folder
from hrm.huggingface.reading import is_transformers_folder, read_config
from hrm.nn.losses import LossKind, log_probabilities
from hrm.tasks import TaskSpec

_TOKENIZERS = ("tokenizer*", "vocab*", "*.model")
"""Names of files of which a folder with a tokenizer has some."""


@register_model("hrm")
class HarnessModel(HFLM):  # type: ignore[misc]
    """checkpoint: a folder of ours or of Transformers, or a name on the hub; storage: where built data lie; task: a
    recipe instead of the one that it was trained on; options: those of the harness's model `hf`."""

    add_bos_token: bool | None
    prompts_whole: bool
    """True for a model whose prompts were read as a whole in training; here they are not."""

    def __init__(self, checkpoint: str, storage: str = "runs", task: TaskSpec | None = None, **options: Any) -> None:
        options = {"device": "cuda" if torch.cuda.is_available() else "cpu", **options}
        with _folder(str(checkpoint), Path(storage), task) as (folder, self.prompts_whole):
            with _opening(str(checkpoint)):
                super().__init__(pretrained=str(folder), **options)
            loss: LossKind = read_config(folder).get(LOSS_KEY) or "softmax"
        if loss != "softmax":  # the harness takes the softmax of what it is given, which leaves these as they are
            self.model.register_forward_hook(partial(_with_log_probabilities, loss))
        self.model.config.use_cache = False  # whole rows are scored; generation asks for its cache itself

    @property
    def max_gen_toks(self) -> int:
        """Of tasks that do not say it: the harness's number, where that leaves room for a prompt."""
        return min(256, int(self.max_length) // 2)

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = False) -> Any:
        """The harness puts the begin token before a text itself, and would score the tokenizer's."""
        before, self.add_bos_token = self.add_bos_token, False
        try:
            return super().loglikelihood_rolling(requests, disable_tqdm=disable_tqdm)
        finally:
            self.add_bos_token = before


@contextmanager
def _folder(named: str, storage: Path, task: TaskSpec | None) -> Iterator[tuple[Path, bool]]:
    """The folder that Transformers reads, which is there as long as it is needed. Raises SpecError."""
    place = local_folder(named)
    if is_transformers_folder(place):
        read_config(place)  # refuses what cannot be one
        if not any(any(place.glob(names)) for names in _TOKENIZERS):
            rule = "has no tokenizer, and the harness asks in texts"
            raise SpecError(Problem(named, rule, "Put its tokenizer's files there, such as tokenizer.json"))
        yield place, False
        return
    export = export_of(open_checkpoint(place), named, storage.resolve() / "data", task)
    with tempfile.TemporaryDirectory() as above:
        facts = export_transformers(export, Path(above, "model"))
        if not facts["tokenizer"]:
            rule = "has no tokenizer, and the harness asks in texts"
            raise SpecError(Problem(named, rule, "Name the recipe that it was trained on: --task"))
        yield Path(above, "model"), export.prompts_whole


@contextmanager
def _opening(named: str) -> Iterator[None]:
    """Raises SpecError for whatever Transformers says of a folder that it cannot open."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        rule = f"cannot be opened by Transformers: {(str(error) or type(error).__name__).splitlines()[0]}"
        raise SpecError(Problem(named, rule, "Give a whole folder: weights, config.json, tokenizer")) from error


def _with_log_probabilities(loss: LossKind, model: torch.nn.Module, inputs: Any, output: Any) -> Any:
    """A hook after a forward pass: log-probabilities in the place of logits."""
    output.logits = log_probabilities(output.logits, loss)
    return output
