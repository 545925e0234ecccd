"""A folder of Transformers as a checkpoint of ours: `hrm_text`, whoever wrote it, and the folders of our own class.

Safetensors only, one file or several; nothing is unpickled and no code of the folder is run. Weights become float32,
which holds bfloat16 and float16 exactly. All that our model would compute otherwise is refused at once.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from hrm.checkpoint import Checkpoint, differences
from hrm.errors import Problem, SpecError
from hrm.huggingface.config_fields import field_problems
from hrm.huggingface.exporting import EMBEDDING, LOSS_KEY, OWN_TYPE, PREFIX
from hrm.huggingface.hrm_text import CONFIG_KEY, config_problems, from_transformers, spec_fields
from hrm.huggingface.lineage import ORIGIN, kept
from hrm.loading import parse_model
from hrm.models import ModelSpec
from hrm.provenance import code_version, environment
from hrm.tasks import TaskShape

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_READ = {torch.float32, torch.bfloat16, torch.float16, torch.float64}
_WAY_OUT = "Give a folder that save_pretrained, or `checkpoint export --format transformers`, wrote"


def is_transformers_folder(path: Path) -> bool:
    """True for a folder with a config.json that is no checkpoint of ours."""
    return (path / CONFIG).is_file() and not (path / "manifest.json").exists()


def read_transformers(folder: Path) -> Checkpoint:
    """The checkpoint that holds the folder's weights. Its manifest has the digest that a written checkpoint has.

    Raises SpecError for a folder that is no model, or one that computes something else than ours can.
    """
    config = read_config(folder)
    spec = _spec(config, str(folder / CONFIG))
    shape = TaskShape(config["vocab_size"], config.get("max_position_embeddings", 2048), next_token=True)
    stored, digests = _tensors(folder)
    named = _named_here(spec, stored)
    with torch.device("meta"):
        model = spec.build(shape)
    _refuse_misfits(folder, model.state_dict(), named, stored)
    weights = {name: value.to(torch.float32).contiguous() for name, value in named.items()}
    narrowed = [n for n, value in named.items() if value.dtype == torch.float64 and _loses(value, weights[n])]
    content = save(weights)
    manifest = {
        "spec": {"model": spec.model_dump(mode="json"), **_trained_for(config)},
        "task_shape": {
            "vocab_size": shape.vocab_size,
            "sequence_length": shape.sequence_length,
            "num_puzzle_identifiers": 0,
        },
        "progress": {},
        "validation": {},
        "num_parameters": model.num_parameters(),
        "lineage": {
            "format": f"Transformers folder, {config['model_type']}",
            "path": str(folder.resolve()),
            "sha256": digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest(),
            "dtypes": dict(Counter(str(value.dtype).removeprefix("torch.") for value in stored.values())),
            "narrowed": narrowed,
            "said": {},
            "assumed": {},
            **_before(config),
        },
        "files": {"model.safetensors": {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}},
        "code": code_version(),
        "environment": environment(),
    }
    return Checkpoint(weights, {}, {}, manifest)


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's config.json. Raises SpecError where it is none, and for fields that mean nothing to our models."""
    path = folder / CONFIG
    if not path.is_file():
        rule = "is no folder of a model: it has no config.json" if folder.is_dir() else "there is no such folder"
        raise _refused(folder, rule)
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _refused(path, f"cannot be read as JSON: {error}") from error
    if not isinstance(config, dict):
        raise _refused(path, "must be a JSON object")
    if problems := field_problems(config, str(path)):
        raise SpecError(*problems)
    return config


def _spec(config: Mapping[str, Any], place: str) -> ModelSpec:
    found = config.get("model_type")
    if found == OWN_TYPE:
        return _own_spec(config, place)
    if found != "hrm_text":
        rule = f"model_type must be hrm_text or {OWN_TYPE}, got {found!r}"
        raise SpecError(Problem(place, rule, "Of other models there is no checkpoint of ours"))
    problems = config_problems(config, place)
    if problems:
        raise SpecError(*problems)
    return parse_model(spec_fields(config), place)


