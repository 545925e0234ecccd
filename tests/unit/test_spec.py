"""Specs: closed, frozen, strict, hashed by what differs from the defaults, with errors that a person understands."""

from __future__ import annotations

import pickle
from typing import Any, Literal

import pytest
from pydantic import Field, ValidationError

from hrm.errors import InfrastructureError, Problem, SpecError, TrialError
from hrm.spec import Spec, parse_spec


class Wheel(Spec):
    kind: Literal["wheel"] = "wheel"
    spokes: int = Field(20, ge=3)
    rim: float | None = None


class Cart(Spec):
    wheels: list[Wheel]
    load: int | float | str = 1
    names: dict[str, Wheel] = Field(default_factory=dict)
    axle: Wheel = Wheel()


class LaterWheel(Wheel):
    tyre: str = "none"


def said(data: Any, kind: type[Spec] = Cart) -> list[str]:
    with pytest.raises(SpecError) as caught:
        parse_spec(kind, data, "cart.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_every_problem_comes_at_once_with_its_path() -> None:
    wrong = {"wheels": [{"spokes": 1}, {"spokes": "a", "rim": 2}], "axel": {}, "names": {"front": {"rims": 1}}}
    no_field = "there is no such field"
    assert said(wrong) == [
        "cart.yaml: wheels[0].spokes: must be >= 3, got 1. Raise it.",
        "cart.yaml: wheels[1].spokes: must be a whole number, got 'a'. Write it without quotes and without a fraction.",
        f"cart.yaml: names.front.rims: {no_field}. Did you mean `rim`? The fields here are kind, rim, spokes.",
        f"cart.yaml: axel: {no_field}. Did you mean `axle`? The fields here are axle, load, names, wheels.",
    ]


def test_a_value_of_none_of_several_types_is_one_problem() -> None:
    expected = "cart.yaml: load: must be a whole number or a number or text, got [1]. Correct it."
    assert said({"wheels": [], "load": [1]}) == [expected]


def test_something_that_is_no_mapping_is_said_so() -> None:
    assert said([1]) == ["cart.yaml: must be a mapping, got [1]. Write `field: value` below it."]
    assert said({"wheels": [3]})[0].startswith("cart.yaml: wheels[0]: must be a mapping, got 3.")
    assert said({"wheels": {}})[0].startswith("cart.yaml: wheels: must be a list, got {}.")


@pytest.mark.parametrize(
    "wrong", [{"spokes": 20.5}, {"spokes": "20"}, {"spokes": True}, {"rim": "1"}, {"rim": float("inf")}]
)
def test_a_type_is_not_coerced(wrong: dict[str, Any]) -> None:
    assert len(said(wrong, Wheel)) == 1


def test_a_value_that_json_lacks_is_refused_with_its_place() -> None:
    assert said({"wheels": object()})[0].startswith("cart.yaml: holds a value that YAML allows and JSON does not")


def test_a_spec_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Wheel().spokes = 3  # type: ignore[misc]


def test_the_hash_covers_what_differs_and_not_what_is_default() -> None:
    assert Wheel(spokes=20).hash() == Wheel().hash()
    assert Wheel(spokes=21).hash() != Wheel().hash()
    assert Wheel(rim=1.0).canonical() == {"kind": "wheel", "rim": 1}


def test_a_new_field_with_a_default_keeps_the_hash() -> None:
    assert LaterWheel(spokes=7).hash() == Wheel(spokes=7).hash()
    assert LaterWheel(spokes=7, tyre="rubber").hash() != Wheel(spokes=7).hash()


def test_one_and_one_point_nought_are_one_number() -> None:
    assert parse_spec(Wheel, {"rim": 1}, "x").hash() == parse_spec(Wheel, {"rim": 1.0}, "x").hash()


def test_the_kind_of_a_part_is_always_in_the_hash() -> None:
    assert Cart(wheels=[Wheel()]).canonical() == {"wheels": [{"kind": "wheel"}]}


def test_a_problem_is_place_rule_and_way_out_in_sentences() -> None:
    assert str(Problem("x.yaml: a", "must be > 0, got 0", "Raise it")) == "x.yaml: a: must be > 0, got 0. Raise it."
    assert str(Problem("x", "is wrong.", "Did you mean `y`?")) == "x: is wrong. Did you mean `y`?"
    assert str(Problem("x", "is wrong")) == "x: is wrong."


@pytest.mark.parametrize(
    "error",
    [
        SpecError(Problem("a", "b", "c"), Problem("d", "e")),
        TrialError("diverged", "at step 3"),
        InfrastructureError("gone"),
    ],
)
def test_an_error_survives_pickling(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
