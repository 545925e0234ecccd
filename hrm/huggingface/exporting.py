"""A checkpoint of a causal model as a folder that Transformers loads: weights, configuration, tokenizer, model card.

`hrm_text` becomes a model of Transformers' own class, which needs nothing of ours; any other causal model one of our
class, which Transformers finds once `hrm` is imported. The folder appears under its name only when it is whole.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save
from torch import Tensor

from hrm.checkpoint import Checkpoint
from hrm.data.tokenizing import CONFIG_FILE, TOKENIZER_FILE, TextTokenizer
from hrm.errors import Problem, SpecError
from hrm.huggingface.card import EXAMPLE, LICENSE, UNKNOWN, model_card
from hrm.huggingface.hrm_text import CONFIG_KEY, to_transformers, transformers_config
from hrm.huggingface.lineage import ORIGIN, origin_of
from hrm.loading import model_spec
from hrm.models import ModelSpec
from hrm.models.hrm_text import HRMTextSpec
from hrm.tasks import TaskShape

OWN_TYPE, OWN_CLASS, PREFIX = "hrm_orchestrator", "HrmForCausalLM", "network."
"""Of config.json and of the tensors' names, where the class is ours."""
EMBEDDING = ("embed_tokens.embedding_weight", "embed_tokens.weight")
"""The one tensor with another name there: ours, theirs."""
LOSS_KEY = "trained_loss"
"""Where config.json says which probabilities the model was trained for, if those are not the softmax of its logits."""
Which = Literal["ema", "raw"]
Dtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, slots=True)
class Export:
    """What is exported, and how."""

    checkpoint: Checkpoint
    place: str
    """Of the checkpoint, for messages and the card."""
    shape: TaskShape
    weights: Which | None = None
    """null: those that evaluations use."""
    dtype: Dtype = "float32"
    tokenizer: TextTokenizer | None = None
    tokenizer_files: Mapping[str, bytes] | None = None
    """Ready files instead of a tokenizer."""
    prompts_whole: bool = False
    """Whether prompts of its data are read as a whole (PrefixLM)."""
    prompt: str = EXAMPLE
    """An example, as the rows of its data put it."""
    license: str = UNKNOWN
    license_text: str | None = None


