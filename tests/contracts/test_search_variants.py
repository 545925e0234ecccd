"""The contracts of samplers, pruners and trackers, for every one there is, and what all variants keep."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler

from hrm.optim import OptimizerSpec
from hrm.spec import Spec, parse_spec
from hrm.variants import discover
from orchestrator.schedulers import PrunerSpec
from orchestrator.search import SamplerSpec
from orchestrator.trackers import TrackerSpec

SAMPLERS = discover("orchestrator.search", SamplerSpec)
PRUNERS = discover("orchestrator.schedulers", PrunerSpec)
TRACKERS = discover("orchestrator.trackers", TrackerSpec)
OPTIMIZERS = discover("hrm.optim", OptimizerSpec)
EVERY = [*SAMPLERS.values(), *PRUNERS.values(), *TRACKERS.values(), *OPTIMIZERS.values()]


def smoke(variant: type[Spec]) -> Any:
    return variant.smoke()  # type: ignore[attr-defined]


def test_what_the_house_promises_is_there() -> None:
    assert {"random", "tpe"} <= SAMPLERS.keys()
    assert {"none", "median", "successive_halving"} <= PRUNERS.keys()
    assert {"mlflow"} <= TRACKERS.keys()
    assert {"adamw", "adam_atan2", "muon"} <= OPTIMIZERS.keys()


@pytest.mark.parametrize("variant", EVERY, ids=lambda v: v.__name__)
def test_the_kind_is_the_name_of_the_file_and_the_spec_survives_json(variant: type[Spec]) -> None:
    spec = smoke(variant)
    assert spec.kind == variant.__module__.rsplit(".", 1)[-1]
    again = parse_spec(variant, json.loads(spec.model_dump_json()), "smoke")
    assert (again, again.hash()) == (spec, spec.hash())


# --- samplers --------------------------------------------------------------------------------------------------------


def study_with_trials(sampler: BaseSampler) -> optuna.Study:
    """Eight completed trials, then the sampler."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda trial: (math.log10(parameters(trial)["rate"]) + 2) ** 2, n_trials=8)
    study.sampler = sampler
    return study


def parameters(trial: optuna.Trial) -> dict[str, Any]:
    return {
        "rate": trial.suggest_float("rate", 1e-4, 1e-1, log=True),
        "layers": trial.suggest_int("layers", 1, 4),
        "kind": trial.suggest_categorical("kind", ["a", "b", None]),
    }


def proposal(spec: SamplerSpec, seed: int) -> dict[str, Any]:
    return parameters(study_with_trials(spec.build(seed)).ask())


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_proposal_is_in_the_space_and_a_function_of_the_seed_and_the_study(kind: str) -> None:
    spec = smoke(SAMPLERS[kind])
    proposals = [proposal(spec, seed) for seed in range(6)]
    assert all(1e-4 <= p["rate"] <= 1e-1 and p["layers"] in (1, 2, 3, 4) for p in proposals)
    assert [proposal(spec, seed) for seed in range(6)] == proposals
    assert len({p["rate"] for p in proposals}) == 6


# --- pruners ---------------------------------------------------------------------------------------------------------


def reported(study: optuna.Study, values: Iterable[float]) -> optuna.Trial:
    trial = study.ask()
    for step, value in enumerate(values, 1):
        trial.report(value, step)
    return trial


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("kind", PRUNERS)
def test_a_pruner_ends_the_worst_and_spares_the_best_in_both_directions(kind: str, direction: str) -> None:
    sign = 1.0 if direction == "minimize" else -1.0
    study = optuna.create_study(direction=direction, pruner=smoke(PRUNERS[kind]).build())
    for offset in (1.0, 2.0, 3.0, 4.0):
        trial = reported(study, [sign * (offset + 1 / step) for step in (1, 2, 3, 4)])
        trial.should_prune()
        study.tell(trial, sign * offset)
    assert not reported(study, [sign * 0.1] * 4).should_prune()
    worst = reported(study, [sign * 90.0] * 4)
    assert worst.should_prune() == (kind != "none")


# --- trackers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TRACKERS)
def test_building_a_tracker_touches_nothing_and_says_how_to_look(kind: str, tmp_path: Path) -> None:
    tracker = smoke(TRACKERS[kind]).build(tmp_path / "sweeps" / "x", tmp_path)
    assert tracker.ui_command
    assert tracker.run_id("no-such-trial") == ""
    assert list(tmp_path.iterdir()) == []
