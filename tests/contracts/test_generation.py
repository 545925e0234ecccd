"""Generation, for every model there is: the cache changes nothing, nor do the rows beside a row."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

from hrm.errors import SpecError
from hrm.generate import Continuation, Sampling, continuations, generate
from hrm.growing import StateRule
from hrm.models import Model, ModelSpec
from hrm.models.hrm import HRMSpec
from hrm.models.trm import TRMSpec
from hrm.models.universal_transformer import UniversalTransformerSpec
from hrm.nn.draws import Draws
from hrm.tasks import TaskShape
from hrm.variants import discover

SHAPE = TaskShape(vocab_size=11, sequence_length=14, next_token=True)
MODELS = cast("dict[str, type[ModelSpec]]", discover("hrm.models", ModelSpec))
SMALL: dict[str, Any] = {"hidden_size": 16, "num_heads": 2, "causal": True}
CASES: dict[str, ModelSpec] = {
    **{kind: variant.smoke() for kind, variant in MODELS.items()},
    "hrm, random starts": HRMSpec(**SMALL, H_layers=1, L_layers=1, start="random"),
    "hrm, wide convolution": HRMSpec(**SMALL, H_layers=1, L_layers=1, convolution=4),
    "trm, learned positions": TRMSpec(**SMALL, H_cycles=1, L_cycles=2, positions="learned", damping=0.2),
    "universal transformer, no positions": UniversalTransformerSpec(**SMALL, num_layers=2, positions="none"),
}
WITH_STATE = [kind for kind, spec in CASES.items() if kind not in ("transformer", "hrm_text")]
PROMPTS = [[3, 1, 4, 1, 5], [9], [2, 6, 5, 3, 5, 8, 9, 7, 9, 3, 2], [8, 4]]
SAMPLED = Sampling(temperature=1.5, top_p=0.95, seed=3)


def built(spec: ModelSpec) -> Model:
    torch.manual_seed(0)
    return spec.build(SHAPE).eval()


def said(model: Model, prompts: list[list[int]] = PROMPTS, **options: Any) -> list[Continuation]:
    settings = {"max_new_tokens": 5, "end": None, "segments": 2, "length": SHAPE.sequence_length, **options}
    return continuations(generate(model, prompts, **settings))


def assert_same(found: list[Continuation], expected: list[Continuation]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert (one.tokens, one.ending) == (other.tokens, other.ending)
        assert one.log_probabilities == pytest.approx(other.log_probabilities, rel=1e-4, abs=1e-4)


@pytest.mark.parametrize("options", [{"prefix": True}, {"sampling": SAMPLED}], ids=["greedy", "sampled"])
@pytest.mark.parametrize("spec", CASES.values(), ids=CASES.keys())
def test_the_cache_changes_no_token(spec: ModelSpec, options: dict[str, Any]) -> None:
    model = built(spec)
    assert_same(said(model, end=7, **options), said(model, end=7, **options, cached=False))


@pytest.mark.parametrize("state", ["reset", "carry"])
@pytest.mark.parametrize("spec", CASES.values(), ids=CASES.keys())
def test_a_row_says_in_a_batch_what_it_says_alone(spec: ModelSpec, state: StateRule) -> None:
    model = built(spec)
    options: dict[str, Any] = {"sampling": SAMPLED, "end": 7, "state": state}
    if state == "carry" and not model.initial_state(1, still([0])):
        with pytest.raises(SpecError, match="hands no state on"):
            said(model, **options)
        return
    together = said(model, **options, batch_size=3)
    alone = [said(model, [prompt], **options, numbers=[number])[0] for number, prompt in enumerate(PROMPTS)]
    assert_same(together, alone)
    assert len({len(row.tokens) for row in together}) > 1  # rows end at different steps


@pytest.mark.parametrize("spec", CASES.values(), ids=CASES.keys())
def test_greedy_tokens_are_those_of_whole_passes(spec: ModelSpec) -> None:
    model = built(spec)
    for number, (prompt, found) in enumerate(zip(PROMPTS, said(model), strict=True)):
        text = list(prompt)
        for token, log_probability in zip(found.tokens, found.log_probabilities, strict=True):
            logs = last_logits(model, text, number).log_softmax(-1)
            assert int(logs.argmax()) == token
            assert logs[token].item() == pytest.approx(log_probability, rel=1e-4, abs=1e-4)
            text.append(token)


@pytest.mark.parametrize("kind", WITH_STATE)
def test_carry_is_what_a_plain_loop_says_it_is(kind: str) -> None:
    """The new row replaces the old, z is kept per position, new positions start at z_init, all segments run again."""
    model, segments = built(CASES[kind]), 2
    for number, (prompt, found) in enumerate(zip(PROMPTS, said(model, state="carry"), strict=True)):
        text, state = list(prompt), {name: z[:, :0] for name, z in model.initial_state(1, still([number])).items()}
        expected = []
        for _ in found.tokens:
            whole = model.initial_state(1, still([number]))
            state = {n: torch.cat((z, whole[n][:, z.shape[1] : len(text)]), 1) for n, z in state.items()}
            with torch.no_grad():
                for _ in range(segments):
                    output = model.segment(state, row_of(text), still([number]))
                    state = output.state
            expected.append(int(output.logits[0, -1].argmax()))
            text.append(expected[-1])
        assert found.tokens == expected


@pytest.mark.parametrize("kind", WITH_STATE)
def test_carried_states_are_other_states(kind: str) -> None:
    """The first token has none before it; later ones are said with other probabilities than after a reset."""
    model = built(CASES[kind])
    reset, carried = (said(model, [PROMPTS[0]], state=state)[0].log_probabilities for state in ("reset", "carry"))
    assert carried[0] == pytest.approx(reset[0], abs=1e-5)
    assert abs(carried[1] - reset[1]) > 1e-4


def test_a_prompt_that_is_read_as_a_whole_looks_forward() -> None:
    model = built(MODELS["hrm_text"].smoke())
    before, after = (said(model, prefix=prefix)[0].log_probabilities[0] for prefix in (False, True))
    assert abs(before - after) > 1e-4


def test_a_part_of_a_prompt_is_read_as_a_whole_as_in_a_row_that_says_so() -> None:
    model, lengths = built(MODELS["hrm_text"].smoke()), [3, 1, 7, 0]
    for cached in (True, False):
        found = said(model, prefix=lengths, cached=cached)
        for number, (prompt, prefix, own) in enumerate(zip(PROMPTS, lengths, found, strict=True)):
            text = list(prompt)
            for token in own.tokens:
                assert token == int(last_logits(model, text, number, prefix).argmax())
                text.append(token)


def still(numbers: list[int]) -> Draws:
    return Draws(0, 0, torch.tensor(numbers), training=False)


def row_of(text: list[int]) -> dict[str, torch.Tensor]:
    return {"inputs": torch.tensor([text]), "puzzle_identifiers": torch.zeros(1, dtype=torch.int64)}


def last_logits(model: Model, text: list[int], number: int, prefix: int = 0) -> torch.Tensor:
    state = {name: z[:, : len(text)] for name, z in model.initial_state(1, still([number])).items()}
    with torch.no_grad():
        for _ in range(2):
            output = model.segment(state, {**row_of(text), "prefix_lengths": torch.tensor([prefix])}, still([number]))
            state = output.state
    return output.logits[0, -1].float()
