"""Discovery: one file in a package is one variant; the union of their specs is the YAML schema.

A variant is a subclass of the package's contract with a literal `kind`. It is found in the package's own modules and
in the entry points of installed packages (group = the package's dotted name), so that a user adds one from outside.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from typing import Annotated, Any, Union

from pydantic import Field

from hrm.spec import Spec


@cache
def discover(package: str, contract: type[Spec]) -> dict[str, type[Spec]]:
    """Every concrete variant of `contract` in `package` and in its entry points, by `kind`, sorted.

    Raises ValueError if two variants claim one kind.
    """
    root = importlib.import_module(package)
    modules = [importlib.import_module(f"{package}.{info.name}") for info in pkgutil.iter_modules(root.__path__)]
    classes = {c for module in modules for _, c in inspect.getmembers(module, inspect.isclass)}
    classes |= {point.load() for point in entry_points(group=package)}
    found: dict[str, type[Spec]] = {}
    for variant in sorted(classes, key=lambda c: (c.__module__, c.__qualname__)):
        if not (issubclass(variant, contract) and "kind" in variant.model_fields and not inspect.isabstract(variant)):
            continue
        kind = str(variant.model_fields["kind"].default)
        if kind in found:
            raise ValueError(f"{package}: two variants are of kind {kind!r}: {found[kind]} and {variant}")
        found[kind] = variant
    return dict(sorted(found.items()))


def union(package: str, contract: type[Spec]) -> Any:
    """The annotation of a field that holds any variant, told apart by `kind`."""
    variants = tuple(discover(package, contract).values())
    if len(variants) == 1:
        return variants[0]
    return Annotated[Union[variants], Field(discriminator="kind")]  # noqa: UP007  (a union made at run time)
