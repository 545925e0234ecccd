"""What the fields of a config.json must be before anything is computed from them: of which types, and above zero."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from hrm.errors import Problem
from hrm.huggingface.exporting import LOSS_KEY, OWN_TYPE
from hrm.huggingface.hrm_text import CONFIG_KEY
from hrm.huggingface.lineage import ORIGIN, is_origin
from hrm.nn.losses import LossKind


@dataclass(frozen=True, slots=True)
class _Field:
    """What one field must be; a dot leads into an object, which may be absent itself."""

    path: str
    rule: str
    fits: Callable[[Any], bool]
    may: Literal["stand", "lack", "be null"] = "stand"
    """`stand`: it must be there. `lack`: it may be absent. `be null`: that, too."""


_LOSSES = get_args(LossKind)


def _count(path: str, may: Literal["stand", "lack", "be null"] = "stand") -> _Field:
    return _Field(path, "a whole number >= 1", lambda value: type(value) is int and value >= 1, may)


def _number(path: str, may: Literal["lack", "be null"] = "lack") -> _Field:
    return _Field(path, "a number > 0", lambda value: type(value) in (int, float) and 0 < value < math.inf, may)


def _object(path: str, may: Literal["stand", "lack", "be null"]) -> _Field:
    return _Field(path, "an object", lambda value: isinstance(value, dict), may)


def _origin(path: str) -> _Field:
    return _Field(path, "an object with the sha256 of weights, as `checkpoint export` writes it", is_origin, "be null")


_BOTH = (
    _count("vocab_size"),
    _Field("tie_word_embeddings", "true or false", lambda value: isinstance(value, bool), "be null"),
    _Field(LOSS_KEY, f"one of {', '.join(_LOSSES)}", lambda value: value in _LOSSES, "be null"),
)
_FIELDS = {
    "hrm_text": (
        *_BOTH,
        *map(_count, ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")),
        *(_count(name, "lack") for name in ("max_position_embeddings", "H_cycles", "L_cycles")),
        *(_count(name, "be null") for name in ("num_layers_per_stack", "head_dim")),
        *(_number(name) for name in ("initializer_range", "rope_theta")),
        _number("embedding_scale", "be null"),
        *(_object(name, "be null") for name in ("rope_parameters", "rope_scaling")),
        *(_number(f"{name}.rope_theta") for name in ("rope_parameters", "rope_scaling")),
        *(_object(name, "lack") for name in (CONFIG_KEY, f"{CONFIG_KEY}.model")),
        _number(f"{CONFIG_KEY}.model.expansion"),
        _origin(f"{CONFIG_KEY}.{ORIGIN}"),
    ),
    OWN_TYPE: (
        *_BOTH,
        _count("max_position_embeddings"),
        _object("spec", "stand"),
        _count("num_segments", "be null"),
        _origin(ORIGIN),
    ),
}


def field_problems(config: Mapping[str, Any], place: str) -> list[Problem]:
    """Every field that is not what its model needs; none for models that are not ours."""
    return [
        Problem(place, f"{field.path} must be {field.rule}, got {found}", "Give a whole config.json")
        for field in _FIELDS.get(str(config.get("model_type")), ())
        for found in _wrong(config, field)
    ]


def _wrong(config: Mapping[str, Any], field: _Field) -> Iterator[str]:
    """What stands there instead, if anything does."""
    *above, name = field.path.split(".")
    holder: Any = config
    for outer in above:
        holder = holder.get(outer) if isinstance(holder, dict) else None
    if above and not isinstance(holder, dict):
        return
    if name not in holder:
        if field.may == "stand":
            yield "none"
    elif not (field.fits(holder[name]) or (holder[name] is None and field.may == "be null")):
        yield json.dumps(holder[name])
