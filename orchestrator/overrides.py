"""What `--set` and `--smoke` change in an experiment file, before it is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hrm.errors import Problem, SpecError
from hrm.strict_yaml import parse_yaml
from orchestrator.space import assign, merge

_EXAMPLE = "search.trials=4"


def with_overrides(data: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """The file with every `path=value` set. Raises SpecError with each that has no such form."""
    problems: list[Problem] = []
    for override in overrides:
        path, separator, text = override.partition("=")
        if not separator or not path:
            rule = "must have the form path=value"
            problems.append(Problem(f"--set {override}", rule, f"Write --set {_EXAMPLE}"))
            continue
        try:
            data = assign(data, path, parse_yaml(text, f"--set {path}"))
        except SpecError as error:
            way_out = f"Correct the path or the value, as in --set {_EXAMPLE}"
            problems += [Problem(f"--set {override}", p.rule, way_out) for p in error.problems]
    if problems:
        raise SpecError(*problems)
    return data


def with_smoke(data: dict[str, Any], path: Path) -> dict[str, Any]:
    """The file with its `smoke:` section laid over it. Raises SpecError if there is none."""
    if "smoke" not in data:
        raise SpecError(Problem(f"{path}: smoke", "is missing, and --smoke needs it", "Add a `smoke:` mapping"))
    if not isinstance(data["smoke"], dict):
        raise SpecError(Problem(f"{path}: smoke", f"must be a mapping, got {data['smoke']!r}", "Write fields below it"))
    merged: dict[str, Any] = merge(data, data["smoke"])
    return merged
