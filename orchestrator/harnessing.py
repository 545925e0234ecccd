"""`checkpoint harness`: a checkpoint on tasks of the lm-evaluation-harness."""

from __future__ import annotations

import argparse
import json
import logging

import torch

from hrm.errors import Problem, SpecError
from hrm.harness import harness, score
from orchestrator.commands import too_small
from orchestrator.transformers_folders import task_option

_CAUSAL = "its prompts were read as a whole in training (PrefixLM); the harness lets it read them causally"


def score_checkpoint(options: argparse.Namespace) -> int:
    """Score and show; gives the exit code."""
    _check(options)
    harness()
    from hrm.huggingface.harness_model import HarnessModel

    logging.getLogger("lm_eval").setLevel(logging.WARNING)
    device = {} if options.device is None else {"device": options.device}
    task = task_option(options.task)
    model = HarnessModel(str(options.path), str(options.storage), task, batch_size=options.batch_size, **device)
    asked = {"limit": options.limit, "num_fewshot": options.num_fewshot}
    results = score(model, options.tasks, options.include_path, **asked)
    notes = [_CAUSAL] if model.prompts_whole else []
    if options.limit is not None:
        notes.append(f"the first {options.limit} examples of each task only: a try, no result")
    if options.json:
        print(json.dumps({"checkpoint": str(options.path), "results": results, "notes": notes}))
        return 0
    for name, metrics in results.items():
        print(f"{name}: {_listed(metrics)}")
    print("\n".join(notes), end="\n" if notes else "")
    return 0


def _check(options: argparse.Namespace) -> None:
    """Raises SpecError with every number that means nothing, and for a device that is not here."""
    problems = too_small(options, limit=1, num_fewshot=0, batch_size=1)
    here = _devices()
    if options.device is not None and options.device not in here:
        rule = f"must be {' or '.join(here)} on this machine, got {options.device!r}"
        problems.append(Problem("--device", rule, "Correct it, or leave it out"))
    if problems:
        raise SpecError(*problems)


def _devices() -> list[str]:
    count = torch.cuda.device_count()
    gpus = ["cuda", *(f"cuda:{number}" for number in range(count))] if count else []
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


def _listed(metrics: dict[str, float]) -> str:
    """Each value with its standard error, where the harness has one."""
    return ", ".join(
        f"{name} {value:.4f}" + (f" ± {metrics[error]:.4f}" if (error := f"{name}_stderr") in metrics else "")
        for name, value in metrics.items()
        if not name.endswith("_stderr")
    )
