"""HRM-Text in the folders of Hugging Face Transformers: the names of its tensors and the content of config.json.

`HrmTextForCausalLM` reads and writes the same tensors as the model here under other names, fused projections included
(in memory it holds them apart). Transformers itself is not needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from hrm.models.hrm_text import HRMTextSpec
from hrm.nn.gated import EPSILON
from hrm.tasks import TaskShape

_NAMES = (
    ("embed_tokens.embedding_weight", "model.embed_tokens.weight"),
    ("H_level.", "model.H_module."),
    ("L_level.", "model.L_module."),
    (".self_attn.", ".attn."),
    ("L_init", "model.z_L_init"),
)
"""Parts of a tensor's name: ours, theirs."""


def to_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of the model here, named as in Transformers' model.safetensors."""
    return {_renamed(name, _NAMES): value for name, value in state.items()}


def from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The content of Transformers' model.safetensors, named as the state dict of the model here."""
    back = tuple((theirs, ours) for ours, theirs in _NAMES)
    return {_renamed(name, back): value for name, value in state.items()}


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
        "embedding_scale": math.sqrt(spec.hidden_size),
        "initializer_range": 1.0 / math.sqrt(spec.hidden_size),
        "rms_norm_eps": EPSILON,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "prefix_lm": True,
    }
