"""YAML is read as YAML 1.2 where PyYAML is not, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from hrm.errors import SpecError
from hrm.strict_yaml import parse_yaml, read_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E6", 1e6),
        ("1.5e12", 1.5e12),
        ("3", 3),
        ("-0.5", -0.5),
        ("1_000", 1000),
        (".5", 0.5),
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("010", 10),
        ("1:30", "1:30"),
        ("'1e-4'", "1e-4"),
    ],
)
def test_a_scalar_means_what_it_looks_like(text: str, value: object) -> None:
    parsed = parse_yaml(text, "x.yaml")
    assert parsed == value
    assert type(parsed) is type(value)


def test_a_key_that_occurs_twice_is_refused_with_its_line() -> None:
    with pytest.raises(SpecError, match=r"x\.yaml.*'a' occurs twice \(line 3\)"):
        parse_yaml("a: 1\nb: 2\na: 3\n", "x.yaml")


def test_a_file_that_is_missing_or_no_mapping_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"none\.yaml: cannot be read: No such file"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(SpecError, match="must hold a mapping, got list"):
        read_yaml(tmp_path / "list.yaml")


def test_a_python_object_is_not_built() -> None:
    with pytest.raises(SpecError, match="could not determine a constructor"):
        parse_yaml("!!python/object/apply:os.system ['true']", "x.yaml")
