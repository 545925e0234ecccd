"""The quality filter of the red-team text: it finds every flaw, drops nothing good, and says what it dropped."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from hrm.data.dataset import Dataset, build_dataset
from hrm.data.red_team_conversations import (
    RULES,
    Conversation,
    Flaw,
    Rule,
    broken_rule,
    draw_flaw,
    ordered_triples,
)
from hrm.data.red_team_turns import ITEMS, PHRASINGS
from hrm.spec import parse_spec
from hrm.strict_yaml import read_yaml
from hrm.tasks.red_team import RedTeamSpec

RECIPES = Path(__file__).parents[2] / "datasets"
GOOD = Conversation(("jailbreak", "phishing_simulation", "deny_service"), (0,) * 9, "enhanced")


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Dataset]:
    """The enhanced recipe, filtered and not."""
    names = ("red_team_enhanced", "red_team_unfiltered")
    specs = [parse_spec(RedTeamSpec, read_yaml(RECIPES / f"{name}.yaml"), name) for name in names]
    assert specs[0].model_copy(update={"quality_filter": False}) == specs[1]
    filtered, unfiltered = (build_dataset(spec, tmp_path_factory.mktemp("data")) for spec in specs)
    return filtered, unfiltered


def rows(dataset: Dataset, split: str) -> list[tuple[str, ...]]:
    stored, vocabulary = dataset.split(split), dataset.manifest.vocabulary
    tokens = stored.gather(np.arange(len(stored)))["inputs"]
    return [tuple(vocabulary[t] for t in row if t != vocabulary.index("<pad>")) for row in tokens.tolist()]


def turns(row: tuple[str, ...]) -> list[tuple[str, ...]]:
    starts = [place for place, word in enumerate(row) if word in ("<system>", "<user>", "<assistant>")]
    return [row[start:end] for start, end in zip(starts, [*starts[1:], len(row)], strict=True)]


def test_a_thousand_generated_conversations_become_about_810(twins: tuple[Dataset, Dataset]) -> None:
    filtered, unfiltered = (dataset.manifest.facts["quality"] for dataset in twins)
    assert (filtered["generated"], filtered["kept"]) == (1000, 814)
    assert filtered["broken"] == {"too_short": 72, "repeated_turn": 61, "wrong_item": 53}
    assert filtered["generated"] - sum(filtered["broken"].values()) == filtered["kept"]
    assert filtered["rules"] == RULES
    assert unfiltered == {**filtered, "kept": 1000}
    assert [dataset.manifest.rows["train"] for dataset in twins] == [814, 1000]


def test_what_was_dropped_is_what_breaks_a_rule_and_the_rest_keeps_its_order(twins: tuple[Dataset, Dataset]) -> None:
    kept, generated = (rows(dataset, "train") for dataset in twins)
    found = [broken_rule(turns(row)) for row in generated]
    assert kept == [row for row, broken in zip(generated, found, strict=True) if broken is None]
    assert Counter(found) == {**twins[0].manifest.facts["quality"]["broken"], None: 814}


def test_the_twins_share_words_shape_validation_and_test(twins: tuple[Dataset, Dataset]) -> None:
    filtered, unfiltered = twins
    assert filtered.shape == unfiltered.shape
    assert filtered.manifest.vocabulary == unfiltered.manifest.vocabulary
    assert 290 <= len(filtered.manifest.vocabulary) <= 310
    for split in ("validation", "test"):
        assert rows(filtered, split) == rows(unfiltered, split)
        assert {broken_rule(turns(row)) for row in rows(filtered, split)} == {None}


def test_the_entropy_of_a_split_with_flaws_is_not_stated(twins: tuple[Dataset, Dataset]) -> None:
    stated = [set(dataset.manifest.facts["generator_cross_entropy_by_split"]) for dataset in twins]
    assert stated == [{"train", "validation", "test"}, {"validation", "test"}]


def test_the_filter_finds_every_flaw_by_its_rule_and_drops_nothing_good() -> None:
    rng = random.Random(0)
    seen: Counter[Rule] = Counter()
    for triple in ordered_triples(rng):
        good = Conversation(triple, tuple(int(rng.random() * 6) for _ in range(9)), "enhanced")
        assert broken_rule(good.turns()) is None
        flaw = draw_flaw(rng, good.turns())
        assert broken_rule(replace(good, flaw=flaw).turns()) == flaw.rule
        seen[flaw.rule] += 1
    assert set(seen) == set(RULES)
    assert min(seen.values()) > 180


def test_each_flaw_changes_what_it_says_and_leaves_the_opening_alone() -> None:
    good = GOOD.turns()
    assert replace(GOOD, flaw=Flaw("too_short", 4)).turns() == good[:4]
    assert replace(GOOD, flaw=Flaw("repeated_turn", 5)).turns() == [*good[:5], good[3], *good[6:]]
    wrong = replace(GOOD, flaw=Flaw("wrong_item", 2, "model_inversion")).turns()
    assert [n for n in range(9) if wrong[n] != good[n]] == [2]
    assert wrong[2] == tuple("model_inversion" if word == "jailbreak" else word for word in good[2])


def test_the_enhanced_wording_holds_the_plain_one_and_about_twice_its_words() -> None:
    plain, enhanced = PHRASINGS["plain"], PHRASINGS["enhanced"]
    words = [{word for texts in wording for text in texts for word in text.split()} for wording in (plain, enhanced)]
    assert all(more[: len(own)] == own for own, more in zip(plain, enhanced, strict=True))
    assert len(words[1]) > 1.9 * len(words[0])
    assert all(mark in text for turn in (2, 8) for text in enhanced[turn] for mark in ("{s}", "{t}", "{g}"))
    assert all("{s}" in text for text in enhanced[0])
    assert all("{t}" in text and "{g}" in text for text in enhanced[1])
    assert not {item for items in ITEMS.values() for item in items} & words[1]


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"phrasings": 4}, "phrasings must be <= 3 where wording is 'plain', got 4; lower it"),
        ({"quality_filter": True}, "quality_filter must be false where flawed_fraction is 0, got true"),
        (
            {"flawed_fraction": 0.1, "prompt_turns": 3},
            "prompt_turns must be <= 2 where flawed_fraction is not 0, got 3",
        ),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields: dict[str, object], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        RedTeamSpec.model_validate(fields)
