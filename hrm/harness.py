"""Scoring by EleutherAI's lm-evaluation-harness, where our checkpoints are the model `hrm` with `checkpoint=PATH`.

    python -m hrm.harness --model hrm --model_args checkpoint=PATH --tasks lambada_openai

is `lm_eval` with that model known. Needs `pip install 'hrm-orchestrator[harness]'`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hrm.errors import Problem, SpecError

_INSTALL = "pip install 'lm_eval>=0.4.13' 'accelerate>=1'"


def harness() -> Any:
    """The package `lm_eval`, to which our model is made known. Raises SpecError where it is not installed."""
    try:
        import lm_eval

        import hrm.huggingface.harness_model  # noqa: F401  (registers itself)
    except ImportError as error:
        rule = f"scoring by the lm-evaluation-harness needs packages that are not installed ({error})"
        raise SpecError(Problem("lm_eval", rule, _INSTALL)) from error
    return lm_eval


def score(
    model: Any, tasks: Sequence[str], include_path: Path | None = None, **options: Any
) -> dict[str, dict[str, float]]:
    """What a model of the harness reaches: task -> metric -> value, standard errors as `METRIC_stderr`.

    include_path: a folder with tasks of one's own. options: those of `lm_eval.simple_evaluate` (limit, num_fewshot).
    Raises SpecError for a task that there is not, for data that cannot be had, and for what the model has no room for.
    """
    lm_eval = harness()
    manager = _tasks(tasks, include_path)
    try:
        found = lm_eval.simple_evaluate(
            model=model, tasks=list(tasks), task_manager=manager, log_samples=False, **options
        )
    except (OSError, ValueError, AssertionError) as error:
        rule = f"cannot be scored: {(str(error) or type(error).__name__).splitlines()[0]}"
        way_out = "Where data of the hub are needed: a network, HF_ENDPOINT, or HF_HOME with a cache that holds them"
        if isinstance(error, AssertionError):
            way_out = "Where a task asks for more tokens than the model has positions: lower its max_gen_toks"
        raise SpecError(Problem(f"--tasks {','.join(tasks)}", rule, way_out)) from error
    return {task: _numbers(values) for task, values in found["results"].items()}


def _tasks(names: Sequence[str], include_path: Path | None) -> Any:
    """The harness's index of tasks; its own thousands are read only where they are asked for."""
    from lm_eval.tasks import TaskManager

    if include_path is not None and not include_path.is_dir():
        raise SpecError(Problem(f"--include-path {include_path}", "there is no such folder", "Correct it"))
    folder = None if include_path is None else str(include_path)
    manager = None
    if folder is not None:
        manager = TaskManager(include_path=folder, include_defaults=False)
    if manager is None or not set(names) <= set(manager.all_tasks):
        manager = TaskManager(include_path=folder)
    unknown = [name for name in names if name not in manager.all_tasks]
    if unknown:
        rule = f"the harness has no task {', '.join(map(repr, unknown))}"
        way_out = "Correct it (`lm_eval ls tasks` lists them), or give --include-path with a folder of your own"
        raise SpecError(Problem("--tasks", rule, way_out))
    return manager


def _numbers(values: dict[str, Any]) -> dict[str, float]:
    """`acc,none` is acc; another filter's name stays."""
    return {
        name.removesuffix(",none"): float(value)
        for name, value in values.items()
        if isinstance(value, int | float) and "," in name
    }


def main() -> None:
    """`lm_eval`'s own command, with our model."""
    harness()
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    try:
        main()
    except SpecError as problem:
        sys.exit(f"error: {problem}")
