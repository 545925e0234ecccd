"""ARC as a dataset: layout, splits, identifiers and forms, and the evaluation by vote."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrm.data.arc_predictions import PASSES, scores
from hrm.data.dataset import SPLITS, Dataset, build_dataset
from hrm.errors import SpecError
from hrm.models.hrm import HRMSpec
from hrm.spec import parse_spec
from hrm.strict_yaml import read_yaml
from hrm.tasks import IGNORE, Answers, TaskShape
from hrm.tasks.arc import ArcSpec

ROOT = Path(__file__).parents[2]
ARC = {"source": {"path": str(ROOT / "tests" / "fixtures" / "arc" / "arc-agi-1")}}
CONCEPT = {"source": {"path": str(ROOT / "tests" / "fixtures" / "arc" / "concept-arc" / "concept-arc.json.gz")}}
SHARED = ROOT.parent / "shared" / "data" / "arc-agi-1" / "arc-agi-1.json.gz"
TINY = ArcSpec.smoke()


def recipe(**fields: Any) -> ArcSpec:
    return parse_spec(ArcSpec, fields, "recipe")


@pytest.fixture(scope="module")
def arc(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Of ten real tasks; 6f8cd79b has 18 forms, 332efdb3 has 9."""
    spec = recipe(sources=[ARC], leave_out=["40853293"], augmentations=50, validation_share=0.4)
    return build_dataset(spec, tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return build_dataset(TINY, tmp_path_factory.mktemp("data"))


def columns(dataset: Dataset, split: str) -> dict[str, np.ndarray]:
    rows = dataset.split(split)
    return rows.gather(np.arange(len(rows)))


def base(dataset: Dataset, name: str) -> int:
    """The first puzzle identifier of a task."""
    facts = dataset.manifest.facts
    return int(facts["first_identifiers"][facts["tasks"].index(name)])


def test_tokens_and_layout_are_the_originals(tiny: Dataset) -> None:
    shape, read = tiny.shape, columns(tiny, "train")
    assert (shape.vocab_size, shape.sequence_length, shape.num_puzzle_identifiers) == (12, 36, 1 + 6 * 8)
    wide = read["inputs"][2].reshape(6, 6)  # 1101/0010
    label = read["labels"][2].reshape(6, 6)  # 2202/0020
    assert wide.tolist()[:4] == [[3, 3, 2, 3, 1, 0], [2, 2, 3, 2, 1, 0], [1, 1, 1, 1, 0, 0], [0] * 6]
    blank = IGNORE
    assert label.tolist()[:3] == [[4, 4, 2, 4, 1, blank], [2, 2, 4, 2, 1, blank], [1, 1, 1, 1, blank, blank]]
    assert (label[3:] == blank).all()


def test_canvases_are_30_by_30_and_need_not_hold_an_end(arc: Dataset) -> None:
    assert arc.shape.sequence_length == 900
    assert arc.manifest.rows == {"train": 34, "validation": 3, "test": 3}


def test_demonstrations_and_training_tests_are_trained_on_and_evaluation_tests_are_held_out(arc: Dataset) -> None:
    files = {file.stem: json.loads(file.read_text()) for file in Path(ARC["source"]["path"]).rglob("*.json")}
    evaluation = {file.stem for file in (Path(ARC["source"]["path"]) / "evaluation").glob("*.json")}
    held_out = [columns(arc, split)["puzzle_identifiers"].tolist() for split in ("validation", "test")]
    expected = [base(arc, name) for name in evaluation for _ in files[name]["test"]]
    assert sorted(held_out[0] + held_out[1]) == sorted(expected)
    assert not set(held_out[0]) & set(held_out[1])
    rows = arc.split("train")
    originals = rows.gather(rows.puzzle_indices[:-1][::51])["puzzle_identifiers"].tolist()
    assert originals == arc.manifest.facts["first_identifiers"]
    counts = {name: {part: len(pairs) for part, pairs in file.items()} for name, file in files.items()}
    sizes = {name: n["train"] + (0 if name in evaluation else n["test"]) for name, n in counts.items()}
    assert np.diff(rows.puzzle_indices)[::51].tolist() == [sizes[name] for name in arc.manifest.facts["tasks"]]


def test_a_task_of_few_forms_takes_few_identifiers_and_its_forms_come_round(arc: Dataset) -> None:
    rows, first = arc.split("train"), base(arc, "6f8cd79b")
    task = arc.manifest.facts["tasks"].index("6f8cd79b")
    puzzles = np.arange(task * 51, task * 51 + 51)
    found = rows.gather(rows.puzzle_indices[puzzles])
    assert found["puzzle_identifiers"].tolist() == [first + form % 18 for form in range(51)]
    assert found["forms"].tolist() == [form % 18 for form in range(51)]
    assert arc.shape.num_puzzle_identifiers == 1 + 7 * 51 + 18 + 9


def test_every_pair_of_a_form_is_changed_in_the_same_way_and_all_but_one_are_moved(tiny: Dataset) -> None:
    rows = tiny.split("train")
    for puzzle in range(8):  # all forms of `recolour`: 1 becomes 2
        read = rows.gather(np.arange(*rows.puzzle_indices[puzzle : puzzle + 2]))
        assert set(read["puzzle_identifiers"]) == {1 + puzzle}
        pairs = {(a, b) for a, b in zip(read["inputs"].ravel(), read["labels"].ravel(), strict=True) if a > 2}
        assert len(pairs) == 1
        assert len(next(iter(pairs))) == 2
        in_corner = [row for row in read["inputs"] if row[0] >= 2]
        assert len(in_corner) == 4 if puzzle == 0 else len(in_corner) >= 1
    moved = rows.gather(np.arange(rows.puzzle_indices[1], rows.puzzle_indices[24]))
    assert (moved["inputs"][:, 0] == 0).mean() > 0.5
    inputs, labels = moved["inputs"] > 1, moved["labels"] > 1
    assert (inputs == labels).all()  # in these tasks input and output have one shape, and so they share a place


def test_a_held_out_pair_and_its_demonstrations_share_forms_and_identifiers(arc: Dataset) -> None:
    task = arc.task
    assert isinstance(task, ArcSpec)
    stored = columns(arc, "test")
    pick = {name: column[[0] * 6] for name, column in stored.items()}
    forms = task.form(pick, np.arange(6))
    assert forms["puzzle_identifiers"].tolist() == [stored["puzzle_identifiers"][0] + form for form in range(6)]
    assert (forms["inputs"][:, 0] > 0).all()  # never moved
    rows = arc.split("train")
    number = arc.manifest.facts["first_identifiers"].index(int(stored["puzzle_identifiers"][0]))
    for form in range(6):
        puzzle = rows.gather(np.arange(*rows.puzzle_indices[number * 51 + form : number * 51 + form + 2]))
        assert set(puzzle["puzzle_identifiers"]) == {forms["puzzle_identifiers"][form]}


def test_forms_made_on_the_fly_and_stored_ones_are_equal_rows(tiny: Dataset, tmp_path: Path) -> None:
    stored = build_dataset(TINY.model_copy(update={"stored": True}), tmp_path)
    for split in SPLITS:
        for name, values in columns(tiny, split).items():
            np.testing.assert_array_equal(columns(stored, split)[name], values, err_msg=name)
        for indices in ("puzzle_indices", "group_indices"):
            found, expected = (getattr(dataset.split(split), indices) for dataset in (stored, tiny))
            np.testing.assert_array_equal(found, expected)


def test_the_bytes_of_a_recipe_never_change(tiny: Dataset) -> None:
    digest = hashlib.sha256()
    for split in SPLITS:
        read = columns(tiny, split)
        for name in ("inputs", "labels", "puzzle_identifiers"):
            digest.update(read[name].astype("<i4").tobytes())
    assert digest.hexdigest()[:16] == "46e2630e0b152c28"


def test_another_seed_is_other_forms_of_the_same_tasks(tiny: Dataset, tmp_path: Path) -> None:
    other = columns(build_dataset(TINY.model_copy(update={"seed": 1}), tmp_path), "train")
    same = (other["inputs"] == columns(tiny, "train")["inputs"]).all(axis=1)
    assert same[columns(tiny, "train")["forms"] == 0].all()
    assert same.mean() < 0.5


def test_more_tasks_do_not_change_which_side_a_task_is_on(tmp_path: Path) -> None:
    few = build_dataset(recipe(sources=[{**CONCEPT, "held_out": "all"}], augmentations=0), tmp_path)
    assert few.manifest.facts["held_out_tasks"] == 160
    names = [few.manifest.facts["tasks"][at - 1] for at in np.unique(columns(few, "validation")["puzzle_identifiers"])]
    assert len(names) == 32
    again = build_dataset(recipe(sources=[{**CONCEPT, "held_out": "all"}], augmentations=0, seed=5), tmp_path)
    np.testing.assert_array_equal(columns(again, "validation")["inputs"], columns(few, "validation")["inputs"])


def test_the_digest_of_the_files_is_part_of_the_recipe() -> None:
    identified = recipe(sources=[ARC, {**CONCEPT, "held_out": "none"}]).identified()
    assert all(source.source and source.source.sha256 for source in identified.sources)
    assert identified.identified() is identified


def test_answers_that_are_trained_on_are_refused_unless_allowed_and_counted(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        build_dataset(recipe(sources=[ARC], augmentations=0), tmp_path)
    assert caught.value.problems[0].rule.endswith("to 1 held-out task are trained on too: 070dd51e as 40853293")
    allowed = build_dataset(recipe(sources=[ARC], augmentations=0, allow_overlap=True), tmp_path)
    assert allowed.manifest.facts["trained_and_held_out_tasks"] == 1
    assert allowed.manifest.facts["trained_and_held_out"] == [["070dd51e", "40853293"]]


def test_a_refusal_names_every_task_that_is_trained_on(tmp_path: Path) -> None:
    sources = [{**CONCEPT, "held_out": "all"}, {**CONCEPT, "held_out": "none"}]
    with pytest.raises(SpecError, match="answers to 160 held-out tasks ") as caught:
        build_dataset(recipe(sources=sources, augmentations=0), tmp_path)
    listed = caught.value.problems[0].rule.partition("too: ")[2].split(", ")
    assert len({name for name, other in (entry.split(" as ") for entry in listed) if name == other}) == 160


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"canvas": 3}, "dataset arc: canvas: must be as large as every grid, got 3, and 6 tasks (recolour, "),
        (
            {"canvas": 6, "leave_out": ["mirrir", "fall"]},
            "dataset arc: leave_out: there is no training task fall, mirrir",
        ),
        (
            {"sources": [CONCEPT]},
            "dataset arc: sources: must give at least two tasks to hold out (validation, test), got 0",
        ),
    ],
)
def test_a_recipe_that_does_not_fit_its_tasks_is_refused(fields: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        build_dataset(recipe(**fields), tmp_path)
    assert problem in str(caught.value)


def test_more_votes_than_trained_forms_are_refused() -> None:
    with pytest.raises(SpecError, match=r"votes must be <= augmentations \+ 1 = 8, got 9: further forms have no"):
        recipe(augmentations=7, votes=9)


def test_a_grid_is_rendered_with_its_ends_and_without_the_padding_around() -> None:
    spec = ArcSpec(canvas=4)
    tokens = [0, 0, 0, 0, 0, 11, 2, 1, 0, 1, 1, 0, -100, -100, 0, 0]
    assert spec.render(tokens, ["<pad>", "<end>", *"0123456789"]) == "....\n.90+\n.++."
    assert spec.render([0] * 16, []) == "."


def oracle(rows: Mapping[str, np.ndarray]) -> Answers:
    """Knows every answer where it is told the puzzle; draws nothing where it is not."""
    told = rows["puzzle_identifiers"][:, None] > 0
    tokens = np.where(told, np.where(rows["labels"] == IGNORE, 7, rows["labels"]), 0)
    return Answers(rows, tokens, np.zeros(len(tokens)), np.full(len(tokens), 0.5))


def test_the_exact_grid_is_the_grid_without_its_ends(tiny: Dataset) -> None:
    rows = columns(tiny, "train")
    answers = oracle(rows)
    assert TINY.score(answers, tiny.manifest.vocabulary) == {"exact_grid": (len(rows["inputs"]), len(rows["inputs"]))}
    tokens = answers.tokens.copy()
    cell = (rows["labels"] >= 2).argmax(axis=1)
    tokens[np.arange(60), cell[:60]] = np.where(tokens[np.arange(60), cell[:60]] == 3, 4, 3)
    wrong = Answers(rows, tokens, answers.losses, None)
    assert TINY.score(wrong, [])["exact_grid"][0] == len(tokens) - 60
    larger = Answers(rows, np.where(answers.tokens == 1, 5, answers.tokens), answers.losses, None)
    assert TINY.score(larger, [])["exact_grid"][0] < 0.2 * len(tokens)


def test_an_oracle_passes_by_vote_and_is_lost_without_identifiers(arc: Dataset) -> None:
    task = arc.task
    assert isinstance(task, ArcSpec)
    for split in ("validation", "test"):
        found = task.judge(task.predictions(oracle, arc.split(split), arc.manifest.vocabulary))
        names = [f"pass_{k}" for k in PASSES] + ["whole_tasks_2"]
        assert found == dict.fromkeys(names, 1.0) | {f"{name}_blank": 0.0 for name in names}


def test_every_different_form_votes_once_and_grids_come_back_as_they_are(arc: Dataset) -> None:
    task = arc.task
    assert isinstance(task, ArcSpec)
    predictions = task.predictions(oracle, arc.split("test"), arc.manifest.vocabulary).to_pylist()
    told = [row for row in predictions if not row["blank"]]
    forms: dict[int, list[int]] = {}
    for row in told:
        forms.setdefault(row["task"], []).append(row["form"])
    read = columns(arc, "test")
    expected = {first: 9 if first == base(arc, "332efdb3") else 51 for first in read["puzzle_identifiers"].tolist()}
    assert forms == {first: list(range(count)) for first, count in expected.items()}
    assert len({(row["task"], row["height"], row["cells"]) for row in told}) == 3
    assert all(row["cells"] == b"" for row in predictions if row["blank"])


def test_the_majority_of_forms_decides(tiny: Dataset) -> None:
    def right_in_most_forms(rows: Mapping[str, np.ndarray]) -> Answers:
        answers = oracle(rows)
        tokens = np.where((rows["forms"] % 4 == 3)[:, None], 2, answers.tokens)
        return Answers(rows, tokens, answers.losses, None)

    predictions = TINY.predictions(right_in_most_forms, tiny.split("test"), tiny.manifest.vocabulary)
    assert sum(row["correct"] for row in predictions.to_pylist()) == 2 * 6
    assert scores(predictions)["pass_1"] == 1.0
    few = TINY.model_copy(update={"votes": 2}).predictions(
        right_in_most_forms, tiny.split("test"), tiny.manifest.vocabulary
    )
    assert few.num_rows == 2 * 2 * 2


def test_the_train_split_can_be_examined_too(tiny: Dataset) -> None:
    found = TINY.judge(TINY.predictions(oracle, tiny.split("train"), tiny.manifest.vocabulary))
    assert found["pass_1"] == found["whole_tasks_2"] == 1.0


def test_concept_arc_with_100_augmentations_has_15892_forms(tmp_path: Path) -> None:
    dataset = build_dataset(recipe(sources=[{**CONCEPT, "held_out": "all"}], augmentations=100), tmp_path)
    assert dataset.shape.num_puzzle_identifiers == 1 + 15_892


def test_the_model_of_v9_has_27990018_values_and_its_recipe_95996_identifiers(tmp_path: Path) -> None:
    experiment = read_yaml(ROOT / "experiments" / "v9_sweep.yaml")
    model = parse_spec(HRMSpec, experiment["base"]["model"], "v9").build(TaskShape(12, 900, 95_996))
    values = {name: tensor.numel() for name, tensor in model.state_dict().items()}
    parts = {part: sum(n for name, n in values.items() if name.startswith(part)) for part in ("H_level", "L_level")}
    assert parts == {"H_level": 1_703_936, "L_level": 1_703_936}
    assert values["puzzle_emb.weights"] == 24_574_976
    assert sum(values.values()) == 27_990_018
    if not SHARED.exists():
        pytest.skip(f"{SHARED} is not there")
    task = experiment["tasks"][0]
    task["sources"] = [{"source": {"path": str(SHARED)}}, {**CONCEPT, "held_out": "none"}]
    assert build_dataset(recipe(**task), tmp_path).shape.num_puzzle_identifiers == 95_996