def export_transformers(export: Export, output: Path) -> dict[str, Any]:
    """Write the folder `output`, which must not exist; gives what there is to say of it.

    Raises SpecError for a model that is no causal language model.
    """
    spec = model_spec(export.checkpoint, export.place)
    _refuse(spec, export)
    files = _files(spec, export)
    temporary = output.with_name(f".{output.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    for name, content in files.items():
        (temporary / name).write_bytes(content)
    temporary.rename(output)
    return {
        "folder": str(output),
        "class": _class_of(spec),
        "files": {name: len(content) for name, content in files.items()},
        "dtype": export.dtype,
        "tokenizer": TOKENIZER_FILE in files,
        "license": export.license,
        "loss": trained_loss(export),
    }


def _refuse(spec: ModelSpec, export: Export) -> None:
    problems = []
    if spec.sees_the_future:
        rule = f"its {spec.kind} sees the future: each position is computed from the tokens after it, too"
        way_out = f"{spec.way_to_causality} and train it on next-token data; or export --format safetensors"
        problems.append(Problem(export.place, f"{rule}, so that it is no causal language model", way_out))
    if export.shape.num_puzzle_identifiers:
        rule = "its rows carry puzzle identifiers, which Transformers has no place for"
        problems.append(Problem(export.place, rule, "Export it with --format safetensors"))
    if export.weights == "ema" and export.checkpoint.ema is None:
        rule = "it has no averaged weights"
        problems.append(Problem(export.place, rule, "Leave --weights out, or give --weights raw"))
    if problems:
        raise SpecError(*problems)


def _class_of(spec: ModelSpec) -> str:
    return "HrmTextForCausalLM" if isinstance(spec, HRMTextSpec) else OWN_CLASS


def _files(spec: ModelSpec, export: Export) -> dict[str, bytes]:
    kept = export.checkpoint.model if export.weights == "raw" else export.checkpoint.evaluation_weights
    dtype: torch.dtype = getattr(torch, export.dtype)
    weights = {name: value.to(dtype) if value.is_floating_point() else value for name, value in kept.items()}
    ids = _token_ids(export)
    config = _with_origin(config_of(spec, export.shape), export)
    files = {
        "model.safetensors": save(named_there(spec, weights), {"format": "pt"}),
        "config.json": _json({**config, **ids, **_loss(export), "dtype": export.dtype}),
        "generation_config.json": _json({**ids, "use_cache": True}),
    }
    tokenizer = export.tokenizer and tokenizer_files(export.tokenizer, export.shape.sequence_length)
    files |= dict(tokenizer or export.tokenizer_files or {})
    if export.license_text is not None:
        files[LICENSE] = export.license_text.encode()
    card = model_card(export.checkpoint.manifest, _class_of(spec), TOKENIZER_FILE in files, export)
    return files | {"README.md": card.encode()}


def named_there(spec: ModelSpec, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the model here under the names of Transformers' class or of ours there."""
    if isinstance(spec, HRMTextSpec):
        return to_transformers(weights)
    return {PREFIX + name.replace(*EMBEDDING): value for name, value in weights.items()}


def config_of(spec: ModelSpec, shape: TaskShape) -> dict[str, Any]:
    """The content of config.json, without tokens."""
    if isinstance(spec, HRMTextSpec):
        return transformers_config(spec, shape)
    said = spec.model_dump(mode="json")
    return {
        "architectures": [OWN_CLASS],
        "model_type": OWN_TYPE,
        "spec": said,
        "num_segments": spec.halting_rule().segments,
        "vocab_size": shape.vocab_size,
        "max_position_embeddings": shape.sequence_length,
        "tie_word_embeddings": said.get("tied_embeddings", False),
    }


def _with_origin(config: dict[str, Any], export: Export) -> dict[str, Any]:
    """With the checkpoint that the folder is of, so that where its weights came from is known from the folder, too."""
    origin = origin_of(export.checkpoint)
    if origin is None:
        return config
    if config["model_type"] == OWN_TYPE:
        return {**config, ORIGIN: origin}
    return {**config, CONFIG_KEY: {**config[CONFIG_KEY], ORIGIN: origin}}


def tokenizer_files(tokenizer: TextTokenizer, longest: int) -> dict[str, bytes]:
    """The files that `AutoTokenizer` reads. A text gets the begin token before it, as in the rows, and no end."""
    files = tokenizer.files()
    stored, config = json.loads(files[TOKENIZER_FILE]), json.loads(files[CONFIG_FILE])
    stored["post_processor"] = _opening(tokenizer)
    config |= {
        "model_max_length": longest,
        "model_input_names": ["input_ids", "attention_mask"],
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": True,
    }
    return {TOKENIZER_FILE: json.dumps(stored, ensure_ascii=False).encode(), CONFIG_FILE: _json(config)}


def _opening(tokenizer: TextTokenizer) -> dict[str, Any] | None:
    if tokenizer.begin is None:
        return None
    from tokenizers.processors import TemplateProcessing

    word = tokenizer.vocabulary[tokenizer.begin]
    template = TemplateProcessing(
        single=[word, "$A"], pair=[word, "$A", "$B"], special_tokens=[(word, tokenizer.begin)]
    )
    made: dict[str, Any] = json.loads(template.__getstate__())
    return made


def _token_ids(export: Export) -> dict[str, Any]:
    """What Transformers ends a text with, and pads it with."""
    if export.tokenizer is not None:
        ends = {"bos": export.tokenizer.begin, "eos": export.tokenizer.end, "pad": export.tokenizer.pad}
    elif export.tokenizer_files is not None and CONFIG_FILE in export.tokenizer_files:
        ends = _ids_in(export.tokenizer_files)
    else:
        ends = {}
    return {f"{name}_token_id": token for name, token in ends.items()}


def _ids_in(files: Mapping[str, bytes]) -> dict[str, int | None]:
    """By the tokens' names in a tokenizer's files; a name is a text, or an object with it as `content`."""
    from tokenizers import Tokenizer

    backend, config = Tokenizer.from_buffer(files[TOKENIZER_FILE]), json.loads(files[CONFIG_FILE])
    names = {name: config.get(f"{name}_token") for name in ("bos", "eos", "pad")}
    words = {name: word.get("content") if isinstance(word, dict) else word for name, word in names.items()}
    return {name: backend.token_to_id(word) for name, word in words.items() if word is not None}


def _loss(export: Export) -> dict[str, Any]:
    loss = trained_loss(export)
    return {} if loss == "softmax" else {LOSS_KEY: loss}


def trained_loss(export: Export) -> str:
    """Which probabilities the model was trained for."""
    return str(export.checkpoint.manifest["spec"].get("loss", "softmax"))


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()
