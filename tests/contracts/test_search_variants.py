"""The contracts of samplers, pruners and trackers, for every one there is, and what all variants keep."""

from __future__ import annotations

import itertools
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from hrm.optim import OptimizerSpec
from hrm.spec import Spec, parse_spec
from hrm.variants import discover
from orchestrator.experiment import SearchSpec
from orchestrator.objectives import SearchObjectiveSpec
from orchestrator.schedulers import PrunerSpec
from orchestrator.search import SamplerSpec
from orchestrator.space import Dimension, Space
from orchestrator.studies import Direction, SearchStudy, open_journal
from orchestrator.trackers import TrackerSpec

SAMPLERS = discover("orchestrator.search", SamplerSpec)
PRUNERS = discover("orchestrator.schedulers", PrunerSpec)
TRACKERS = discover("orchestrator.trackers", TrackerSpec)
OPTIMIZERS = discover("hrm.optim", OptimizerSpec)
EVERY = [*SAMPLERS.values(), *PRUNERS.values(), *TRACKERS.values(), *OPTIMIZERS.values()]


def smoke(variant: type[Spec]) -> Any:
    return variant.smoke()  # type: ignore[attr-defined]


def test_what_the_house_promises_is_there() -> None:
    assert {"random", "grid", "tpe", "gp", "cma_es", "qmc", "nsga2"} <= SAMPLERS.keys()
    assert {"none", "median", "percentile", "successive_halving", "hyperband"} <= PRUNERS.keys()
    assert {"patience", "threshold"} <= PRUNERS.keys()
    assert {"mlflow"} <= TRACKERS.keys()
    assert {"adamw", "adam_atan2", "muon"} <= OPTIMIZERS.keys()


@pytest.mark.parametrize("variant", EVERY, ids=lambda v: v.__name__)
def test_the_kind_is_the_name_of_the_file_and_the_spec_survives_json(variant: type[Spec]) -> None:
    spec = smoke(variant)
    assert spec.kind == variant.__module__.rsplit(".", 1)[-1]
    again = parse_spec(variant, json.loads(spec.model_dump_json()), "smoke")
    assert (again, again.hash()) == (spec, spec.hash())


# --- samplers --------------------------------------------------------------------------------------------------------

SPACE = {
    "rate": Dimension(low=1e-4, high=1e-1, log=True),
    "layers": Dimension(low=1, high=4),
    "kind": Dimension(choices=["a", "b", None]),
    "share": Dimension(low=0.1, high=0.5, step=0.1),
}
COUNTABLE = {path: SPACE[path] for path in ("layers", "kind", "share")}


def opened(folder: Path, **search: Any) -> SearchStudy:
    """A study in a journal, opened as a new driver opens it."""
    spec = SearchSpec(**search)
    directions = [each.direction for each in spec.objectives] or ["minimize"]
    return SearchStudy(open_journal(folder / "journal.log"), "study", spec, directions, num_reports=4)


def searched(study: SearchStudy, space: Space, number: int) -> list[dict[str, Any]]:
    """The parameters of new trials, each of which ends before the next is asked for."""
    found = []
    for _ in range(number):
        draft = study.draw(space)
        found.append(draft.params)
        value = float(draft.params.get("layers", 1)) + abs(math.log10(draft.params.get("rate", 1e-2)) + 2)
        key = study.add(draft, {"spec": {}})
        study.tell(key, TrialState.COMPLETE, [value, -value][: len(study.study.directions)])
    return found


def space_for(spec: SamplerSpec) -> Space:
    return SPACE if spec.problem(SPACE, 1) is None else COUNTABLE


