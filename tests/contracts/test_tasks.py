"""The contract of a task, for every task there is: the house's, and those of installed packages."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from hrm.data.dataset import SPLITS, Dataset, Rows, build_dataset
from hrm.data.predictions import read_predictions, write_predictions
from hrm.spec import Spec, parse_spec
from hrm.strict_yaml import read_yaml
from hrm.tasks import IGNORE, Answers, TaskSpec
from hrm.variants import discover

TASKS = discover("hrm.tasks", TaskSpec)
RECIPES = sorted((Path(__file__).parents[2] / "datasets").glob("*.yaml"))


@pytest.fixture(scope="module", params=TASKS, ids=str)
def spec(request: pytest.FixtureRequest) -> TaskSpec:
    variant = TASKS[request.param]
    assert issubclass(variant, TaskSpec)
    return variant.smoke()


@pytest.fixture(scope="module")
def dataset(spec: TaskSpec, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return build_dataset(spec, tmp_path_factory.mktemp("data"))


def columns(dataset: Dataset, split: str) -> dict[str, np.ndarray]:
    rows = dataset.split(split)
    return rows.gather(np.arange(len(rows)))


def test_there_are_tasks_to_hold_to_the_contract() -> None:
    assert TASKS
    assert RECIPES


def test_the_kind_is_the_name_of_the_file(spec: TaskSpec) -> None:
    assert spec.kind == type(spec).__module__.rsplit(".", 1)[-1]


def test_the_spec_survives_json_and_keeps_its_hash(spec: TaskSpec) -> None:
    again = parse_spec(type(spec), json.loads(spec.model_dump_json()), "smoke")
    assert again == spec
    assert again.hash() == spec.hash()


def test_it_builds_in_a_moment(spec: TaskSpec, tmp_path: Path) -> None:
    start = time.process_time()
    build_dataset(spec, tmp_path)
    assert time.process_time() - start < 2


def test_two_builds_are_equal_bytes(spec: TaskSpec, dataset: Dataset, tmp_path: Path) -> None:
    again = build_dataset(spec, tmp_path)
    assert again.manifest.fingerprint == dataset.manifest.fingerprint
    for path in dataset.directory.iterdir():
        assert (again.directory / path.name).read_bytes() == path.read_bytes(), path.name


def test_its_files_and_shape_are_as_the_manifest_says(spec: TaskSpec, dataset: Dataset) -> None:
    dataset.verify()
    manifest, shape = dataset.manifest, dataset.shape
    assert dataset.directory.name == f"{spec.kind}-{spec.hash()}"
    assert set(manifest.rows) >= set(SPLITS)
    assert shape.vocab_size == len(manifest.vocabulary)
    assert shape.next_token == spec.next_token
    for split, rows in manifest.rows.items():
        read = columns(dataset, split)
        assert read["inputs"].shape == read["labels"].shape == (rows * spec.forms(split), shape.sequence_length)
        assert ("puzzle_identifiers" in read) == (shape.num_puzzle_identifiers > 0)


def test_every_row_scores_a_position_and_stays_in_the_vocabulary(dataset: Dataset) -> None:
    for split in SPLITS:
        read = columns(dataset, split)
        assert ((read["inputs"] >= 0) & (read["inputs"] < dataset.shape.vocab_size)).all()
        scored = read["labels"] != IGNORE
        assert scored.any(axis=1).all()
        assert ((read["labels"][scored] >= 0) & (read["labels"][scored] < dataset.shape.vocab_size)).all()


def test_no_row_is_in_two_splits(dataset: Dataset) -> None:
    rows: list[set[bytes]] = []
    for split in SPLITS:
        read = columns(dataset, split)
        names = [name for name in ("inputs", "puzzle_identifiers") if name in read]
        rows.append({b"".join(read[name][index].tobytes() for name in names) for index in range(len(read["inputs"]))})
    assert len(set.union(*rows)) == sum(map(len, rows))


def test_a_next_token_task_labels_a_position_with_the_token_after_it(dataset: Dataset) -> None:
    if not dataset.shape.next_token:
        pytest.skip("not a next-token task")
    for split in SPLITS:
        read = columns(dataset, split)
        followed = (read["labels"][:, :-1] != IGNORE) & (read["labels"][:, 1:] != IGNORE)
        assert followed.any()
        assert (read["labels"][:, :-1] == read["inputs"][:, 1:])[followed].all()


def perfect(rows: Mapping[str, np.ndarray]) -> Answers:
    """What a model says that knows every label."""
    tokens = np.where(rows["labels"] == IGNORE, 0, rows["labels"])
    return Answers(rows, tokens, np.zeros(len(tokens)), np.ones(len(tokens)))


class Perfect:
    """That model where it is asked (`hrm.tasks.Answer`); it goes on with nothing."""

    tokenizer = None

    def __call__(self, rows: Mapping[str, np.ndarray], /) -> Answers:
        return perfect(rows)

    def continued(
        self, prompts: Sequence[Sequence[int]], max_new_tokens: int, prefix: Sequence[int] | None = None, /
    ) -> list[list[int]]:
        return [[] for _ in prompts]


def test_its_metrics_are_named_by_the_recipe_and_are_finite(spec: TaskSpec, dataset: Dataset) -> None:
    for split in SPLITS:
        sums = spec.score(perfect(columns(dataset, split)), dataset.manifest.vocabulary)
        assert tuple(sums) == spec.metrics
        assert np.isfinite(np.array(list(sums.values()))).all()


def test_metrics_of_halves_add_up_to_those_of_the_whole(spec: TaskSpec, dataset: Dataset) -> None:
    rows, words = dataset.split("validation"), dataset.manifest.vocabulary
    cut, whole = len(rows) // 2, np.arange(len(rows))
    halves = [spec.score(perfect(rows.gather(part)), words) for part in (whole[:cut], whole[cut:])]
    for name, (total, weight) in spec.score(perfect(rows.gather(whole)), words).items():
        assert total == pytest.approx(sum(half[name][0] for half in halves)), name
        assert weight == pytest.approx(sum(half[name][1] for half in halves)), name


def test_predictions_of_a_whole_split_are_judged_from_a_file_as_from_memory(
    spec: TaskSpec, dataset: Dataset, tmp_path: Path
) -> None:
    predictions = spec.predictions(Perfect(), dataset.split("test"), dataset.manifest.vocabulary)
    if predictions is None:
        pytest.skip("its metrics are sums over rows")
    found = spec.judge(predictions)
    assert all(np.isfinite(value) for value in found.values())
    assert not set(found) & set(spec.metrics)
    write_predictions(predictions, spec, tmp_path / "predictions.arrow")
    again, recipe = read_predictions([tmp_path / "predictions.arrow"])
    assert parse_spec(type(spec), json.loads(recipe), "recipe").judge(again) == found


def test_a_form_is_a_function_of_its_number_and_the_first_is_the_row(spec: TaskSpec, dataset: Dataset) -> None:
    if spec.forms("train") == 1:
        pytest.skip("its rows have one form")
    rows = dataset.split("train")
    order = np.random.RandomState(0).permutation(len(rows))
    together, alone = rows.gather(order), [rows.gather(order[at : at + 1]) for at in range(len(order))]
    for name, values in together.items():
        np.testing.assert_array_equal(values, np.concatenate([row[name] for row in alone]), name)
    first = rows.gather(rows.puzzle_indices[rows.group_indices[:-1]])
    stored = Rows(dataset.directory / "train.arrow").gather(np.arange(dataset.manifest.rows["train"]))
    assert {row.tobytes() for row in first["inputs"]} <= {row.tobytes() for row in stored["inputs"]}


def test_a_row_can_be_read_by_a_person(spec: TaskSpec, dataset: Dataset) -> None:
    read = columns(dataset, "validation")
    assert spec.render(read["inputs"][0].tolist(), dataset.manifest.vocabulary).strip()


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.name)
def test_every_recipe_file_is_a_valid_recipe_with_a_word_on_top(recipe: Path) -> None:
    data = read_yaml(recipe)
    spec: Spec = parse_spec(TASKS[data["kind"]], data, str(recipe))
    assert spec.model_dump(exclude_unset=True, mode="json") == data
    assert recipe.read_text().startswith("# ")


@pytest.mark.parametrize("kind", TASKS)
def test_every_task_of_the_house_has_a_recipe(kind: str) -> None:
    if not TASKS[kind].__module__.startswith("hrm.tasks."):
        pytest.skip("of another package")
    assert kind in {read_yaml(recipe)["kind"] for recipe in RECIPES}
