"""The metrics of red-team conversations give known values for models whose answers are known."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hrm.data.dataset import Dataset, build_dataset
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
    whole[:, 1:] = np.where(columns["labels"] == IGNORE, whole[:, 1:], columns["labels"])
    return columns, whole


def answers_of(columns: Mapping[str, np.ndarray], tokens: np.ndarray) -> Answers:
    return Answers(columns, tokens, np.zeros(len(tokens)), None)


class Reciter:
    """Knows conversations [N, S + 1] by heart; `change` swaps its words after the opening."""

    def __init__(self, vocabulary: list[str], whole: np.ndarray, change: Change = str) -> None:
        self.whole, self.end = whole.tolist(), vocabulary.index("<eos>")
        changed = np.array([vocabulary.index(change(word)) for word in vocabulary])
        self.said = changed[whole].tolist()
        self.asked: list[tuple[list[list[int]], int, Sequence[int] | None]] = []

    def continued(self, prompts: list[list[int]], most: int, prefix: Sequence[int] | None = None) -> list[list[int]]:
        self.asked.append((prompts, most, prefix))
        return [self._after(prompt, most) for prompt in prompts]

    def _after(self, prompt: list[int], most: int) -> list[int]:
        start = len(prompt)
        row = next(n for n, tokens in enumerate(self.whole) if tokens[:start] == prompt)
        said = self.said[row][start : start + most]
        return said[: said.index(self.end)] if self.end in said else said


def other(*sorts: tuple[str, ...]) -> Change:
    """Every item of these sorts becomes the next of its sort."""
    following = {item: items[(n + 1) % len(items)] for items in sorts for n, item in enumerate(items)}
    return lambda word: following.get(word, word)


def examined(dataset: Dataset, change: Change = str) -> dict[str, float]:
    vocabulary: list[str] = dataset.manifest.vocabulary
    model: Any = Reciter(vocabulary, whole_rows(dataset)[1], change)
    return SPEC.judge(SPEC.predictions(model, dataset.split("test"), vocabulary))


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


@pytest.mark.parametrize("turns", [0, 1, 4])
def test_openings_are_given_and_prompts_are_read_whole(tmp_path: Path, turns: int) -> None:
    spec = SPEC.model_copy(update={"prompt_turns": turns})
    dataset = build_dataset(spec, tmp_path)
    vocabulary, (columns, whole) = dataset.manifest.vocabulary, whole_rows(dataset)
    model: Any = Reciter(vocabulary, whole)
    found = spec.predictions(model, dataset.split("test"), vocabulary)
    [(prompts, most, prefix)] = model.asked
    roles = [vocabulary.index(f"<{role}>") for role in ("system", "user", "assistant")]
    assert {sum(token in roles for token in prompt) for prompt in prompts} == {max(OPENING, turns)}
    assert most == whole.shape[1]
    assert prefix == (columns["prefix_lengths"][CHOSEN].tolist() if turns else None)
    assert found["given"].to_pylist() == [len(prompt) for prompt in prompts]
    for row, text in zip(CHOSEN, found["text"].to_pylist(), strict=True):
        assert text == " ".join(vocabulary[token] for token in whole[row] if vocabulary[token] != "<pad>")


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
    model: Any = Reciter(vocabulary, rows)
    metrics = SPEC.judge(SPEC.predictions(model, few, vocabulary))
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