@pytest.mark.parametrize("kind", SAMPLERS)
def test_proposals_are_in_the_space_and_a_new_driver_makes_the_same(kind: str, tmp_path: Path) -> None:
    spec = smoke(SAMPLERS[kind])
    space = space_for(spec)
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
    at_once = searched(opened(tmp_path / "one", sampler=spec), space, 9)
    by_many = [searched(opened(tmp_path / "two", sampler=spec), space, 1)[0] for _ in range(9)]
    assert at_once == by_many
    assert all(space[path].refusal(value) == "" for each in at_once for path, value in each.items())
    assert len({json.dumps(each, sort_keys=True) for each in at_once}) > 5
    assert searched(opened(tmp_path, sampler=spec, seed=1), space, 4) != at_once[:4]


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_draw_that_was_not_logged_is_drawn_again_and_another_draw_is_another(kind: str, tmp_path: Path) -> None:
    spec = smoke(SAMPLERS[kind])
    study = opened(tmp_path, sampler=spec)
    searched(study, space_for(spec), 6)
    first, again = study.draw(space_for(spec)).params, study.draw(space_for(spec), again=1).params
    assert opened(tmp_path, sampler=spec).draw(space_for(spec)).params == first
    assert again != first or kind == "gp", "only a corner that it is sure of is proposed again"


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_range_that_has_moved_keeps_what_is_known_inside_it(kind: str, tmp_path: Path) -> None:
    spec = smoke(SAMPLERS[kind])
    space = space_for(spec)
    study = opened(tmp_path, sampler=spec)
    searched(study, space, 6)
    moved = {**space, "layers": Dimension(low=2, high=9)}
    assert all(each["layers"] >= 2 for each in searched(study, moved, 6))


@pytest.mark.parametrize("kind", SAMPLERS)
def test_a_sampler_takes_several_objectives_or_says_that_it_does_not(kind: str, tmp_path: Path) -> None:
    spec = smoke(SAMPLERS[kind])
    problem = spec.problem(space_for(spec), 2)
    assert (problem is not None) == (kind == "cma_es")
    if problem is None:
        both = [SearchObjectiveSpec(metric="loss"), SearchObjectiveSpec(metric="flops")]
        study = opened(tmp_path, sampler=spec, objectives=both)
        assert len(searched(study, space_for(spec), 6)) == 6
        assert 1 <= len(study.ranked()) <= 6


def test_a_grid_refuses_a_range_without_a_step_and_cma_es_a_space_without_a_range() -> None:
    assert "give rate a step" in str(SAMPLERS["grid"]().problem(SPACE, 1)).lower()
    choices = {"kind": SPACE["kind"]}
    assert "needs a range" in str(SAMPLERS["cma_es"]().problem(choices, 1))
    assert SAMPLERS["cma_es"]().problem(SPACE, 1) is None


def test_quasi_random_proposals_are_more_even_than_random_ones(tmp_path: Path) -> None:
    line = {"x": Dimension(low=0.0, high=1.0)}

    def gap(kind: str) -> float:
        (tmp_path / kind).mkdir()
        study = opened(tmp_path / kind, sampler=smoke(SAMPLERS[kind]))
        found = sorted([0.0, 1.0, *(each["x"] for each in searched(study, line, 32))])
        return max(b - a for a, b in itertools.pairwise(found))

    assert gap("qmc") < 2.1 / 32 < gap("random")


BOWL = {path: Dimension(low=-5.0, high=5.0) for path in "ab"}


@pytest.mark.parametrize("kind", ["tpe", "cma_es", pytest.param("gp", marks=pytest.mark.slow)])
def test_a_sampler_with_a_model_finds_better_points_than_random_ones(kind: str, tmp_path: Path) -> None:
    """The median over five seeds of the best of 30 values of a bowl whose bottom is at (2, -1)."""

    def best(kind: str, seed: int) -> float:
        folder = tmp_path / f"{kind}-{seed}"
        folder.mkdir()
        study, values = opened(folder, sampler=SAMPLERS[kind](), seed=seed), []
        for _ in range(30):
            draft = study.draw(BOWL)
            values.append((draft.params["a"] - 2) ** 2 + (draft.params["b"] + 1) ** 2)
            study.tell(study.add(draft, {"spec": {}}), TrialState.COMPLETE, [values[-1]])
        return min(values)

    seeds = range(2) if kind == "gp" else range(5)
    assert statistics.median(best(kind, s) for s in seeds) < statistics.median(best("random", s) for s in seeds)


