"""The red-team text: its splits share no triple, its padding is never scored, its entropy is what it says."""

from __future__ import annotations

import hashlib
import math
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from hrm.data.dataset import SPLITS, Dataset, build_dataset
from hrm.data.red_team_conversations import build_vocabulary, encode_rows
from hrm.data.red_team_turns import ITEMS, PHRASINGS, SPECIAL
from hrm.spec import parse_spec
from hrm.strict_yaml import read_yaml
from hrm.tasks import IGNORE
from hrm.tasks.red_team import RedTeamSpec

RECIPES = Path(__file__).parents[2] / "datasets"


@pytest.fixture(scope="module", params=["red_team", "red_team_enhanced"])
def spec(request: pytest.FixtureRequest) -> RedTeamSpec:
    path = RECIPES / f"{request.param}.yaml"
    return parse_spec(RedTeamSpec, read_yaml(path), str(path))


@pytest.fixture(scope="module")
def dataset(spec: RedTeamSpec, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return build_dataset(spec, tmp_path_factory.mktemp("data"))


def columns(dataset: Dataset, split: str) -> dict[str, np.ndarray]:
    rows = dataset.split(split)
    return rows.gather(np.arange(len(rows)))


def conversations(spec: RedTeamSpec, dataset: Dataset, split: str) -> list[str]:
    inputs = columns(dataset, split)["inputs"]
    return [spec.render(row.tolist(), dataset.manifest.vocabulary) for row in inputs]


def triple(conversation: str) -> tuple[str, ...]:
    """The items of a rendered conversation; fails unless it names exactly one of each sort."""
    words = set(conversation.split())
    found = [words & set(items) for items in ITEMS.values()]
    assert [len(names) for names in found] == [1, 1, 1], conversation
    return tuple(name for names in found for name in names)


def choices(conversation: str) -> tuple[str, ...]:
    """The first word of every turn."""
    return tuple(line.split()[1] for line in conversation.splitlines())


def test_the_recipe_file_is_the_default() -> None:
    assert parse_spec(RedTeamSpec, read_yaml(RECIPES / "red_team.yaml"), "red_team") == RedTeamSpec()


def test_the_same_recipe_gives_the_same_bytes(spec: RedTeamSpec, dataset: Dataset, tmp_path: Path) -> None:
    again = build_dataset(spec, tmp_path)
    for path in dataset.directory.iterdir():
        assert (again.directory / path.name).read_bytes() == path.read_bytes(), path.name
    assert again.manifest.fingerprint == dataset.manifest.fingerprint


def test_the_default_rows_are_those_of_the_day_they_were_pinned(tmp_path: Path) -> None:
    """A changed phrasing does not change the recipe's hash: whoever edits one must know that old folders go stale."""
    dataset = build_dataset(RedTeamSpec(), tmp_path)
    digest = hashlib.sha256()
    for split in SPLITS:
        digest.update(columns(dataset, split)["inputs"].astype("<i4").tobytes())
    assert digest.hexdigest() == "6f547d33fadaaf4ea56013311ee9317aecba2a059b8af3190c77f362f3ccd45a"


def test_another_seed_gives_other_rows(spec: RedTeamSpec, dataset: Dataset, tmp_path: Path) -> None:
    other = build_dataset(spec.model_copy(update={"seed": 1}), tmp_path)
    assert set(conversations(spec, other, "test")) != set(conversations(spec, dataset, "test"))


def test_splits_share_no_triple_and_no_split_repeats_a_row(spec: RedTeamSpec, dataset: Dataset) -> None:
    triples = {}
    for split in SPLITS:
        rows = conversations(spec, dataset, split)
        assert len(set(rows)) == len(rows) == dataset.manifest.rows[split]
        triples[split] = {triple(row) for row in rows}
    assert sum(map(len, triples.values())) == len(set().union(*triples.values()))
    assert {split: len(own) for split, own in triples.items()} == dataset.manifest.facts["distinct_triples_by_split"]


@pytest.mark.parametrize("filtered", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_train_names_every_item_even_with_few_rows(filtered: bool, seed: int, tmp_path: Path) -> None:
    few = RedTeamSpec(num_train=11, num_validation=40, num_test=40, seed=seed)
    few = few.model_copy(update={"flawed_fraction": 0.9 * filtered, "quality_filter": filtered})
    rows = conversations(few, build_dataset(few, tmp_path), "train")
    for place, items in enumerate(ITEMS.values()):
        assert {triple(row)[place] for row in rows} == set(items)


def test_padding_is_never_scored_and_every_label_is_the_next_token(dataset: Dataset) -> None:
    vocabulary = dataset.manifest.vocabulary
    pad, end, start = (vocabulary.index(word) for word in ("<pad>", "<eos>", "<system>"))
    for split in SPLITS:
        rows = columns(dataset, split)
        for inputs, labels in zip(rows["inputs"], rows["labels"], strict=True):
            length = int((inputs != pad).sum())
            assert inputs[0] == start
            assert (inputs[length:] == pad).all()
            assert (labels[length:] == IGNORE).all()
            assert (labels[: length - 1] == inputs[1:length]).all()
            assert labels[length - 1] == end
            assert end not in inputs


def test_rows_are_of_the_length_that_the_task_promises(dataset: Dataset) -> None:
    lengths = np.concatenate([(columns(dataset, split)["labels"] != IGNORE).sum(axis=1) for split in SPLITS])
    assert lengths.min() >= 90
    assert lengths.max() <= dataset.shape.sequence_length <= 128


def test_every_turn_names_its_role_in_order(spec: RedTeamSpec, dataset: Dataset) -> None:
    for row in conversations(spec, dataset, "validation"):
        assert re.findall(r"^(\w+): ", row, re.MULTILINE) == ["system", *["user", "assistant"] * 4]


def test_items_come_in_the_first_two_turns_and_at_least_twice_later(spec: RedTeamSpec, dataset: Dataset) -> None:
    for row in conversations(spec, dataset, "train"):
        turns = row.splitlines()
        for item in triple(row):
            assert sum(turn.split().count(item) for turn in turns[:2]) == 1
            assert sum(turn.split().count(item) for turn in turns[2:]) >= 2


def test_the_entropy_agrees_with_counting_the_choices(spec: RedTeamSpec, dataset: Dataset) -> None:
    rows = conversations(spec, dataset, "train")
    options = [len(set(words)) for words in zip(*map(choices, rows), strict=True)]
    options += [len(set(items)) for items in zip(*map(triple, rows), strict=True)]
    for split in SPLITS:
        labels = columns(dataset, split)["labels"]
        expected = len(labels) * sum(map(math.log, options)) / (labels != IGNORE).sum()
        assert dataset.manifest.facts["generator_cross_entropy_by_split"][split] == pytest.approx(expected, rel=1e-12)
    assert dataset.manifest.facts["generator_cross_entropy"] == pytest.approx(expected, rel=1e-12)


def test_each_choice_costs_its_entropy_at_one_token(spec: RedTeamSpec, dataset: Dataset) -> None:
    """Within a turn only the first word and the first mention of an item may vary: the rest is determined."""
    followers: dict[tuple[object, ...], set[str]] = defaultdict(set)
    for row in conversations(spec, dataset, "train"):
        names = dict(zip(triple(row), ITEMS, strict=True))
        for number, turn in enumerate(row.splitlines()):
            words = [f"{{{names[word]}}}" if word in names else word for word in turn.split()] + ["<end of turn>"]
            for place in range(2, len(words)):
                followers[number, tuple(words[:place])].add(words[place])
    assert {len(words) for words in followers.values()} == {1}


@pytest.mark.parametrize(("wording", "phrasings"), [("plain", 3), ("enhanced", 6)])
def test_the_phrasings_of_a_turn_differ_in_their_first_word(wording: str, phrasings: int) -> None:
    for texts in PHRASINGS[wording]:
        assert len({text.split()[0] for text in texts}) == phrasings


def test_the_vocabulary_is_built_from_train_alone(spec: RedTeamSpec, dataset: Dataset) -> None:
    rows = columns(dataset, "train")
    used = set(np.unique(rows["inputs"])) | set(np.unique(rows["labels"])) - {IGNORE}
    vocabulary = dataset.manifest.vocabulary
    assert {vocabulary[token] for token in used} == set(vocabulary) - {"<unk>"}
    assert vocabulary[: len(SPECIAL)] == list(SPECIAL)
    assert len(set(vocabulary)) == len(vocabulary)


def test_a_word_that_train_lacks_is_unknown_and_scored(tmp_path: Path) -> None:
    vocabulary = build_vocabulary([["<system>", "plan", "<eos>"]])
    inputs, labels = encode_rows([["<system>", "quokka", "plan", "<eos>"]], vocabulary, 4)
    unknown = vocabulary.index("<unk>")
    assert inputs[0].tolist() == [vocabulary.index("<system>"), unknown, vocabulary.index("plan"), 0]
    assert labels[0].tolist() == [unknown, vocabulary.index("plan"), vocabulary.index("<eos>"), IGNORE]
    few = RedTeamSpec(num_train=11, num_validation=40, num_test=40, seed=7)
    built = build_dataset(few, tmp_path)
    held_out = {word for split in SPLITS[1:] for row in conversations(few, built, split) for word in row.split()}
    assert "<unk>" in held_out
    assert all("<unk>" not in row for row in conversations(few, built, "train"))


def test_no_word_of_the_recipe_is_unknown(dataset: Dataset) -> None:
    for split in SPLITS:
        assert dataset.manifest.vocabulary.index("<unk>") not in columns(dataset, split)["inputs"]


def test_a_recipe_with_more_rows_than_conversations_is_refused() -> None:
    RedTeamSpec(num_train=504, num_validation=100, num_test=100, phrasings=1)
    with pytest.raises(ValidationError, match=r"num_validation needs 100 of the 704 .* and got 99"):
        RedTeamSpec(num_train=505, num_validation=100, num_test=100, phrasings=1)
    with pytest.raises(ValidationError, match="num_train needs 11 of the 704"):
        RedTeamSpec(num_train=11, num_validation=50_000, num_test=50_000)


@pytest.mark.parametrize(
    "change", [{"phrasings": 7}, {"phrasings": 0}, {"num_train": 10}, {"num_test": 0}, {"seed": -1}]
)
def test_fields_out_of_range_are_refused(change: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        RedTeamSpec.model_validate({"wording": "enhanced", **change})


def test_a_prompt_is_its_first_turns_and_only_what_follows_is_scored(
    spec: RedTeamSpec, dataset: Dataset, tmp_path: Path
) -> None:
    prompted = build_dataset(spec.model_copy(update={"prompt_turns": 2}), tmp_path)
    whole, rows = (part.split("train").gather(np.arange(50)) for part in (dataset, prompted))
    role = prompted.manifest.vocabulary.index("<user>")
    for inputs, labels, plain, length in zip(
        rows["inputs"], rows["labels"], whole["labels"], rows["prefix_lengths"], strict=True
    ):
        assert (inputs[:length] == prompted.manifest.vocabulary.index("<assistant>")).sum() == 0
        assert labels[length - 1] == inputs[length] != role  # the answer's first token is scored
        assert (labels[: length - 1] == IGNORE).all()
        assert (labels[length - 1 :] == plain[length - 1 :]).all()
    assert "generator_cross_entropy" not in prompted.manifest.facts
