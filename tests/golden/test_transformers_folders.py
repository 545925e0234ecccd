"""Exported folders against stock Transformers: equal logits, equal tokens one by one, the same weights back.

The yardstick is `HrmTextForCausalLM` of Transformers, also in a process that has none of our code.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hrm.checkpoint import Checkpoint, read_checkpoint, weights_sha256, write_checkpoint
from hrm.data.tokenizers import BytesTokenizerSpec
from hrm.errors import SpecError
from hrm.huggingface.exporting import Export, export_transformers
from hrm.huggingface.of_data import export_of
from hrm.huggingface.reading import read_transformers
from hrm.loading import load_model
from hrm.models import Model, ModelSpec
from hrm.models.hrm import HRMSpec
from hrm.models.hrm_text import HRMTextSpec
from hrm.models.transformer import TransformerSpec
from hrm.models.trm import TRMSpec
from hrm.nn.draws import Draws
from hrm.nn.halting import HaltingSpec
from hrm.tasks import TaskShape
from hrm.tasks.text import TextSpec

transformers = pytest.importorskip("transformers", minversion="5.9")

TOKENIZER = BytesTokenizerSpec().build([])
SHAPE = TaskShape(len(TOKENIZER.vocabulary), 40, next_token=True)
TEXT = HRMTextSpec(hidden_size=32, num_heads=4, num_layers_per_stack=2, expansion=5.0, gradient_steps=4)
TIED = HRMTextSpec(hidden_size=16, num_heads=2, num_layers_per_stack=1, H_cycles=1, tied_embeddings=True)
SMALL: dict[str, Any] = {"hidden_size": 16, "num_heads": 2, "causal": True}
OWN: dict[str, ModelSpec] = {
    "hrm": HRMSpec(**SMALL, H_layers=1, L_layers=1, convolution=2, halting=HaltingSpec(segments=2)),
    "trm, tied": TRMSpec(**SMALL, L_layers=1, H_cycles=1, L_cycles=2, tied_embeddings=True),
    "transformer": TransformerSpec(**SMALL, num_layers=2),
}


def checkpoint_of(spec: ModelSpec, seed: int = 0) -> Checkpoint:
    torch.manual_seed(seed)
    model = spec.build(SHAPE)
    ema = {name: value.detach() * 1.1 for name, value in model.named_parameters()}
    manifest = {
        "trial_id": "0123456789abcdef",
        "spec": {
            "model": spec.model_dump(mode="json"),
            "task": TextSpec.smoke().model_dump(mode="json"),
            "optimizer": {"kind": "adamw", "learning_rate": 0.001},
            "batch_size": 8,
        },
        "progress": {"step": 7, "tokens": 900},
        "validation": {"loss": 2.5},
        "num_parameters": model.num_parameters(),
        "dataset_fingerprint": "f" * 64,
        "lineage": None,
        "code": {"commit": "c" * 40, "dirty": False},
    }
    return Checkpoint(model.state_dict(), {}, {}, manifest, ema)


def exported(spec: ModelSpec, folder: Path, **more: Any) -> tuple[Checkpoint, dict[str, Any]]:
    checkpoint = checkpoint_of(spec)
    export = replace(Export(checkpoint, "step-7", SHAPE, tokenizer=TOKENIZER), **more)
    return checkpoint, export_transformers(export, folder)


def logits(model: Model, tokens: Tensor, prompts: Tensor | None = None, segments: int = 1) -> Tensor:
    draws = Draws(0, 0, torch.zeros(len(tokens), dtype=torch.int64), training=False)
    rows = {"inputs": tokens} | ({} if prompts is None else {"prefix_lengths": prompts})
    state = model.state_at(len(tokens), draws, torch.arange(tokens.shape[1]))
    with torch.no_grad():
        for _ in range(segments):
            output = model.segment(state, rows, draws)
            state = output.state
    return output.logits


def greedy(model: Model, tokens: Tensor, count: int, prompts: Tensor | None = None, segments: int = 1) -> Tensor:
    """Without a cache: whole rows, again for each token."""
    for _ in range(count):
        tokens = torch.cat((tokens, logits(model, tokens, prompts, segments)[:, -1:].argmax(-1)), 1)
    return tokens


def some_tokens(rows: int, length: int) -> Tensor:
    return torch.randint(2, SHAPE.vocab_size, (rows, length), generator=torch.Generator().manual_seed(4))


@pytest.mark.parametrize("whole", [False, True], ids=["causal", "PrefixLM"])
@pytest.mark.parametrize("spec", [TEXT, TIED], ids=["untied", "tied"])
def test_stock_transformers_computes_and_generates_what_we_do(tmp_path: Path, spec: HRMTextSpec, whole: bool) -> None:
    checkpoint, facts = exported(spec, tmp_path / "out", prompts_whole=whole)
    assert facts["class"] == "HrmTextForCausalLM"
    loaded, problems = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert type(loaded).__module__.startswith("transformers.")
    assert not any(problems.values()), problems
    ours, tokens = load_model(checkpoint, SHAPE, "here"), some_tokens(3, 9)
    prompts = torch.tensor([9, 9, 9]) if whole else None
    marks = {"token_type_ids": torch.ones_like(tokens)} if whole else {}
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens, **marks).logits, logits(ours, tokens, prompts), rtol=1e-5, atol=1e-5)
    found = loaded.generate(tokens, **marks, max_new_tokens=20, do_sample=False, eos_token_id=None)
    assert torch.equal(found, greedy(ours, tokens, 20, prompts))


def test_raw_and_averaged_weights_and_their_type_are_as_asked(tmp_path: Path) -> None:
    checkpoint, _ = exported(TEXT, tmp_path / "ema")
    exported(TEXT, tmp_path / "raw", weights="raw")
    exported(TEXT, tmp_path / "half", dtype="bfloat16")
    name = "lm_head.weight"
    held = {folder: load_file(tmp_path / folder / "model.safetensors")[name] for folder in ("ema", "raw", "half")}
    assert checkpoint.ema is not None
    assert torch.equal(held["ema"], checkpoint.ema[name])
    assert torch.equal(held["raw"], checkpoint.model[name])
    assert torch.equal(held["half"], checkpoint.ema[name].bfloat16())
    assert transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "half").dtype == torch.bfloat16


STRANGER = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, text, length = sys.argv[1:]
model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
inputs = tokenizer(text, return_tensors="pt")
with torch.no_grad():
    logits = model(**inputs).logits
tokens = model.generate(**inputs, do_sample=False, max_new_tokens=int(length) - inputs["input_ids"].shape[1])
print(json.dumps({
    "class": f"{type(model).__module__}.{type(model).__name__}",
    "ours": sorted(name for name in sys.modules if name.split(".")[0] in ("hrm", "orchestrator", "analysis")),
    "inputs": inputs["input_ids"].tolist(), "logits": logits.tolist(), "tokens": tokens.tolist(),
    "text": tokenizer.decode(inputs["input_ids"][0], skip_special_tokens=True),
    "generation": model.generation_config.to_diff_dict(),
}))
"""


