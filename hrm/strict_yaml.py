"""YAML read strictly: what looks like a number is one, a key may not occur twice, `no` is a word.

PyYAML follows YAML 1.1: it reads `1e-4` as a string, `no` as false, and keeps the last of duplicate keys. Every YAML
file of this project passes through `read_yaml`, which follows YAML 1.2 in these points.
"""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from hrm.errors import Problem, SpecError


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2 scalars and without duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} occurs twice (line {line})")
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rsplit(":", 1)[1] in ("null", "merge")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?[0-9][0-9_]*$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^(?:[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+|\.[0-9]+(?:[eE][-+]?[0-9]+)?|\.inf)|\.nan)$"
    ),
    list("-+0123456789."),
)


def _construct_int(loader: _Loader, node: yaml.ScalarNode) -> int:
    return int(loader.construct_scalar(node).replace("_", ""))


def _construct_float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node).replace("_", "")
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)


def parse_yaml(text: str, place: str) -> Any:
    """Parse YAML text; `place` (a file name) starts every error. Raises SpecError."""
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise SpecError(Problem(f"{place}{mark}", f"not valid YAML: {error.problem}", "Correct the file")) from error
    except yaml.YAMLError as error:
        raise SpecError(Problem(place, f"not valid YAML: {error}", "Correct the file")) from error


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds one mapping. Raises SpecError, also for a missing file."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(
            Problem(str(path), f"cannot be read: {error.strerror}", "Give the path of a YAML file")
        ) from error
    data = parse_yaml(text, str(path))
    if not isinstance(data, dict):
        raise SpecError(
            Problem(str(path), f"must hold a mapping, got {type(data).__name__}", "Start with `key: value`")
        )
    return data