def _own_spec(config: Mapping[str, Any], place: str) -> ModelSpec:
    """The spec there, under the fields beside it by which Transformers computes: the tie, and the segments."""
    said = dict(config["spec"])
    tied = config.get("tie_word_embeddings")
    if tied is not None and tied != bool(said.get("tied_embeddings")):
        said["tied_embeddings"] = tied
    spec = parse_model(said, place)
    segments = config.get("num_segments") or spec.halting_rule().segments
    if segments == spec.halting_rule().segments:
        return spec
    if "halting" not in type(spec).model_fields:
        rule = f"num_segments must be {spec.halting_rule().segments} for a {spec.kind}, got {segments}"
        raise SpecError(Problem(place, rule, "Correct it"))
    return parse_model({**said, "halting": {**said.get("halting", {}), "segments": segments}}, place)


def _trained_for(config: Mapping[str, Any]) -> dict[str, Any]:
    """The loss of the training, if the folder says it."""
    return {"loss": config[LOSS_KEY]} if config.get(LOSS_KEY) else {}


def _before(config: Mapping[str, Any]) -> dict[str, Any]:
    """The checkpoint that the folder was exported from, if it says so, as the link before it."""
    holder = config if config["model_type"] == OWN_TYPE else config.get(CONFIG_KEY, {})
    return {"lineage": kept(holder[ORIGIN])} if holder.get(ORIGIN) else {}


def _tensors(folder: Path) -> tuple[dict[str, Tensor], list[str]]:
    """All tensors under their names there, and the digest of each file."""
    tensors: dict[str, Tensor] = {}
    digests = []
    for name in _files(folder):
        path = folder / name
        try:
            content = path.read_bytes()
            found = load(content)
        except OSError as error:
            raise _refused(path, f"cannot be read: {error.strerror}") from error
        except SafetensorError as error:
            raise _refused(path, f"is no whole safetensors file ({error})") from error
        digests.append(hashlib.sha256(content).hexdigest())
        tensors |= found
    return tensors, digests


def _files(folder: Path) -> list[str]:
    """The names of the weights' files, in order."""
    if (folder / WEIGHTS).exists():
        return [WEIGHTS]
    if not (folder / INDEX).exists():
        pickled = any(folder.glob("*.bin"))
        rule = "has its weights pickled, and pickles can run code" if pickled else f"has no {WEIGHTS} and no {INDEX}"
        raise SpecError(
            Problem(str(folder), rule, "Save it with Transformers' save_pretrained" if pickled else _WAY_OUT)
        )
    try:
        names = sorted(set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _refused(folder / INDEX, f"cannot be read as an index of weights ({error!r})") from error
    if strange := [name for name in names if not _lies_beside(name)]:
        raise _refused(folder / INDEX, f"must name safetensors files beside it, got {strange[0]!r}")
    return names


def _lies_beside(name: Any) -> bool:
    return isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors")


def _named_here(spec: ModelSpec, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if spec.kind == "hrm_text" and not any(name.startswith(PREFIX) for name in stored):
        named = from_transformers(stored)
    else:
        named = {name.removeprefix(PREFIX).replace(EMBEDDING[1], EMBEDDING[0]): value for name, value in stored.items()}
    head, table = named.get("lm_head.weight"), named.get(EMBEDDING[0])
    if spec.model_dump().get("tied_embeddings") and head is not None and (table is None or _equal(head, table)):
        del named["lm_head.weight"]  # another one stays, is refused, and is what Transformers would compute with
    return named


def _refuse_misfits(
    folder: Path, own: dict[str, Tensor], named: dict[str, Tensor], stored: Mapping[str, Tensor]
) -> None:
    problems = [Problem(str(folder), _here(rule), _WAY_OUT) for rule in differences(own, named).values()]
    strange = sorted({str(value.dtype).removeprefix("torch.") for value in stored.values() if value.dtype not in _READ})
    if strange:
        rule = f"its weights must be of float32, bfloat16 or float16, got {', '.join(strange)}"
        problems.append(Problem(str(folder), rule, "Give the folder of the whole weights"))
    if problems:
        raise SpecError(*problems)


def _equal(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and bool((one == other).all())


def _here(rule: str) -> str:
    return rule.replace("the checkpoint", "the folder")


def _loses(value: Tensor, stored: Tensor) -> bool:
    return not torch.equal(stored.double(), value)


def _refused(path: Path, rule: str) -> SpecError:
    return SpecError(Problem(str(path), rule, _WAY_OUT))
