"""Search spaces: what is suggested, and how patches and paths change a trial."""

from __future__ import annotations

from typing import Any

import optuna
import pytest

from hrm.errors import SpecError
from hrm.spec import parse_spec
from orchestrator.space import Dimension, apply, assign, merge


def suggested(data: dict[str, Any], number: int = 40) -> list[Any]:
    dimension = parse_spec(Dimension, data, "x")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [study.ask({"path": dimension.distribution()}).params["path"] for _ in range(number)]


def test_two_whole_ends_give_whole_numbers_and_both_ends() -> None:
    values = suggested({"low": 1, "high": 4})
    assert {type(v) for v in values} == {int}
    assert set(values) == {1, 2, 3, 4}


def test_a_step_leaves_out_what_is_between() -> None:
    assert set(suggested({"low": 2, "high": 8, "step": 3})) == {2, 5, 8}


def test_one_end_with_a_fraction_gives_numbers_with_fractions() -> None:
    values = suggested({"low": 0, "high": 0.5})
    assert {type(v) for v in values} == {float}
    assert 0 <= min(values) < 0.1
    assert 0.4 < max(values) <= 0.5


def test_a_logarithmic_scale_spends_as_many_values_on_each_decade() -> None:
    values = suggested({"low": 1e-4, "high": 1.0, "log": True}, 200)
    assert 70 < sum(v < 1e-2 for v in values) < 130


def test_choices_are_given_as_they_are() -> None:
    assert set(suggested({"choices": [None, "a", 2, 0.5, True]})) == {None, "a", 2, 0.5, True}


def test_a_patch_is_laid_over_mapping_by_mapping_and_changes_neither() -> None:
    base, patch = {"a": {"x": 1, "y": [1, 2]}, "b": 2}, {"a": {"y": [3]}, "c": None}
    assert merge(base, patch) == {"a": {"x": 1, "y": [3]}, "b": 2, "c": None}
    assert (base, patch) == ({"a": {"x": 1, "y": [1, 2]}, "b": 2}, {"a": {"y": [3]}, "c": None})


def test_another_kind_replaces_the_mapping_and_the_same_kind_does_not() -> None:
    base = {"model": {"kind": "hrm", "H_layers": 2}}
    assert merge(base, {"model": {"kind": "transformer"}}) == {"model": {"kind": "transformer"}}
    assert merge(base, {"model": {"kind": "hrm", "L_layers": 3}})["model"] == {
        "kind": "hrm",
        "H_layers": 2,
        "L_layers": 3,
    }


def test_a_path_is_set_in_a_copy_and_makes_the_mappings_it_needs() -> None:
    data: dict[str, Any] = {"a": {"b": 1}}
    assert apply(data, {"a.c": 2, "d.e.f": 3}) == {"a": {"b": 1, "c": 2}, "d": {"e": {"f": 3}}}
    assert data == {"a": {"b": 1}}


def test_a_path_through_a_value_is_refused() -> None:
    with pytest.raises(SpecError, match=r"a\.b\.c: `b` holds no fields"):
        assign({"a": {"b": 1}}, "a.b.c", 2)


def test_a_dimension_can_be_set_by_its_path() -> None:
    data = {"space": {"model.L_cycles": {"low": 1, "high": 4}}, "arms": {"a": {"space": {}}}}
    assert assign(data, "space.model.L_cycles.high", 2)["space"] == {"model.L_cycles": {"low": 1, "high": 2}}
    whole = assign(data, "arms.a.space.optimizer.learning_rate", {"choices": [0.1]})
    assert whole["arms"]["a"]["space"] == {"optimizer.learning_rate": {"choices": [0.1]}}
