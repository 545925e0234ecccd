"""The metrics of red-team conversations give known values for models whose answers are known."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrm.data.dataset import Dataset, build_dataset
from hrm.data.red_team_continuations import continue_openings
from hrm.data.red_team_turns import GOALS, ITEMS, OPENING, STRATEGIES, TACTICS
from hrm.tasks import IGNORE, Answers
from hrm.tasks.red_team import EXAMINED, RedTeamSpec

SPEC = RedTeamSpec(num_train=200, num_validation=100, num_test=100)
GENERATED = ("generated_strategy_accuracy", "generated_tactic_recall", "generated_goal_accuracy")
Change = Callable[[str], str]
CHOSEN = np.linspace(0, 99, EXAMINED).astype(int)
"""The rows of test that are examined."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return build_dataset(SPEC, tmp_path_factory.mktemp("data"))


def whole_rows(dataset: Dataset, split: str = "test") -> tuple[dict[str, np.ndarray], np.ndarray]:
    """All rows as columns, and as whole conversations [N, S + 1] with `<eos>`."""
    stored = dataset.split(split)
    columns = stored.gather(np.arange(len(stored)))
    whole = np.pad(columns["inputs"], ((0, 0), (0, 1)))
    whole[:, 1:] = np.where(columns["labels"] == IGNORE, 0, columns["labels"])
    return columns, whole


def answers_of(columns: Mapping[str, np.ndarray], tokens: np.ndarray) -> Answers:
    return Answers(columns, tokens, np.zeros(len(tokens)), None)


class Reciter:
    """Knows the examined conversations by heart; `change` swaps its words after the opening."""

    def __init__(self, dataset: Dataset, change: Change = str) -> None:
        self.vocabulary, self.passes = dataset.manifest.vocabulary, 0
        whole = whole_rows(dataset)[1][CHOSEN]
        changed = np.array([self.vocabulary.index(change(word)) for word in self.vocabulary])
        later = np.isin(whole, [self.vocabulary.index(f"<{r}>") for r in ("system", "user", "assistant")]).cumsum(1)
        self.said = np.where(later > OPENING, changed[whole], whole)

    def __call__(self, columns: Mapping[str, np.ndarray]) -> Answers:
        self.passes += 1
        assert (columns["labels"] == IGNORE).all()
        return answers_of(columns, self.said[:, 1:])


def other(*sorts: tuple[str, ...]) -> Change:
    """Every item of these sorts becomes the next of its sort."""
    following = {item: items[(n + 1) % len(items)] for items in sorts for n, item in enumerate(items)}
    return lambda word: following.get(word, word)


def examined(dataset: Dataset, change: Change = str) -> dict[str, float]:
    return SPEC.judge(SPEC.predictions(Reciter(dataset, change), dataset.split("test"), dataset.manifest.vocabulary))


def test_a_perfect_model_gets_one_everywhere(dataset: Dataset) -> None:
    metrics = examined(dataset)
    assert set(metrics) == {*GENERATED, "coherence", "well_formed"}
    assert set(metrics.values()) == {1.0}


def test_a_model_that_always_names_other_items_is_well_formed_and_incoherent(dataset: Dataset) -> None:
    metrics = examined(dataset, other(*ITEMS.values()))
    assert metrics == {**dict.fromkeys(GENERATED, 0.0), "coherence": 0.0, "well_formed": 1.0}


def test_a_model_that_confuses_one_sort_loses_there_and_in_coherence_by_its_share(dataset: Dataset) -> None:
    metrics = examined(dataset, other(STRATEGIES))
    assert [metrics[name] for name in GENERATED] == [0.0, 1.0, 1.0]
    vocabulary, whole = dataset.manifest.vocabulary, whole_rows(dataset)[1][CHOSEN]
    count = dict.fromkeys(ITEMS, 0)
    for row in whole.tolist():
        words = [vocabulary[token] for token in row]
        for sort, items in ITEMS.items():
            count[sort] += sum(word in items for word in words) - 1  # the opening names each item once
    assert metrics["coherence"] == pytest.approx(1 - count["strategy"] / sum(count.values()), rel=1e-12)


def test_a_model_that_never_ends_is_stopped_and_not_well_formed(dataset: Dataset) -> None:
    metrics = examined(dataset, lambda word: "." if word in ("<eos>", "<pad>") else word)
    assert metrics == {**dict.fromkeys(GENERATED, 1.0), "coherence": 1.0, "well_formed": 0.0}


def test_a_model_that_mentions_nothing_has_no_coherence(dataset: Dataset) -> None:
    items = {item for items in ITEMS.values() for item in items}
    metrics = examined(dataset, lambda word: "scope" if word in items else word)
    assert metrics == {**dict.fromkeys(GENERATED, 0.0), "coherence": 0.0, "well_formed": 1.0}


@pytest.mark.parametrize("change", [{"<user>": "<assistant>"}, {"<assistant>": "owner"}], ids=["order", "absent"])
def test_roles_out_of_order_are_not_well_formed(dataset: Dataset, change: dict[str, str]) -> None:
    assert examined(dataset, lambda word: change.get(word, word))["well_formed"] == 0.0


def test_drafts_make_it_cheap(dataset: Dataset) -> None:
    reciter = Reciter(dataset)
    SPEC.predictions(reciter, dataset.split("test"), dataset.manifest.vocabulary)
    assert reciter.passes <= 15  # of about 90 tokens


