"""A small experiment file for tests that train nothing, or next to nothing."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

from orchestrator.experiment import Experiment, load_experiment

HRM = {"kind": "hrm", "hidden_size": 16, "num_heads": 2, "H_layers": 1, "L_layers": 1, "causal": True}
TRANSFORMER = {"kind": "transformer", "hidden_size": 16, "num_heads": 2, "num_layers": 1, "causal": True}
SMALL: dict[str, Any] = {
    "question": "Does it work?",
    "tasks": [{"kind": "red_team", "num_train": 16, "num_validation": 4, "num_test": 4, "phrasings": 1}],
    "base": {
        "model": HRM,
        "optimizer": {"kind": "adamw", "learning_rate": 0.01},
        "batch_size": 4,
        "num_reports": 4,
    },
    "arms": {"plain": {}, "control": {"patch": {"model": TRANSFORMER}}},
    "space": {
        "optimizer.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
        "batch_size": {"choices": [2, 4, 8]},
    },
    "search": {
        "trials": 6,
        "generation": 3,
        "deterministic": True,
        "sampler": {"kind": "tpe", "startup_trials": 2},
        "pruner": {"kind": "successive_halving", "first_rung": 1, "reduction": 2},
    },
    "budget": {"axis": "steps", "amount": 4},
    "replicas": {"seeds": 2, "configurations": 1},
    "trackers": [],
}


def changed(**changes: Any) -> dict[str, Any]:
    """SMALL with dotted paths (`__` for a dot; `_space` keys hold dots themselves) set; None removes a top field."""
    data = deepcopy(SMALL)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = data
        for parent in parents:
            place = place.setdefault(parent, {})
        if value is None and not parents:
            place.pop(last, None)
        else:
            place[last] = value
    return data


def write(path: Path, data: dict[str, Any]) -> Path:
    """The experiment file (JSON is YAML)."""
    path.write_text(json.dumps(data))
    return path


def experiment(folder: Path, **changes: Any) -> Experiment:
    """The experiment, loaded from a file in `folder`."""
    return load_experiment(write(folder / "small.yaml", changed(**changes)))
