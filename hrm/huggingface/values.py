"""What Transformers leaves open in a model that it loads: values that no folder holds, and rotary tables."""

from __future__ import annotations

import torch
from torch import nn
from transformers import initialization

from hrm.huggingface.configuration import HrmConfig
from hrm.models import Model
from hrm.nn.attention import Rotary


def own_initialisation(module: nn.Module, network: Model, config: HrmConfig) -> None:
    """Draw what no folder gave of a module's own values as a fresh model here would have it; what is loaded stays.

    Rotary tables are in no folder, and empty in a model that was made on the meta device.
    """
    if isinstance(module, Rotary):
        initialization.copy_(module.get_buffer("tables"), _fresh_tables(module, config))
        return
    own = dict((*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)))
    missing = {n: v for n, v in own.items() if not (v.is_meta or getattr(v, "_is_hf_initialized", False))}
    place = next((name for name, found in network.named_modules() if found is module), None)
    if missing and place is None:  # made by Transformers, for a vocabulary of another size
        initialization.normal_(own["weight"], std=own["weight"].shape[1] ** -0.5)
    elif missing:
        fresh = config.model_spec().build(config.task_shape()).get_submodule(str(place))
        for name, value in missing.items():
            initialization.copy_(
                value, getattr(fresh, "embedding_weight" if hasattr(fresh, "embedding_weight") else name)
            )


def mark_drawn(network: Model) -> None:
    """Its values are there already, and are not to be drawn again."""
    for value in (*network.parameters(), *network.buffers()):
        if not value.is_meta:
            value._is_hf_initialized = True  # type: ignore[attr-defined]


def steady_tables(network: Model, config: HrmConfig) -> None:
    """Rotary tables in float32, as the originals have them, also where a cast of the whole model narrowed them."""
    for module in network.modules():
        if isinstance(module, Rotary) and module.get_buffer("tables").dtype != torch.float32:
            module.tables = _fresh_tables(module, config)


def _fresh_tables(module: Rotary, config: HrmConfig) -> torch.Tensor:
    tables = module.get_buffer("tables")
    theta = float((config.spec or {}).get("rotary_theta", 10000.0))
    return Rotary(2 * tables.shape[2], tables.shape[1], theta).get_buffer("tables").to(tables.device)