def babble(seed: int, vocabulary_size: int, fluent: Mapping[tuple[int, ...], int]) -> Callable[..., Answers]:
    """A causal model: what follows depends on the last three tokens; where `fluent` knows them, mostly as it says."""

    def following(context: tuple[int, ...]) -> int:
        drawn = zlib.crc32(repr((seed, context)).encode())
        return fluent[context] if context in fluent and drawn % 10 else drawn % vocabulary_size

    def answer(columns: Mapping[str, np.ndarray]) -> Answers:
        said = [
            [following(tuple(row[max(0, place - 2) : place + 1])) for place in range(len(row))]
            for row in columns["inputs"].tolist()
        ]
        return answers_of(columns, np.array(said, dtype=np.int32))

    return answer


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("turns", [2, 5])
def test_what_comes_out_is_what_token_by_token_gives(dataset: Dataset, seed: int, turns: int) -> None:
    columns, whole = whole_rows(dataset)
    columns, whole = {name: values[:6] for name, values in columns.items()}, whole[:6]
    vocabulary = dataset.manifest.vocabulary
    roles = [vocabulary.index(f"<{role}>") for role in ("system", "user", "assistant")]
    fluent = {tuple(row[n - 3 : n]): row[n] for row in whole.tolist() for n in range(3, len(row))}
    answer = babble(seed, len(vocabulary), fluent)
    text, given = continue_openings(answer, columns, turns, vocabulary)
    for row, tokens in enumerate(text.tolist()):
        expected = whole[row, : given[row]].tolist()
        assert expected.count(roles[1]) + expected.count(roles[2]) + 1 == turns
        while len(expected) < len(tokens) and vocabulary.index("<eos>") not in expected:
            inputs = np.array([expected + [0] * (len(tokens) - len(expected))])[:, :-1]
            expected.append(int(answer({"inputs": inputs}).tokens[0, len(expected) - 1]))
        assert tokens == expected + [0] * (len(tokens) - len(expected))


def test_a_longer_prompt_is_given_whole(tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"prompt_turns": 4})
    dataset = build_dataset(spec, tmp_path)
    seen: list[np.ndarray] = []
    stored, vocabulary = dataset.split("test"), dataset.manifest.vocabulary

    def silent(columns: Mapping[str, np.ndarray]) -> Answers:
        seen.append(columns["prefix_lengths"])
        return answers_of(columns, np.full(columns["inputs"].shape, vocabulary.index("<eos>")))

    assert spec.judge(spec.predictions(silent, stored, vocabulary))["well_formed"] == 0.0
    chosen = stored.gather(CHOSEN)
    _, given = continue_openings(silent, chosen, 4, vocabulary)
    assert (given == chosen["prefix_lengths"]).all()
    assert (seen[0] == given).all()


def test_an_item_that_train_lacks_is_left_out(tmp_path: Path) -> None:
    dataset = build_dataset(SPEC, tmp_path)
    vocabulary = dataset.manifest.vocabulary
    columns, whole = whole_rows(dataset)
    tactics = [vocabulary.index(tactic) for tactic in TACTICS]
    unknown = {name: np.where(np.isin(values, tactics), 1, values)[:8] for name, values in columns.items()}
    rows = np.where(np.isin(whole, tactics), 1, whole)[:8]

    class Few:
        def __len__(self) -> int:
            return 8

        def gather(self, indices: np.ndarray) -> dict[str, np.ndarray]:
            return {name: values[indices] for name, values in unknown.items()}

    few: Any = Few()
    metrics = SPEC.judge(SPEC.predictions(lambda c: answers_of(c, rows[:, 1:]), few, vocabulary))
    assert [metrics[name] for name in GENERATED] == [1.0, 0.0, 1.0]
    assert metrics["coherence"] == 1.0


# --- teacher-forced --------------------------------------------------------------------------------------------------


def scores(dataset: Dataset, tokens: np.ndarray, columns: Mapping[str, np.ndarray]) -> dict[str, tuple[float, float]]:
    return SPEC.score(answers_of(columns, tokens), dataset.manifest.vocabulary)


def test_every_mention_after_the_opening_counts_once(dataset: Dataset) -> None:
    columns, whole = whole_rows(dataset)
    found = scores(dataset, columns["labels"], columns)
    assert tuple(found) == SPEC.metrics == ("strategy_accuracy", "tactic_recall", "goal_accuracy")
    for name, items in zip(SPEC.metrics, ITEMS.values(), strict=True):
        words = [dataset.manifest.vocabulary[token] for token in whole.ravel()]
        mentions = sum(word in items for word in words) - len(whole)  # the opening names each item once
        assert found[name] == (mentions, mentions)


def test_a_wrong_item_costs_its_own_metric_alone_and_the_opening_costs_nothing(dataset: Dataset) -> None:
    columns, _ = whole_rows(dataset)
    vocabulary, labels = dataset.manifest.vocabulary, columns["labels"]
    perfect = scores(dataset, labels, columns)
    goals = np.isin(labels, [vocabulary.index(goal) for goal in GOALS])
    roles = np.isin(columns["inputs"], [vocabulary.index(f"<{r}>") for r in ("system", "user", "assistant")])
    opening = roles.cumsum(axis=1) <= OPENING
    assert scores(dataset, np.where(goals, -1, labels), columns) == {
        **perfect,
        "goal_accuracy": (0.0, perfect["goal_accuracy"][1]),
    }
    assert scores(dataset, np.where(opening, -1, labels), columns) == perfect


def test_what_is_not_scored_does_not_count(dataset: Dataset) -> None:
    columns, _ = whole_rows(dataset)
    silenced = {**columns, "labels": np.full_like(columns["labels"], IGNORE)}
    assert scores(dataset, columns["labels"], silenced) == dict.fromkeys(SPEC.metrics, (0.0, 0.0))
