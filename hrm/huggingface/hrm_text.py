"""HRM-Text in the folders of Hugging Face Transformers: the names of its tensors and the content of config.json.

`HrmTextForCausalLM` reads and writes the same tensors as the model here under other names, fused projections included
(in memory it holds them apart; both forms are read). What it can and our model cannot is refused, all of it at once.
Transformers itself is not needed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hrm.errors import Problem
from hrm.models.hrm_text import HRMTextSpec
from hrm.nn.gated import EPSILON
from hrm.nn.layers import BlockShape
from hrm.tasks import TaskShape

_NAMES = (
    ("embed_tokens.embedding_weight", "model.embed_tokens.weight"),
    ("H_level.", "model.H_module."),
    ("L_level.", "model.L_module."),
    (".self_attn.", ".attn."),
    ("L_init", "model.z_L_init"),
)
"""Parts of a tensor's name: ours, theirs."""
_FUSED = {
    r"\.attn\.(gate|q|k|v)_proj\.": (".attn.gqkv_proj.", ("gate", "q", "k", "v")),
    r"\.mlp\.(gate|up)_proj\.": (".mlp.gate_up_proj.", ("gate", "up")),
}
"""Projections that may be stored apart: their pattern, the name of the whole, its parts in order."""
CONFIG_KEY = "hrm_orchestrator"
"""Where config.json keeps what Transformers' fields do not say of a model; Transformers keeps it as it is."""


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the model here, named as in Transformers' model.safetensors."""
    return {_renamed(name, _NAMES): value for name, value in state.items()}


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The content of Transformers' model.safetensors, named as the state dict of the model here."""
    back = tuple((theirs, ours) for ours, theirs in _NAMES)
    named = {name.replace(".self_attn.", ".attn."): value for name, value in state.items()}
    for pattern, (whole, parts) in _FUSED.items():
        named = _joined(named, pattern, whole, parts)
    return {_renamed(name, back): value for name, value in named.items()}


def _joined(state: dict[str, Tensor], pattern: str, whole: str, parts: tuple[str, ...]) -> dict[str, Tensor]:
    """Projections that lie apart as one, where all parts of it are there."""
    result: dict[str, Tensor] = {}
    for name, value in state.items():
        found = re.search(pattern, name)
        apart = [name[: found.start(1)] + part + name[found.end(1) :] for part in parts] if found else []
        if found and all(part in state for part in apart):
            result[re.sub(pattern, whole, name)] = torch.cat([state[part] for part in apart])
        else:
            result[name] = value
    return result


def _renamed(name: str, pairs: tuple[tuple[str, str], ...]) -> str:
    for old, new in pairs:
        name = name.replace(old, new)
    return name


def transformers_config(spec: HRMTextSpec, shape: TaskShape) -> dict[str, Any]:
    """The content of config.json.

    `num_hidden_layers` counts every call of every layer, as its caches do. `L_bp_cycles` is as near to our gradient as
    Transformers comes: it lets gradients through every H call.
    """
    calls = spec.calls(spent=1.0)
    cycles = [calls[start : start + spec.L_cycles] for start in range(0, len(calls), spec.L_cycles + 1)]
    return {
        "architectures": ["HrmTextForCausalLM"],
        "model_type": "hrm_text",
        "vocab_size": shape.vocab_size,
        "hidden_size": spec.hidden_size,
        "intermediate_size": spec.block().inner_size,
        "num_hidden_layers": spec.num_layers_per_stack * len(calls),
        "num_layers_per_stack": spec.num_layers_per_stack,
        "num_attention_heads": spec.num_heads,
        "head_dim": spec.hidden_size // spec.num_heads,
        "max_position_embeddings": shape.sequence_length,
        "rope_parameters": {"rope_type": "default", "rope_theta": spec.rotary_theta},
        "H_cycles": spec.H_cycles,
        "L_cycles": spec.L_cycles,
        "L_bp_cycles": [sum(carries for _, carries in cycle) for cycle in cycles],
        **_ALWAYS,
        "embedding_scale": math.sqrt(spec.hidden_size),
        "initializer_range": 1.0 / math.sqrt(spec.hidden_size),
        "tie_word_embeddings": spec.tied_embeddings,
        "prefix_lm": True,
        CONFIG_KEY: {"model": spec.canonical()},
    }


_ALWAYS = {"rms_norm_eps": EPSILON, "hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
"""Fields of which our model knows one value, which is Transformers' default, too."""


def spec_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `HRMTextSpec` that a config.json says; call it where `config_problems` finds none.

    How far gradients go, and dropout, are ours alone: they are taken from an export of ours, else left to the defaults.
    """
    kept: dict[str, Any] = config.get(CONFIG_KEY, {}).get("model", {})
    own: dict[str, Any] = {
        name: kept[name] for name in ("gradient_steps", "gradient_warmup_fraction", "dropout") if name in kept
    }
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    sizes = {"hidden_size": hidden, "num_heads": config["num_attention_heads"]}
    expansion = kept.get("expansion", HRMTextSpec.model_fields["expansion"].default)
    if BlockShape(hidden, 1, expansion).inner_size != inner:
        expansion = 1.5 * inner / hidden
    return {
        "kind": "hrm_text",
        **sizes,
        **own,
        "expansion": expansion,
        "rotary_theta": _rope(config)["rope_theta"],
        "num_layers_per_stack": _layers(config),
        **{name: config[name] for name in ("H_cycles", "L_cycles") if name in config},
        **({"tied_embeddings": True} if config.get("tie_word_embeddings") else {}),
    }


def _layers(config: Mapping[str, Any]) -> Any:
    """Of each stack. A first config.json has them as `num_hidden_layers`, which Transformers then counts anew."""
    return config.get("num_layers_per_stack") or config["num_hidden_layers"]


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Type and theta of the rotary positions, also as files before Transformers 5 have them (`rope_scaling`)."""
    found: dict[str, Any] = config.get("rope_scaling") or config.get("rope_parameters") or {}
    return {"rope_theta": config.get("rope_theta", 10000.0), "rope_type": found.get("type", "default"), **found}


def config_problems(config: Mapping[str, Any], place: str) -> list[Problem]:
    """What our model would compute otherwise than the config.json says; its fields are what they must be."""
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    scale = config.get("embedding_scale") or 1.0 / config.get("initializer_range", 0.02)
    head_size = config.get("head_dim") or 128  # Transformers' default
    found = {**config, "head_dim": head_size, "embedding_scale": scale, "rope_type": _rope(config)["rope_type"]}
    wanted = {**_ALWAYS, "head_dim": hidden / heads, "embedding_scale": math.sqrt(hidden), "rope_type": "default"}
    problems = [
        _differs(place, name, value, found[name])
        for name, value in wanted.items()
        if name in found and not _equal(found[name], value)
    ]
    if config["intermediate_size"] % 256:
        rule = f"intermediate_size must be a multiple of 256, got {config['intermediate_size']}"
        problems.append(Problem(place, rule, "Our MLPs have no other widths"))
    if config.get("quantization_config"):
        problems.append(Problem(place, "its weights are quantised", "Give the folder of the whole weights"))
    return problems


def _equal(found: Any, value: Any) -> bool:
    if isinstance(value, float) and isinstance(found, (int, float)):
        return math.isclose(found, value, rel_tol=1e-6)
    return bool(found == value)


def _differs(place: str, name: str, value: Any, found: Any) -> Problem:
    rule = f"{name} must be {value:.6g}" if isinstance(value, float) else f"{name} must be {value}"
    return Problem(place, f"{rule}, got {found}", "Our hrm_text computes nothing else")
