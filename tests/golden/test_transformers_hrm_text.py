"""HRM-Text against Transformers' own class: the same weights give the same logits, through folders, both ways.

And against the original's rule of which calls carry gradient, which Transformers does not follow.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hrm.huggingface.hrm_text import from_transformers, to_transformers, transformers_config
from hrm.models.hrm_text import HRMText, HRMTextSpec
from hrm.nn.attention import AttentionKernel
from hrm.nn.draws import Draws
from hrm.nn.gated import GatedAttention
from hrm.tasks import TaskShape

transformers = pytest.importorskip("transformers", minversion="5.9")

SHAPE = TaskShape(vocab_size=23, sequence_length=17, next_token=True)
SPEC = HRMTextSpec(hidden_size=32, num_heads=4, num_layers_per_stack=2)
OTHER = HRMTextSpec(
    hidden_size=48, num_heads=3, expansion=9.0, rotary_theta=500.0, num_layers_per_stack=1, H_cycles=3, L_cycles=2
)
PREFIX_LENGTHS = torch.tensor([0, 1, 6, 17])


def ours(seed: int, spec: HRMTextSpec = SPEC) -> HRMText:
    torch.manual_seed(seed)
    return spec.build(SHAPE)


def theirs(model: HRMText, folder: Path, attention: str = "sdpa") -> Any:
    """What Transformers makes of our export."""
    save_file(to_transformers(model.state_dict()), folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(transformers_config(model.spec, SHAPE)))
    loaded, problems = transformers.HrmTextForCausalLM.from_pretrained(
        folder, attn_implementation=attention, output_loading_info=True
    )
    assert not any(problems.values()), problems
    return loaded.eval()


def inputs(seed: int) -> Tensor:
    return torch.randint(SHAPE.vocab_size, (4, SHAPE.sequence_length), generator=torch.Generator().manual_seed(seed))


def logits(model: HRMText, tokens: Tensor, prefix_lengths: Tensor | None) -> Tensor:
    rows = {"inputs": tokens} | ({} if prefix_lengths is None else {"prefix_lengths": prefix_lengths})
    with torch.no_grad():
        return model.eval().segment({}, rows, Draws(0, 0, torch.arange(len(tokens)), training=False)).logits


def their_logits(model: Any, tokens: Tensor, prefix_lengths: Tensor | None) -> Tensor:
    marks = None
    if prefix_lengths is not None:
        marks = (torch.arange(tokens.shape[1]) < prefix_lengths.unsqueeze(1)).long()
    with torch.no_grad():
        answer: Tensor = model(input_ids=tokens, token_type_ids=marks, use_cache=False).logits
    return answer


@pytest.mark.parametrize("prefix_lengths", [None, PREFIX_LENGTHS], ids=["causal", "prefix"])
@pytest.mark.parametrize("spec", [SPEC, OTHER], ids=["H2 L3", "H3 L2"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_exported_model_gives_equal_logits_in_transformers(
    tmp_path: Path, seed: int, spec: HRMTextSpec, prefix_lengths: Tensor | None
) -> None:
    model, tokens = ours(seed, spec), inputs(seed)
    expected = their_logits(theirs(model, tmp_path), tokens, prefix_lengths)
    torch.testing.assert_close(logits(model, tokens, prefix_lengths), expected, rtol=1e-5, atol=1e-5)


def test_states_so_small_that_the_norms_epsilon_shows_give_equal_logits(tmp_path: Path) -> None:
    model, tokens = ours(0), inputs(0)
    with torch.no_grad():
        model.embed_tokens.embedding_weight.mul_(0.03)
        model.get_buffer("L_init").mul_(0.03)
    expected = their_logits(theirs(model, tmp_path), tokens, None)
    torch.testing.assert_close(logits(model, tokens, None), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("seed", [3, 4])
def test_a_folder_that_transformers_wrote_gives_equal_logits_here(tmp_path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    config = transformers.HrmTextConfig(
        vocab_size=23,
        hidden_size=32,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        head_dim=8,
        initializer_range=0.08,
        embedding_scale=32**0.5,
    )
    written = transformers.HrmTextForCausalLM(config).eval()
    torch.nn.init.normal_(written.model.z_L_init)
    written.save_pretrained(tmp_path)
    model, tokens = ours(0), inputs(seed)
    model.load_state_dict(from_transformers(load_file(tmp_path / "model.safetensors")))
    for lengths in (None, PREFIX_LENGTHS):
        expected = their_logits(written, tokens, lengths)
        torch.testing.assert_close(logits(model, tokens, lengths), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kernel", ["sdpa", "explicit"])
def test_both_attention_kernels_see_the_prefix_as_eager_transformers_does(
    tmp_path: Path, kernel: AttentionKernel
) -> None:
    model, tokens = ours(5), inputs(5)
    expected = their_logits(theirs(model, tmp_path, "eager"), tokens, PREFIX_LENGTHS)
    model.configure(torch.float32, kernel)
    assert {layer.kernel for layer in model.modules() if isinstance(layer, GatedAttention)} == {kernel}
    rows = {"inputs": tokens, "prefix_lengths": PREFIX_LENGTHS}
    found = model.eval().segment({}, rows, Draws(0, 0, torch.arange(4), training=False)).logits  # with gradient
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_the_names_go_there_and_back() -> None:
    state = ours(0).state_dict()
    renamed = to_transformers(state)
    assert not renamed.keys() & (state.keys() - {"lm_head.weight"})
    back = from_transformers(renamed)
    assert list(back) == list(state)
    assert all(back[name] is state[name] for name in state)


def test_the_config_of_an_export_is_what_transformers_makes_of_it(tmp_path: Path) -> None:
    """`num_hidden_layers` is the inflated count, and is not inflated again."""
    exported = transformers_config(OTHER, SHAPE)
    config = theirs(ours(0, OTHER), tmp_path).config.to_dict()
    assert exported["num_hidden_layers"] == 1 * 3 * (2 + 1)
    assert exported["rms_norm_eps"] == 1e-6
    assert {name: config[name] for name in exported} == exported
