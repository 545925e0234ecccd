"""Makes our classes known to Transformers' Auto classes when `hrm` is imported, without importing Transformers.

If its registries are there already they are told at once; else as soon as they are imported. Nothing else of the import
is touched.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_CONFIGURATIONS = "transformers.models.auto.configuration_auto"
_MODELS = "transformers.models.auto.modeling_auto"


def register_when_imported() -> None:
    """Tell the registries now where they are imported, and when they are where not. Once is enough; twice is well."""
    waiting = {name: tell for name, tell in _TELL.items() if name not in sys.modules}
    for name, tell in _TELL.items():
        if name not in waiting:
            tell(sys.modules[name])
    if waiting and not any(isinstance(finder, _Waiting) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Waiting())


class _Waiting(MetaPathFinder):
    """Finds the two modules as they are usually found, and adds a last step to their execution."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in _TELL:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            _add_step(spec.loader, _TELL[name])
        return spec


def _add_step(loader: Any, tell: Callable[[ModuleType], None]) -> None:
    execute = loader.exec_module

    def exec_module(module: ModuleType) -> None:
        execute(module)
        tell(module)

    loader.exec_module = exec_module


def _tell_configurations(module: ModuleType) -> None:
    from hrm.huggingface.configuration import MODEL_TYPE, HrmConfig

    module.AutoConfig.register(MODEL_TYPE, HrmConfig, exist_ok=True)


def _tell_models(module: ModuleType) -> None:
    from hrm.huggingface.configuration import HrmConfig
    from hrm.huggingface.modeling import HrmForCausalLM

    module.AutoModelForCausalLM.register(HrmConfig, HrmForCausalLM, exist_ok=True)


_TELL = {_CONFIGURATIONS: _tell_configurations, _MODELS: _tell_models}
