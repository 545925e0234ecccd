"""The base of every spec: frozen, closed to unknown fields, strictly typed, with a canonical hash.

A spec comes from YAML or JSON through `parse_spec`, which reports every problem at once in the house's words.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import re
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

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
    """Pydantic's errors as problems with `place: path.to.field`, the rule, the value and the way out.

    Where a value may be of several types, pydantic has one error for each: they become one problem.
    """
    problems: list[Problem] = []
    members: dict[str, tuple[list[str], str]] = {}
    for details in error.errors(include_url=False):
        path, owner, is_member = _walk(details["loc"], kind)
        where = f"{place}: {path}" if path else place
        if is_member and details["type"] in (*_TYPES, "literal_error"):
            expected = _TYPES[details["type"]][0] if details["type"] in _TYPES else details["ctx"]["expected"]
            members.setdefault(where, ([], _short(details["input"])))[0].append(expected)
        else:
            problems.append(_problem(details, where, owner))
    for where, (types, value) in members.items():
        if all(problem.place != where for problem in problems):  # of the right type, with a problem of its own
            problems.append(Problem(where, f"must be {' or '.join(types)}, got {value}", "Correct it"))
    return problems


_TYPES = {
    "int_type": ("a whole number", "Write it without quotes and without a fraction"),
    "int_from_float": ("a whole number", "Write it without a fraction"),
    "float_type": ("a number", "Write it without quotes"),
    "finite_number": ("a finite number", "Give one"),
    "bool_type": ("true or false", "Write it without quotes"),
    "string_type": ("text", "Put it in quotes"),
    "list_type": ("a list", "Write it in [ ]"),
    "tuple_type": ("a list", "Write it in [ ]"),
    "dict_type": ("a mapping", "Write `name: value` below it"),
    "model_type": ("a mapping", "Write `field: value` below it"),
    "model_attributes_type": ("a mapping", "Write `field: value` below it"),
}
"""By pydantic's name of the error: what the value must be, and the way out."""
_BOUNDS = {
    "greater_than": (">", "gt", "Raise it"),
    "greater_than_equal": (">=", "ge", "Raise it"),
    "less_than": ("<", "lt", "Lower it"),
    "less_than_equal": ("<=", "le", "Lower it"),
}


def _problem(details: Any, where: str, owner: type[BaseModel] | None) -> Problem:
    value, error, context = _short(details.get("input")), details["type"], details.get("ctx", {})
    if error in _TYPES:
        expected, way_out = _TYPES[error]
        return Problem(where, f"must be {expected}, got {value}", way_out)
    if error in _BOUNDS:
        sign, name, way_out = _BOUNDS[error]
        return Problem(where, f"must be {sign} {context[name]:g}, got {value}", way_out)
    match error:
        case "extra_forbidden":
            name = str(details["loc"][-1])
            known = sorted(owner.model_fields) if owner else []
            return Problem(
                where, "there is no such field", f"{_near(name, known)}The fields here are {', '.join(known)}"
            )
        case "missing":
            return Problem(where, "is required and missing", "Add it")
        case "union_tag_invalid":
            return _one_of(f"{where}.kind", context["expected_tags"], context["tag"])
        case "union_tag_not_found":
            return Problem(f"{where}.kind", "is required and missing", "Say which kind this is")
        case "literal_error":
            return _one_of(where, context["expected"], details["input"])
        case "too_short":
            rule = f"must hold at least {context['min_length']}, got {context['actual_length']}"
            return Problem(where, rule, "Add what is missing")
    rule, way_out = _sentences(str(details["msg"]))
    return Problem(where, rule if "got " in rule else f"{rule}, got {value}", way_out)


def _one_of(where: str, quoted: str, value: Any) -> Problem:
    known = re.findall("'([^']*)'", quoted)
    way_out = _near(str(value), known).strip() or "Give one of these"
    return Problem(where, f"must be one of {', '.join(known)}, got {value!r}", way_out)


def _near(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"Did you mean `{near[0]}`? " if near else ""


def _sentences(message: str) -> tuple[str, str]:
    """The rule and the way out of a validator's message: `rule, got value; way out`."""
    message = message.removeprefix("Value error, ").removeprefix("Input ").replace("should", "must")
    for mark in ("; ", ". "):
        rule, found, way_out = message.rpartition(mark)
        if found:
            return rule, way_out[:1].upper() + way_out[1:]
    return message, "Change one of the values"


def _walk(location: tuple[str | int, ...], kind: type[BaseModel]) -> tuple[str, type[BaseModel] | None, bool]:
    """The dotted path of an error without pydantic's union tags, the model that owns its last part, and whether the
    error is about one of several types that the value may have."""
    path, owner, is_member = "", None, False
    here: list[Any] = [kind]
    for part in location:
        is_member = len(here) > 1
        if is_member:
            here = [option for option in here if _kind_of(option) == part]
            is_member = not here
        elif isinstance(part, int):
            path += f"[{part}]"
            here = _inside(here, 0)
        else:
            path += f".{part}" if path else part
            owner = here[0] if here and _is_model(here[0]) else None
            if owner is None:
                here = _inside(here, 1)
            else:
                here = _alternatives(owner.model_fields[part].annotation) if part in owner.model_fields else []
    return path, owner, is_member


def _inside(here: list[Any], argument: int) -> list[Any]:
    """The types of the items of a list (argument 0) or of the values of a mapping (1)."""
    arguments = get_args(here[0]) if here else ()
    return _alternatives(arguments[argument]) if len(arguments) > argument else []


def _alternatives(annotation: Any) -> list[Any]:
    if get_origin(annotation) is Annotated:
        return _alternatives(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return [option for member in get_args(annotation) for option in _alternatives(member) if member is not NoneType]
    return [annotation]


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _kind_of(annotation: Any) -> str | None:
    field = annotation.model_fields.get("kind") if _is_model(annotation) else None
    return str(field.default) if field is not None else None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