def test_a_process_without_our_code_loads_an_export(tmp_path: Path) -> None:
    checkpoint, _ = exported(TEXT, tmp_path / "out")
    (tmp_path / "elsewhere").mkdir()
    said = subprocess.run(
        [sys.executable, "-c", STRANGER, str(tmp_path / "out"), "grüße, world", str(SHAPE.sequence_length)],
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(said.stdout.splitlines()[-1])
    assert found["class"] == "transformers.models.hrm_text.modeling_hrm_text.HrmTextForCausalLM"
    assert found["ours"] == []
    assert found["inputs"] == [TOKENIZER.prompt("grüße, world")]
    assert found["text"] == "grüße, world"
    tokens, ours = torch.tensor(found["inputs"]), load_model(checkpoint, SHAPE, "here")
    torch.testing.assert_close(torch.tensor(found["logits"]), logits(ours, tokens), rtol=1e-5, atol=1e-5)
    assert found["generation"]["eos_token_id"] == 1
    assert "max_length" not in found["generation"]
    assert "max_length" not in said.stderr
    expected = greedy(ours, tokens, SHAPE.sequence_length - tokens.shape[1])[0].tolist()
    if 1 in expected[tokens.shape[1] :]:
        expected = expected[: expected.index(1, tokens.shape[1]) + 1]
    assert found["tokens"] == [expected]


@pytest.mark.parametrize("spec", OWN.values(), ids=OWN.keys())
def test_models_without_a_class_upstream_come_back_as_ours(tmp_path: Path, spec: ModelSpec) -> None:
    checkpoint, facts = exported(spec, tmp_path / "out")
    assert facts["class"] == "HrmForCausalLM"
    loaded, problems = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(problems.values()), problems
    ours, tokens, segments = load_model(checkpoint, SHAPE, "here"), some_tokens(2, 8), spec.halting_rule().segments
    with torch.no_grad():
        torch.testing.assert_close(loaded(tokens).logits, logits(ours, tokens, segments=segments), rtol=1e-6, atol=1e-6)
    found = loaded.generate(tokens, max_new_tokens=10, do_sample=False, eos_token_id=None)
    assert torch.equal(found, greedy(ours, tokens, 10, segments=segments))


@pytest.mark.parametrize("spec", [TEXT, TIED, *OWN.values()], ids=["hrm_text", "hrm_text, tied", *OWN])
def test_what_is_exported_is_read_back_bit_for_bit(tmp_path: Path, spec: ModelSpec) -> None:
    checkpoint, _ = exported(spec, tmp_path / "out")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    loaded.save_pretrained(tmp_path / "again", max_shard_size="30KB")
    assert (tmp_path / "again" / "model.safetensors.index.json").exists()
    for folder in ("out", "again"):
        back = read_transformers(tmp_path / folder)
        expected = checkpoint.evaluation_weights
        assert back.model.keys() == expected.keys()
        assert all(torch.equal(back.model[name], expected[name]) for name in expected)
        assert back.manifest["spec"]["model"] == spec.model_dump(mode="json")
        shape = {"vocab_size": SHAPE.vocab_size, "sequence_length": 40, "num_puzzle_identifiers": 0}
        assert back.manifest["task_shape"] == shape
        assert back.manifest["num_parameters"] == checkpoint.manifest["num_parameters"]
    write_checkpoint(tmp_path / "written", back)
    written = read_checkpoint(tmp_path / "written")
    assert weights_sha256(written.manifest) == weights_sha256(back.manifest)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_read_exactly_and_split_projections_are_joined(tmp_path: Path, dtype: torch.dtype) -> None:
    checkpoint, _ = exported(TEXT, tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=dtype)
    split = {name: value.contiguous() for name, value in model.state_dict().items()}
    assert any(name.endswith("self_attn.gate_proj.weight") for name in split)
    save_file(split, tmp_path / "out" / "model.safetensors")
    back = read_transformers(tmp_path / "out")
    for name, value in checkpoint.evaluation_weights.items():
        assert torch.equal(back.model[name], value.to(dtype).float()), name
    assert back.manifest["lineage"]["dtypes"] == {str(dtype).removeprefix("torch."): len(split)}


def test_a_folder_that_transformers_made_from_nothing_is_read(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 512, "num_attention_heads": 2, "head_dim": 16}
    config = transformers.HrmTextConfig(
        **sizes, vocab_size=23, num_hidden_layers=2, H_cycles=3, initializer_range=32**-0.5
    )
    torch.manual_seed(0)
    written = transformers.HrmTextForCausalLM(config).eval()
    with torch.no_grad():  # as drawn, they magnify roundings to 2e-5
        for name, parameter in written.named_parameters():
            parameter.mul_(0.5 if "layers" in name else 1.0)
    written.save_pretrained(tmp_path)
    back = read_transformers(tmp_path)
    spec = back.manifest["spec"]["model"]
    assert (spec["H_cycles"], spec["num_layers_per_stack"], spec["expansion"]) == (3, 2, 24.0)
    tokens = some_tokens(2, 9) % 23
    ours = load_model(back, TaskShape(23, 2048, next_token=True), "here")
    torch.testing.assert_close(written(tokens).logits, logits(ours, tokens), rtol=1e-5, atol=1e-5)


def test_an_import_is_exported_with_the_tokens_that_end_a_text(tmp_path: Path) -> None:
    exported(TEXT, tmp_path / "out")
    export = export_of(read_transformers(tmp_path / "out"), "imported", tmp_path)
    export_transformers(export, tmp_path / "again")
    ids = {"bos_token_id": TOKENIZER.begin, "eos_token_id": TOKENIZER.end, "pad_token_id": TOKENIZER.pad}
    for name in ("config.json", "generation_config.json"):
        for folder in ("out", "again"):
            found = json.loads((tmp_path / folder / name).read_text())
            assert {key: found.get(key) for key in ids} == ids, (folder, name)


def test_what_a_text_writes_like_a_special_token_is_text_there_too(tmp_path: Path) -> None:
    exported(TEXT, tmp_path / "out")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    text = f"the {TOKENIZER.vocabulary[TOKENIZER.end]} of it"
    assert theirs(text)["input_ids"] == TOKENIZER.prompt(text)


def test_an_export_says_what_the_model_was_trained_for(tmp_path: Path) -> None:
    checkpoint = checkpoint_of(TEXT)
    checkpoint.manifest["spec"]["loss"] = "stablemax"
    facts = export_transformers(Export(checkpoint, "step-7", SHAPE, tokenizer=TOKENIZER), tmp_path / "out")
    assert facts["loss"] == "stablemax"
    assert transformers.AutoConfig.from_pretrained(tmp_path / "out").trained_loss == "stablemax"
    assert "trained for the probabilities of stablemax" in (tmp_path / "out" / "README.md").read_text()
    exported(TEXT, tmp_path / "usual")
    assert "trained for the probabilities" not in (tmp_path / "usual" / "README.md").read_text()


def test_all_that_would_compute_something_else_is_refused_at_once(tmp_path: Path) -> None:
    exported(TEXT, tmp_path / "out")
    path = tmp_path / "out" / "config.json"
    config = json.loads(path.read_text())
    wrong = {"head_dim": 16, "embedding_scale": 3.0, "rms_norm_eps": 1e-5, "hidden_act": "gelu", "mlp_bias": True}
    path.write_text(json.dumps({**config, **wrong, "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}))
    with pytest.raises(SpecError) as refused:
        read_transformers(tmp_path / "out")
    said = str(refused.value)
    assert len(refused.value.problems) == 6
    for words in ("head_dim must be 8", "embedding_scale must be 5.65685, got 3.0", "rope_type must be default"):
        assert words in said


def changed(folder: Path, **fields: Any) -> Path:
    """The folder with other fields in its config.json."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    return folder


@pytest.mark.parametrize("kind", ["type", "rope_type"])
def test_rotary_positions_as_older_files_scale_them_are_refused(tmp_path: Path, kind: str) -> None:
    exported(TEXT, tmp_path / "out")
    scaled = {"rope_scaling": {kind: "linear", "factor": 4.0}}
    assert transformers.AutoConfig.from_pretrained(changed(tmp_path / "out", **scaled)).rope_parameters["factor"] == 4.0
    with pytest.raises(SpecError, match="rope_type must be default, got linear"):
        read_transformers(tmp_path / "out")
    plain = {"rope_scaling": {kind: "default", "rope_theta": 500.0}}
    back = read_transformers(changed(tmp_path / "out", **plain))
    assert back.manifest["spec"]["model"]["rotary_theta"] == 500.0


def test_the_segments_that_transformers_computes_are_read(tmp_path: Path) -> None:
    exported(OWN["hrm"], tmp_path / "out")
    loaded = transformers.AutoModelForCausalLM.from_pretrained(changed(tmp_path / "out", num_segments=5))
    back, tokens = read_transformers(tmp_path / "out"), some_tokens(2, 8)
    assert back.manifest["spec"]["model"]["halting"]["segments"] == 5
    with torch.no_grad():
        expected = logits(load_model(back, SHAPE, "here"), tokens, segments=5)
        torch.testing.assert_close(loaded(tokens).logits, expected, rtol=1e-6, atol=1e-6)
    exported(OWN["transformer"], tmp_path / "plain")
    with pytest.raises(SpecError, match="num_segments must be 1 for a transformer, got 5"):
        read_transformers(changed(tmp_path / "plain", num_segments=5))


def test_a_head_of_its_own_is_read_where_the_file_says_so_and_else_refused(tmp_path: Path) -> None:
    exported(OWN["trm, tied"], tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    model.config.tie_word_embeddings = False
    model.network.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.network.lm_head.weight))
    model.save_pretrained(tmp_path / "untied")
    back, tokens = read_transformers(tmp_path / "untied"), some_tokens(2, 8)
    assert back.manifest["spec"]["model"]["tied_embeddings"] is False
    with torch.no_grad():
        expected = logits(load_model(back, SHAPE, "here"), tokens)
        torch.testing.assert_close(model(tokens).logits, expected, rtol=1e-6, atol=1e-6)
    with pytest.raises(SpecError, match=r"the folder has lm_head\.weight, the model has not"):
        read_transformers(changed(tmp_path / "untied", tie_word_embeddings=True))


def test_the_loss_that_a_folder_says_is_the_checkpoints(tmp_path: Path) -> None:
    exported(OWN["hrm"], tmp_path / "out")
    assert "loss" not in read_transformers(tmp_path / "out").manifest["spec"]
    back = read_transformers(changed(tmp_path / "out", trained_loss="stablemax"))
    assert back.manifest["spec"]["loss"] == "stablemax"
