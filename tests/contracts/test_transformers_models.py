"""What Transformers asks of every causal language model, asked of ours: the properties of its common model tests.

Each is held against our model itself, whole rows without a cache.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hrm.models import ModelSpec
from hrm.models.hrm import HRMSpec
from hrm.models.hrm_text import HRMTextSpec
from hrm.models.transformer import TransformerSpec
from hrm.models.trm import TRMSpec
from hrm.models.universal_transformer import UniversalTransformerSpec
from hrm.models.urm import URMSpec
from hrm.nn.draws import Draws
from hrm.nn.halting import HaltingSpec
from hrm.tasks import TaskShape

transformers = pytest.importorskip("transformers", minversion="5.9")
from hrm.huggingface.configuration import HrmConfig  # noqa: E402
from hrm.huggingface.modeling import HrmForCausalLM  # noqa: E402

SMALL: dict[str, Any] = {"hidden_size": 16, "num_heads": 2, "causal": True}
TIED: dict[str, Any] = {**SMALL, "tied_embeddings": True}
THRICE = HaltingSpec(segments=3)
SPECS: dict[str, ModelSpec] = {
    "hrm": HRMSpec(**SMALL, H_layers=1, L_layers=2, convolution=4, dropout=0.1, halting=THRICE),
    "hrm, tied": HRMSpec(**TIED, H_layers=1, L_layers=1, L_cycles=1),
    "trm": TRMSpec(**SMALL, L_layers=1, H_cycles=2, L_cycles=2, start="random", halting=HaltingSpec(segments=2)),
    "trm, learned positions": TRMSpec(**TIED, L_layers=1, H_cycles=1, L_cycles=1, positions="learned", damping=0.2),
    "urm": URMSpec(**SMALL, num_layers=2, H_cycles=1, L_cycles=2, gated_convolution=3),
    "universal_transformer": UniversalTransformerSpec(**SMALL, num_layers=1, cycles=2, positions="none"),
    "transformer": TransformerSpec(**SMALL, num_layers=2),
    "hrm_text": HRMTextSpec(hidden_size=16, num_heads=2, num_layers_per_stack=1),
}
VOCABULARY, LONGEST, WORD = 13, 24, 7


FIRST = ("hrm", "trm, learned positions", "urm")
"""The others are asked in the slow tests."""
CASES = [pytest.param(spec, id=name, marks=() if name in FIRST else pytest.mark.slow) for name, spec in SPECS.items()]


@pytest.fixture(params=CASES)
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    found: ModelSpec = request.param
    return found


def made(spec: ModelSpec, **more: Any) -> HrmForCausalLM:
    torch.manual_seed(3)
    return HrmForCausalLM(
        HrmConfig(spec=spec.model_dump(mode="json"), vocab_size=VOCABULARY, max_position_embeddings=LONGEST, **more)
    ).eval()


def text(rows: int = 2, length: int = WORD, seed: int = 0) -> Tensor:
    return torch.randint(VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(seed))


def ours(model: HrmForCausalLM, tokens: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """The logits of our own model with these weights, whole rows, all segments."""
    spec = model.config.model_spec()
    own = spec.build(TaskShape(VOCABULARY, LONGEST, next_token=True)).eval()
    state = {
        name.replace("embed_tokens.weight", "embed_tokens.embedding_weight"): value
        for name, value in model.network.state_dict().items()
        if not (name == "lm_head.weight" and own.lm_head is None)
    }
    own.load_state_dict(state)
    own.configure(dtype, "sdpa")
    draws = Draws(0, 0, torch.zeros(len(tokens), dtype=torch.int64), training=False)
    carried = own.state_at(len(tokens), draws, torch.arange(tokens.shape[1]))
    with torch.no_grad():
        for _ in range(model.config.num_segments):
            output = own.segment(carried, {"inputs": tokens}, draws)
            carried = output.state
    return output.logits


def same(found: Tensor, expected: Tensor, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def test_the_logits_are_those_of_our_model(spec: ModelSpec) -> None:
    model = made(spec)
    with torch.no_grad():
        same(model(text()).logits, ours(model, text()))


def test_a_saved_model_is_loaded_as_it_was_also_in_shards(spec: ModelSpec, tmp_path: Path) -> None:
    model = made(spec)
    model.save_pretrained(tmp_path / "whole")
    model.save_pretrained(tmp_path / "shards", max_shard_size="20KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    for folder in ("whole", "shards"):
        loaded, problems = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path / folder, output_loading_info=True
        )
        assert type(loaded) is HrmForCausalLM
        assert not any(problems.values()), problems
        for name, value in model.state_dict().items():
            assert torch.equal(loaded.state_dict()[name], value), name
        assert torch.equal(loaded(text()).logits, model(text()).logits)


def test_a_weight_that_a_folder_lacks_is_drawn_as_in_a_fresh_model(spec: ModelSpec, tmp_path: Path) -> None:
    model = made(spec)
    state = model.state_dict()
    lost = next(name for name in state if name.endswith("down_proj.weight"))
    model.save_pretrained(tmp_path, state_dict={name: value for name, value in state.items() if name != lost})
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    drawn, was = loaded.state_dict()[lost], state[lost]
    assert not torch.equal(drawn, was)
    assert float(drawn.std()) == pytest.approx(float(was.std()), rel=0.1)
    others = [name for name in state if name != lost]
    assert all(torch.equal(loaded.state_dict()[name], state[name]) for name in others)


def test_tied_weights_are_one_tensor_before_and_after_saving(spec: ModelSpec, tmp_path: Path) -> None:
    model = made(spec)
    tied = bool(model.config.tie_word_embeddings)
    model.save_pretrained(tmp_path)
    for found in (model, transformers.AutoModelForCausalLM.from_pretrained(tmp_path)):
        one = found.get_input_embeddings().weight is found.get_output_embeddings().weight
        assert one == tied == spec.model_dump()["tied_embeddings"]


@pytest.mark.parametrize("size", [VOCABULARY + 6, VOCABULARY - 4])
@pytest.mark.parametrize("mean_resizing", [True, False])
def test_a_resized_vocabulary_keeps_what_it_had(
    spec: ModelSpec, size: int, mean_resizing: bool, tmp_path: Path
) -> None:
    model = made(spec)
    tokens, kept = text() % (VOCABULARY - 4), min(size, VOCABULARY)
    before = model(tokens).logits
    model.resize_token_embeddings(size, mean_resizing=mean_resizing)
    assert model.config.vocab_size == size == model.get_output_embeddings().weight.shape[0]
    same(model(tokens).logits[..., :kept], before[..., :kept])
    model.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert loaded.config.vocab_size == size
    assert torch.equal(loaded(tokens).logits, model(tokens).logits)
    assert model(tokens, labels=tokens).loss.isfinite()


def test_embeddings_and_head_can_be_exchanged(spec: ModelSpec) -> None:
    model = made(spec)
    size = spec.model_dump()["hidden_size"]
    new, head = nn.Embedding(VOCABULARY, size), nn.Linear(size, VOCABULARY, bias=False)
    model.set_input_embeddings(new)
    model.set_output_embeddings(head)
    assert model.get_input_embeddings().weight is new.weight
    assert model.get_output_embeddings() is head
    assert model(text()).logits.shape == (2, WORD, VOCABULARY)


def greedy(model: HrmForCausalLM, tokens: Tensor, count: int) -> Tensor:
    """By our own model, a whole row for each token."""
    for _ in range(count):
        tokens = torch.cat((tokens, ours(model, tokens)[:, -1:].argmax(-1)), dim=1)
    return tokens


def test_greedy_generation_is_that_of_our_model_without_a_cache(spec: ModelSpec) -> None:
    model, tokens = made(spec), text()
    expected = greedy(model, tokens, 8)
    for cached in (True, False):
        found = model.generate(tokens, max_new_tokens=8, do_sample=False, use_cache=cached)
        assert torch.equal(found, expected), cached


@pytest.mark.parametrize(
    "way", [{"do_sample": True, "top_k": 5}, {"num_beams": 3}, {"num_beams": 2, "do_sample": True}]
)
def test_generation_with_a_cache_is_generation_without(spec: ModelSpec, way: dict[str, Any]) -> None:
    model, found = made(spec), []
    for cached in (True, False):
        torch.manual_seed(0)
        options = {"max_new_tokens": 7, "use_cache": cached, "output_scores": True, "return_dict_in_generate": True}
        found.append(model.generate(text(3), **{"do_sample": False, **options, **way}))
    assert torch.equal(found[0].sequences, found[1].sequences)
    for one, other in zip(found[0].scores, found[1].scores, strict=True):
        same(one, other, 1e-4)  # of log probabilities, -inf among them


def test_padding_on_the_left_changes_nothing(spec: ModelSpec) -> None:
    model, tokens = made(spec), text(3)
    pads = [0, 2, 5]
    padded = torch.full((3, WORD + 5), 1)
    mask = torch.zeros_like(padded)
    for row, pad in enumerate(pads):
        length = WORD + 5 - pad
        own = text(1, length, seed=row)[0]
        padded[row, pad:], mask[row, pad:] = own, 1
    with torch.no_grad():
        together = model(padded, attention_mask=mask).logits
    generated = model.generate(padded, attention_mask=mask, max_new_tokens=6, do_sample=False)
    for row, pad in enumerate(pads):
        alone = padded[row : row + 1, pad:]
        same(together[row : row + 1, pad:], ours(model, alone), 1e-5)
        assert torch.equal(generated[row : row + 1, pad:], greedy(model, alone, 6))
    assert len(tokens) == 3


def test_given_positions_are_heeded(spec: ModelSpec) -> None:
    model, tokens = made(spec), text(1)
    own = torch.arange(WORD).unsqueeze(0)
    same(model(tokens, position_ids=own).logits, model(tokens).logits)
    apart = own * 2
    knows_none = getattr(spec, "positions", "rotary") == "none"
    assert torch.allclose(model(tokens, position_ids=apart).logits, model(tokens).logits, atol=1e-5) == knows_none


def test_the_loss_is_the_next_tokens(spec: ModelSpec) -> None:
    model, tokens = made(spec), text()
    labels = tokens.clone()
    labels[0, :3] = -100
    output = model(tokens, labels=labels)
    expected = nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    same(output.loss, expected)
    output.loss.backward()
    missing = [name for name, value in model.named_parameters() if value.grad is None and "q_head" not in name]
    assert missing == []
    counted = model(tokens, labels=labels, num_items_in_batch=5).loss
    same(counted, expected * (labels[:, 1:] != -100).sum() / 5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_computes_as_our_model_does_in_it(spec: ModelSpec, dtype: torch.dtype, tmp_path: Path) -> None:
    model = made(spec)
    model.save_pretrained(tmp_path)
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype)
    cast = copy.deepcopy(model).to(dtype)
    assert {value.dtype for value in loaded.parameters()} == {dtype}
    with torch.no_grad():
        expected = ours(model, text(), dtype)
        assert expected.dtype == dtype
        assert torch.equal(loaded(text()).logits, expected)
        assert torch.equal(cast(text()).logits, expected)  # rotary tables are as exact as they were
    assert loaded.generate(text(), max_new_tokens=3, do_sample=False).shape == (2, WORD + 3)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointed_blocks_give_equal_gradients(spec: ModelSpec, reentrant: bool) -> None:
    gradients = []
    for checkpointed in (False, True):
        model = made(spec).train()
        if checkpointed:
            model.activation_checkpointing_enable({"use_reentrant": reentrant})
        torch.manual_seed(1)  # of dropout
        model(text(), labels=text()).loss.backward()
        gradients.append({name: value.grad for name, value in model.named_parameters() if value.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_checkpointed_blocks_keep_less(spec: ModelSpec) -> None:
    kept = []
    for checkpointed in (False, True):
        model, sizes = made(spec).train(), [0]
        if checkpointed:
            model.activation_checkpointing_enable()

        def count(value: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes[0] += value.numel() * (value.dim() == 3)
            return value

        with torch.autograd.graph.saved_tensors_hooks(count, lambda value: value):
            model(text(), labels=text())
        kept.append(sizes[0])
    assert kept[1] < 0.5 * kept[0]


def test_vectors_in_the_place_of_tokens_give_the_same(spec: ModelSpec) -> None:
    model = made(spec)
    vectors = model.get_input_embeddings()(text())
    same(model(inputs_embeds=vectors).logits, model(text()).logits)
    generated = model.generate(inputs_embeds=vectors, max_new_tokens=4, do_sample=False)
    assert torch.equal(generated, model.generate(text(), max_new_tokens=4, do_sample=False)[:, WORD:])


def test_only_the_asked_logits_are_computed(spec: ModelSpec) -> None:
    model = made(spec)
    whole = model(text()).logits
    same(model(text(), logits_to_keep=2).logits, whole[:, -2:])
    same(model(text(), logits_to_keep=torch.tensor([0, 3])).logits, whole[:, [0, 3]])


def test_hidden_states_are_the_answers_of_the_segments(spec: ModelSpec) -> None:
    model = made(spec)
    output = model(text(), output_hidden_states=True)
    assert len(output.hidden_states) == model.config.num_segments
    same(model.get_output_embeddings()(output.hidden_states[-1]), output.logits)
    assert isinstance(model(text(), return_dict=False), tuple)


def test_depth_is_set_for_a_call_or_a_generation() -> None:
    model, deep = made(SPECS["hrm"]), made(SPECS["hrm"], num_segments=5)
    assert (model.config.num_segments, deep.config.num_segments) == (3, 5)
    assert not torch.allclose(model(text()).logits, deep(text()).logits, atol=1e-3)
    assert torch.equal(model(text(), num_segments=5).logits, deep(text()).logits)
    options = {"max_new_tokens": 6, "do_sample": False}
    assert torch.equal(model.generate(text(), num_segments=5, **options), deep.generate(text(), **options))


def test_a_conversation_goes_on_from_its_cache(spec: ModelSpec) -> None:
    model, tokens = made(spec), text(2, 12)
    cache = transformers.DynamicCache()
    parts = [model(tokens[:, start:end], past_key_values=cache).logits for start, end in ((0, 5), (5, 6), (6, 12))]
    same(torch.cat(parts, 1), model(tokens).logits, 1e-5)
    assert cache.get_seq_length() == 12


def test_what_is_not_offered_is_refused() -> None:
    model, tokens = made(SPECS["hrm"]), text()
    with pytest.raises(ValueError, match="DynamicCache"):
        model.generate(tokens, max_new_tokens=2, cache_implementation="static")
    with pytest.raises(ValueError, match="no token_type_ids"):
        model(tokens, token_type_ids=tokens)
    with pytest.raises(ValueError, match="2 of them"):
        model(tokens, inputs_embeds=torch.zeros(2, WORD, 16))
    with pytest.raises(ValueError, match="at most 24 positions, got 26"):
        model(text(1, 26))
    with pytest.raises(ValueError, match="all 7 positions, got 6"):
        model(tokens, attention_mask=torch.ones(2, 6, dtype=torch.int64))
    cache = transformers.DynamicCache()
    model(tokens, past_key_values=cache, num_segments=1)
    with pytest.raises(ValueError, match="one number of segments"):
        model(tokens, past_key_values=cache, num_segments=2)


def test_more_tokens_than_there_are_positions_for_are_refused_before_the_first() -> None:
    model, most = made(SPECS["hrm"]), LONGEST + 1 - WORD  # the last token is written and never read
    asked = {"do_sample": False, "eos_token_id": None}
    padded = torch.cat((torch.ones(2, LONGEST - WORD, dtype=torch.int64), text()), 1)
    mask = torch.cat((torch.zeros(2, LONGEST - WORD, dtype=torch.int64), torch.ones_like(text())), 1)
    vectors = model.get_input_embeddings()(text())
    for inputs in ({"inputs": text()}, {"inputs": padded, "attention_mask": mask}, {"inputs_embeds": vectors}):
        found = model.generate(**inputs, max_new_tokens=most, **asked)
        assert torch.equal(found[:, -most:], greedy(model, text(), most)[:, -most:])
        counted: list[int] = []
        counting = model.register_forward_hook(lambda *_, counted=counted: counted.append(1))
        for way in ({}, {"use_cache": False}, {"num_beams": 2}):
            with pytest.raises(ValueError, match=r"at most 24 positions .*, got 34; lower max_new_tokens .* by 10"):
                model.generate(**inputs, max_new_tokens=most + 10, **asked, **way)
        counting.remove()
        assert counted == []


def test_rotary_positions_reach_as_far_as_asked_when_loading(tmp_path: Path) -> None:
    model = made(SPECS["hrm"])
    model.save_pretrained(tmp_path)
    longer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path, max_position_embeddings=40)
    assert longer(text(1, 40)).logits.shape == (1, 40, VOCABULARY)
    same(longer(text()).logits, model(text()).logits)
