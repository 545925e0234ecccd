"""The base of every spec: frozen, closed to unknown fields, strictly typed, with a canonical hash.

A spec comes from YAML or JSON through `parse_spec`, which reports every problem at once in the house's words.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from hrm.errors import Problem, SpecError

CANONICAL_VERSION = 1
"""Part of every hash; it changes only if the canonical form or a default that changes the numbers does."""


class Spec(BaseModel):
    """A frozen value read from YAML. Unknown fields are refused, types are not coerced, NaN is not a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=False)

    def canonical(self) -> dict[str, Any]:
        """The fields that differ from their defaults, and every `kind`: what the hash covers.

        A new field with a default does therefore not change the hash of an old spec.
        """
        result: dict[str, Any] = {}
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if name == "kind" or field.is_required() or value != field.get_default(call_default_factory=True):
                result[name] = _canonical_value(value)
        return result

    def hash(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the canonical JSON."""
        text = json.dumps([CANONICAL_VERSION, self.canonical()], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def _canonical_value(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.canonical()
    if isinstance(value, (list, tuple)):
        return [_canonical_value(item) for item in value]
    if isinstance(value, dict):
        return {key: _canonical_value(item) for key, item in value.items()}
    if isinstance(value, float) and value.is_integer():
        return int(value)  # 1 and 1.0 are one number in YAML
    return value


S = TypeVar("S", bound=BaseModel)


def parse_spec(kind: type[S], data: Any, place: str) -> S:
    """Validate plain data (from YAML or JSON) as `kind`. Raises SpecError with every problem; `place` starts each."""
    try:
        return kind.model_validate_json(json.dumps(data))
    except ValidationError as error:
        raise SpecError(*problems_of(error, kind, place)) from error
    except TypeError as error:
        raise SpecError(Problem(place, f"holds a value that YAML allows and JSON does not: {error}")) from error


def problems_of(error: ValidationError, kind: type[BaseModel], place: str) -> list[Problem]:
    """Pydantic's errors as problems with `place: path.to.field`, the rule, the value and the way out."""
    return [_problem(details, kind, place) for details in error.errors(include_url=False)]


def _problem(details: Any, kind: type[BaseModel], place: str) -> Problem:
    path, owner = _walk(details["loc"], kind)
    where = f"{place}: {path}" if path else place
    value = _short(details.get("input"))
    match details["type"]:
        case "extra_forbidden":
            name = str(details["loc"][-1])
            known = sorted(owner.model_fields) if owner else []
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean `{near[0]}`? " if near else ""
            return Problem(where, "there is no such field", f"{hint}The fields here are {', '.join(known)}")
        case "missing":
            return Problem(where, "is required and missing", "Add it")
        case "union_tag_invalid":
            expected = details["ctx"]["expected_tags"].replace("'", "")
            tag = details["ctx"]["tag"]
            near = difflib.get_close_matches(tag, expected.split(", "), n=1)
            hint = f"Did you mean `{near[0]}`? " if near else ""
            return Problem(f"{where}.kind", f"must be one of {expected}, got {tag!r}", hint.strip())
        case "union_tag_not_found":
            return Problem(f"{where}.kind", "is required and missing", "Say which kind this is")
        case _:
            message = str(details["msg"]).removeprefix("Value error, ").removeprefix("Input ").replace("should", "must")
            if "got " in message or isinstance(details.get("input"), dict):
                return Problem(where, message)
            return Problem(where, f"{message}, got {value}")


def _walk(location: tuple[str | int, ...], kind: type[BaseModel]) -> tuple[str, type[BaseModel] | None]:
    """The dotted path of an error without pydantic's union tags, and the model that owns its last part."""
    owner: type[BaseModel] | None = kind
    candidates: list[type[BaseModel]] = []
    path = ""
    for part in location:
        tagged = next((c for c in candidates if _kind_of(c) == part), None)
        if tagged is not None:
            owner, candidates = tagged, []
            continue
        if isinstance(part, int):
            path += f"[{part}]"
            continue
        path += f".{part}" if path else str(part)
        if owner is not None and part in owner.model_fields:
            candidates = list(_models_in(owner.model_fields[part]))
            if len(candidates) == 1 and part != location[-1]:
                owner = candidates[0]
            if len(candidates) == 1:
                candidates = candidates if _kind_of(candidates[0]) else []
        elif part != location[-1] and not candidates:
            owner = None
    return path, owner


def _kind_of(model: type[BaseModel]) -> str | None:
    field = model.model_fields.get("kind")
    return str(field.default) if field is not None else None


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, FieldInfo):
        annotation = annotation.annotation
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models_in(argument)]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
