"""What is drawn, what ends a row, what is refused before anything is computed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hrm.errors import SpecError
from hrm.generate import Continuation, Sampling, Step, _chosen, continuations, generate
from hrm.models import Model
from hrm.models.hrm import HRMSpec
from hrm.models.transformer import TransformerSpec
from hrm.nn.draws import Draws
from hrm.nn.losses import log_probabilities
from hrm.tasks import TaskShape

SHAPE = TaskShape(vocab_size=9, sequence_length=8, next_token=True)


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    return HRMSpec(hidden_size=16, num_heads=2, H_layers=1, L_layers=1, causal=True).build(SHAPE)


def steps(model: Model, prompts: list[list[int]], **options: Any) -> list[Step]:
    settings = {"max_new_tokens": 3, "end": None, "segments": 1, "length": 8, **options}
    return list(generate(model, prompts, **settings))


def drawn(shares: list[float], count: int = 20000, **options: Any) -> list[float]:
    """How often each token comes, of tokens with these probabilities."""
    logs = torch.tensor(shares).log().expand(count, -1)
    found = _chosen(logs, Sampling(**options), Draws(5, 1, torch.arange(count)))
    return (torch.bincount(found, minlength=len(shares)) / count).tolist()


def test_tokens_come_as_often_as_the_model_says() -> None:
    assert drawn([0.1, 0.6, 0.3], temperature=1.0) == pytest.approx([0.1, 0.6, 0.3], abs=0.01)


def test_a_temperature_sharpens_or_flattens() -> None:
    whole = 0.1**2 + 0.6**2 + 0.3**2
    squared = [0.1**2 / whole, 0.6**2 / whole, 0.3**2 / whole]
    assert drawn([0.1, 0.6, 0.3], temperature=0.5) == pytest.approx(squared, abs=0.01)
    assert drawn([0.1, 0.6, 0.3], temperature=1e6) == pytest.approx([1 / 3] * 3, abs=0.01)
    assert drawn([0.1, 0.6, 0.3]) == [0.0, 1.0, 0.0]
    assert drawn([0.1, 0.6, 0.3], temperature=1e-40) == [0.0, 1.0, 0.0]
    assert drawn([0.1, 0.6, 0.3], temperature=1e-300) == [0.0, 1.0, 0.0]


def test_top_p_keeps_the_fewest_tokens_that_reach_it() -> None:
    assert drawn([0.1, 0.6, 0.3], temperature=1.0, top_p=0.7) == pytest.approx([0.0, 2 / 3, 1 / 3], abs=0.01)
    assert drawn([0.1, 0.6, 0.3], temperature=1.0, top_p=0.6) == [0.0, 1.0, 0.0]
    assert drawn([0.1, 0.6, 0.3], temperature=1.0, top_p=1e-9) == [0.0, 1.0, 0.0]


def test_a_seed_gives_the_same_tokens_again_and_another_gives_others(model: Model) -> None:
    hot = [Sampling(temperature=5.0, seed=seed) for seed in (1, 1, 2)]
    first, again, other = (continuations(steps(model, [[1], [2]], sampling=s, max_new_tokens=7)) for s in hot)
    assert first == again
    assert [row.tokens for row in first] != [row.tokens for row in other]


def test_a_row_ends_by_its_end_token_or_by_the_models_length(model: Model) -> None:
    free = continuations(steps(model, [[1, 2]], max_new_tokens=50))[0]
    assert len(free.tokens) == 8 + 1 - 2  # the last position of the model still says a token
    assert free.ending == "length"
    end = free.tokens[2]
    first = free.tokens.index(end)
    ended = continuations(steps(model, [[1, 2]], max_new_tokens=50, end=end))[0]
    assert ended == Continuation(free.tokens[:first], free.log_probabilities[: first + 1], "end")


def test_a_prompt_as_long_as_the_model_is_continued_by_one_token(model: Model) -> None:
    found = steps(model, [[1] * 8, [2]], max_new_tokens=4)
    assert [step.rows for step in found] == [[0, 1], [1], [1], [1]]
    assert found[0].ended == {0: "length"}
    assert found[3].ended == {1: "length"}


def test_the_most_likely_tokens_come_first_with_what_the_trained_loss_makes_of_their_logits(model: Model) -> None:
    for loss in ("softmax", "stablemax"):
        step = steps(model, [[1, 2]], top=20, loss=loss, max_new_tokens=1)[0]
        tokens, shares = zip(*step.top[0], strict=True)
        assert sorted(tokens) == list(range(9))
        assert list(shares) == sorted(shares, reverse=True)
        assert sum(shares) == pytest.approx(1.0, abs=1e-5)
        assert tokens[0] == step.tokens[0]
        assert torch.tensor(shares[0]).log().item() == pytest.approx(step.log_probabilities[0], abs=1e-5)
    logits = torch.tensor([[2.0, 0.0]])
    assert log_probabilities(logits, "stablemax").exp()[0].tolist() == pytest.approx([3 / 4, 1 / 4])


def test_a_model_in_training_is_given_back_in_training(model: Model) -> None:
    model.train()
    steps(model, [[1]])
    assert model.training
    stream = generate(model, [[1]], max_new_tokens=3, end=None, segments=1, length=8)
    next(stream)
    assert not model.training
    stream.close()
    assert model.training


def test_nothing_is_made_of_no_prompts(model: Model) -> None:
    assert continuations(steps(model, [])) == []


@pytest.mark.parametrize(
    ("prompts", "options", "message"),
    [
        ([[1], []], {}, "prompt 2: must hold a token, got none"),
        ([[1] * 9], {}, "prompt 1: must be at most 8 tokens, the model's length, got 9. Shorten it"),
        ([[1]], {"max_new_tokens": 0}, "max_new_tokens: must be >= 1, got 0"),
    ],
)
def test_what_cannot_be_continued_is_refused(
    model: Model, prompts: list[list[int]], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        steps(model, prompts, **options)


def test_a_model_without_a_state_carries_none() -> None:
    plain = TransformerSpec(hidden_size=16, num_heads=2, num_layers=1, causal=True).build(SHAPE)
    with pytest.raises(SpecError, match="state: must be `reset`: the model hands no state on, got 'carry'"):
        steps(plain, [[1]], state="carry")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature: must be >= 0 and finite, got -0.1"),
        ({"temperature": float("nan")}, "temperature: must be >= 0 and finite, got nan"),
        ({"top_p": 0.0}, "top_p: must be > 0 and <= 1, got 0.0"),
        ({"top_p": 1.1}, "top_p: must be > 0 and <= 1, got 1.1"),
        ({"seed": 2**63}, r"seed: must be >= 0 and < 2\^63, got 9223372036854775808"),
        ({"seed": -1}, r"seed: must be >= 0 and < 2\^63, got -1"),
    ],
)
def test_sampling_that_means_nothing_is_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        Sampling(**options)  # type: ignore[arg-type]