# --- pruners ---------------------------------------------------------------------------------------------------------


def prune_at(study: SearchStudy, values: Sequence[float]) -> int | None:
    """The report at which a new trial with these values is pruned; it then ends, with the last value or without."""
    number = study.add(study.configured({}, {}), {"spec": {}})
    for index, value in enumerate(values, 1):
        study.report(number, index, value)
        if index < len(values) and study.should_prune(number):
            assert study.should_prune(number), "a driver that is killed here asks again"
            study.tell(number, TrialState.PRUNED)
            return index
    study.tell(number, TrialState.COMPLETE, [values[-1]])
    return None


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
@pytest.mark.parametrize("kind", PRUNERS)
def test_a_pruner_ends_bad_trials_and_spares_the_best(kind: str, direction: Direction, tmp_path: Path) -> None:
    sign = 1.0 if direction == "minimize" else -1.0
    search = SearchSpec(pruner=smoke(PRUNERS[kind]))
    study = SearchStudy(open_journal(tmp_path / "journal.log"), "study", search, [direction], num_reports=4)
    for offset in range(24):
        prune_at(study, [sign * (1 + offset % 8 + 1 / step) for step in (1, 2, 3, 4)])
    assert prune_at(study, [sign * value for value in (0.4, 0.3, 0.2, 0.1)]) is None
    worst = [prune_at(study, [sign * value for value in (90.0, 91.0, 92.0, 93.0)]) for _ in range(12)]
    assert any(worst) == (kind != "none")


@pytest.mark.parametrize("kind", PRUNERS)
def test_a_pruner_of_a_deterministic_search_looks_at_earlier_generations_only(kind: str, tmp_path: Path) -> None:
    """The generation itself holds nothing but better trials, with notes of all rungs."""
    search = SearchSpec(pruner=smoke(PRUNERS[kind]), deterministic=True)

    def bad_one(folder: Path, rivals: int) -> list[bool]:
        folder.mkdir()
        study = SearchStudy(open_journal(folder / "journal.log"), "study", search, ["minimize"], num_reports=4)
        numbers = [study.add(study.configured({}, {}), {"spec": {}, "generation": [0, 9]}) for _ in range(9)]
        for number in numbers[9 - rivals :]:
            for index in (1, 2, 3, 4):
                study.report(number, index, 1.0 / index)
                study.should_prune(number)
            study.tell(number, TrialState.COMPLETE, [0.25])
        found = []
        for index in (1, 2, 3):
            study.report(numbers[0], index, 40.0 + index)
            found.append(study.should_prune(numbers[0]))
        return found

    assert bad_one(tmp_path / "alone", 0) == bad_one(tmp_path / "among", 8)


def test_hyperband_gives_trials_different_patience(tmp_path: Path) -> None:
    search = SearchSpec(pruner=smoke(PRUNERS["hyperband"]))
    study = SearchStudy(open_journal(tmp_path / "journal.log"), "study", search, ["minimize"], num_reports=8)
    ends = [prune_at(study, [(i * 7) % 20 + 1 / step for step in range(1, 9)]) for i in range(60)]
    assert {1, 2, 4} <= {end for end in ends if end}
    assert ends.count(None) > 10


# --- trackers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", TRACKERS)
def test_building_a_tracker_touches_nothing_and_says_how_to_look(kind: str, tmp_path: Path) -> None:
    tracker = smoke(TRACKERS[kind]).build(tmp_path / "sweeps" / "x", tmp_path)
    assert tracker.ui_command
    assert tracker.run_id("no-such-trial") == ""
    assert list(tmp_path.iterdir()) == []
