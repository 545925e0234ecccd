"""Files of the original code: what they are of is read off them, they come back as they were, nothing in them runs."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from hrm.checkpoint import Checkpoint
from hrm.errors import SpecError
from hrm.loading import components, load_model
from hrm.models import ModelSpec
from hrm.models.hrm import HRMSpec
from hrm.models.recursion import RecursiveSpec
from hrm.models.transformer import TransformerSpec
from hrm.models.trm import TRMSpec
from hrm.models.urm import URMSpec
from hrm.nn.halting import HaltingSpec
from hrm.original.configuration import said_of
from hrm.original.conversion import import_original, original_state_dict
from hrm.original.reading import read_state_dict
from hrm.tasks import TaskShape

SHAPE = TaskShape(vocab_size=11, sequence_length=12, num_puzzle_identifiers=3)
PREFIX = "_orig_mod.model.inner."
SIZES: dict[str, Any] = {"hidden_size": 32, "num_heads": 2, "puzzle_embedding_size": 32}
TARGET = HaltingSpec(rule="q_with_target", segments=16)
HRM = HRMSpec(**SIZES, H_layers=1, L_layers=2, halting=TARGET)


def theirs(spec: ModelSpec = HRM, prefix: str = PREFIX, shape: TaskShape = SHAPE) -> dict[str, Tensor]:
    """A fresh model's tensors as the original saves them: its initial states are in bfloat16."""
    torch.manual_seed(3)
    state = {name.removeprefix("level."): value for name, value in spec.build(shape).state_dict().items()}
    return {prefix + name: value.bfloat16() if "init" in name else value for name, value in state.items()}


def save(folder: Path, state: object, name: str = "step_12") -> Path:
    torch.save(state, folder / name)
    return folder / name


def brought(path: Path, *given: str, config: Path | None = None) -> Checkpoint:
    return import_original(read_state_dict(path), said_of(path, config, list(given)))


def back(checkpoint: Checkpoint) -> dict[str, Tensor]:
    return original_state_dict(checkpoint, checkpoint.evaluation_weights, "here")


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    """Equal keys in equal order, equal types, equal bits."""
    if list(found) != list(expected):
        return False
    pairs = [(found[key], value) for key, value in expected.items()]
    return all(a.dtype == b.dtype and torch.equal(a.view(torch.uint8), b.view(torch.uint8)) for a, b in pairs)


def refusal(path: Path, *given: str) -> str:
    with pytest.raises(SpecError) as caught:
        brought(path, *given)
    assert all(problem.way_out for problem in caught.value.problems)
    return str(caught.value)


# --- there and back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "inner.", "model.inner.", PREFIX, f"_orig_mod._orig_mod.{PREFIX}"])
def test_wrappers_of_a_model_change_nothing_and_come_back(tmp_path: Path, prefix: str) -> None:
    checkpoint = brought(save(tmp_path, theirs(prefix=prefix)))
    plain = theirs(prefix="")
    assert checkpoint.model.keys() == plain.keys()
    assert all(torch.equal(checkpoint.model[name], value.float()) for name, value in plain.items())
    assert same(back(checkpoint), theirs(prefix=prefix))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_any_float_type_is_reported_stored_as_float32_and_given_back(tmp_path: Path, dtype: torch.dtype) -> None:
    state = {key: value.to(dtype) for key, value in theirs().items()}
    checkpoint = brought(save(tmp_path, state))
    assert {tensor.dtype for tensor in checkpoint.model.values()} == {torch.float32}
    assert checkpoint.manifest["lineage"]["dtypes"] == {str(dtype).removeprefix("torch."): len(state)}
    assert checkpoint.manifest["lineage"]["narrowed"] == []
    assert same(back(checkpoint), state)


def test_digits_that_float32_cannot_hold_are_reported(tmp_path: Path) -> None:
    state = theirs()
    state[f"{PREFIX}lm_head.weight"] = state[f"{PREFIX}lm_head.weight"].double() + 1e-12
    assert brought(save(tmp_path, state)).manifest["lineage"]["narrowed"] == ["lm_head.weight"]


def test_the_file_a_training_of_urm_wraps_its_weights_in_is_read(tmp_path: Path) -> None:
    state = theirs(URMSpec(**SIZES))
    whole = {"step": 5, "model_state_dict": state, "optimizer_states": [{"state": {0: {"step": torch.tensor(5.0)}}}]}
    checkpoint = brought(save(tmp_path, whole, "step_5.pt"))
    assert checkpoint.manifest["progress"] == {"step": 5}
    assert same(back(checkpoint), state)


# --- what it is of ---------------------------------------------------------------------------------------------------

ALIKE: dict[str, tuple[RecursiveSpec, list[str]]] = {
    "hrm": (HRM, []),
    "learned positions": (HRMSpec(**SIZES, positions="learned", halting=TARGET), []),
    "another expansion": (HRMSpec(**SIZES, H_layers=2, expansion=20.0, halting=TARGET), ["expansion=20"]),
    "no puzzle table": (HRMSpec(hidden_size=32, num_heads=2, halting=TARGET), []),
    "trm": (TRMSpec(**SIZES, puzzle_tokens=4, halting=HaltingSpec(rule="q", segments=16)), ["puzzle_emb_len=4"]),
    "trm with a continue target": (TRMSpec(**SIZES, puzzle_tokens=16, halting=TARGET), ["no_ACT_continue=false"]),
    "mixer": (
        TRMSpec(**SIZES, puzzle_tokens=1, mixer="mlp", positions="none", halting=HaltingSpec(rule="q", segments=16)),
        ["puzzle_emb_len=1"],
    ),
    "urm": (URMSpec(**SIZES, num_layers=3, halting=HaltingSpec(rule="q", segments=16)), []),
}


@pytest.mark.parametrize("case", ALIKE)
def test_shapes_tell_the_model_but_for_its_heads(tmp_path: Path, case: str) -> None:
    spec, given = ALIKE[case]
    checkpoint = brought(save(tmp_path, theirs(spec)), "num_heads=2", *given)
    assert checkpoint.manifest["spec"]["model"] == spec.model_dump(mode="json")
    shape = checkpoint.manifest["task_shape"]
    assert shape["vocab_size"] == 11
    assert shape["num_puzzle_identifiers"] == (3 if spec.puzzle_embedding_size else 0)
    assert shape["sequence_length"] == (12 if case in ("learned positions", "mixer") else None)
    assert same(back(checkpoint), theirs(spec))


def test_what_neither_shapes_nor_fields_say_is_assumed_and_listed(tmp_path: Path) -> None:
    path = save(tmp_path, theirs())
    assumed = brought(path, "H_cycles=3").manifest["lineage"]["assumed"]
    expected = {"num_heads", "L_cycles", "pos_encodings", "halt_max_steps", "halt_exploration_prob", "loss_type"}
    assert assumed.keys() == expected
    assert brought(path, "H_cycles=3").manifest["spec"]["model"]["H_cycles"] == 3


def test_the_configuration_beside_a_file_says_how_it_was_made_and_trained(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_heads": 4, "expansion": 4, "H_layers": 1, "L_layers": 2, "puzzle_emb_ndim": 32}
    work = {"H_cycles": 1, "L_cycles": 5, "pos_encodings": "rope", "halt_max_steps": 8, "halt_exploration_prob": 0.2}
    loss = {"name": "losses@ACTLossHead", "loss_type": "softmax_cross_entropy"}
    rates = {"lr": 7e-5, "lr_min_ratio": 1.0, "lr_warmup_steps": 200, "weight_decay": 1.0, "puzzle_emb_lr": 1e-4}
    arch = {"name": "hrm.hrm_act_v1@HierarchicalReasoningModel_ACTV1", "loss": loss, **sizes, **work}
    top = {"arch": arch, **rates, "beta1": 0.9, "beta2": 0.95, "global_batch_size": 96, "seed": 4, "data_path": "x"}
    (tmp_path / "all_config.yaml").write_text(yaml.dump(top))
    path = save(tmp_path, theirs())
    spec, lineage = brought(path).manifest["spec"], brought(path).manifest["lineage"]
    model = spec.pop("model")
    assert (model["num_heads"], model["H_cycles"], model["L_cycles"]) == (4, 1, 5)
    assert model["halting"] == {"rule": "q_with_target", "segments": 8, "exploration": 0.2, "tolerance": 0.05}
    optimizer = {"kind": "adam_atan2", "learning_rate": 7e-5, "weight_decay": 1.0, "beta1": 0.9, "beta2": 0.95}
    assert spec == {
        "loss": "softmax",
        "optimizer": {**optimizer, "puzzle_learning_rate": 1e-4},
        "schedule": {"kind": "constant", "warmup_steps": 200, "floor_fraction": 1.0},
        "batch_size": 96,
        "seed": 4,
    }
    assert lineage["assumed"] == {}
    assert brought(path, "num_heads=2").manifest["spec"]["model"]["num_heads"] == 2


def test_a_configuration_of_another_checkpoint_is_refused_with_every_difference(tmp_path: Path) -> None:
    given = [
        "hidden_size=64",
        "L_layers=3",
        "expansion=40",
        "pos_encodings=learned",
        "vocab_size=12",
        "rms_norm_eps=1e-6",
    ]
    said = refusal(save(tmp_path, theirs()), *given)
    assert len(said.splitlines()) == 6
    assert "hidden_size must be 32 for these tensors, the configuration says 64. Give this checkpoint's own" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "num_head=2",
            "--set num_head=2: must have the form field=value, of a field of the original. Did you mean num_heads?",
        ),
        ("num_heads", "must have the form field=value"),
        ("num_heads=5", "hidden_size must be a multiple of 2 * num_heads, got 32 and 5 heads"),
        ("H_cycles=2.5", "H_cycles: must be a whole number, got 2.5"),
        ("H_cycles=two", "--set: H_cycles: must be a number that is not negative, got 'two'"),
        ("expansion=.inf", "--set: expansion: must be a number that is not negative, got inf"),
        ("seq_len=-1", "--set: seq_len: must be a number that is not negative, got -1"),
        ("pos_encodings=[rope]", "--set: pos_encodings: must be a word, got ['rope']"),
    ],
)
def test_a_wrong_field_is_refused_with_its_name(tmp_path: Path, given: str, said: str) -> None:
    assert said in refusal(save(tmp_path, theirs()), given)


def test_more_puzzle_tokens_than_positions_are_refused_and_asked_for(tmp_path: Path) -> None:
    mixer = TRMSpec(**SIZES, puzzle_tokens=1, mixer="mlp", positions="none")
    said = refusal(save(tmp_path, theirs(mixer)), "num_heads=2")
    assert "puzzle_emb_len must be less than the 13 positions that the tensors have, got 16" in said


# --- files that are none ---------------------------------------------------------------------------------------------


class Malice:
    """Unpickled carelessly it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (str(self.mark), "w")


def test_the_malice_works_where_nobody_guards_against_it(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Malice(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


@pytest.mark.parametrize("as_archive", [True, False])
def test_no_code_of_a_malicious_file_runs(tmp_path: Path, as_archive: bool) -> None:
    mark, path = tmp_path / "mark", tmp_path / "step_1"
    state = {**theirs(), f"{PREFIX}extra": Malice(mark)}
    if as_archive:
        torch.save(state, path)
        assert "open, which is code and no tensor; none of it was run" in refusal(path)
    else:
        path.write_bytes(pickle.dumps(state))
        assert "is not an archive as torch.save writes it" in refusal(path)
    assert not mark.exists()


def flipped(content: bytes) -> bytes:
    middle = content.index(b"data/0") + 200
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda content: b"", "is not an archive as torch.save writes it, or it is cut off"),
    "text": (lambda content: b"hello\n", "is not an archive"),
    "cut off": (lambda content: content[:-1000], "is not an archive as torch.save writes it, or it is cut off"),
    "cut in the middle": (lambda content: content[:2000] + content[-2000:], "damaged"),
    "one bit": (flipped, "does not match its checksum"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_refused_and_says_so(tmp_path: Path, case: str) -> None:
    damage, said = DAMAGED[case]
    path = save(tmp_path, theirs())
    path.write_bytes(damage(path.read_bytes()))
    assert said in refusal(path)


class Module(torch.nn.Linear):
    """A whole model, pickled as one."""


def without(part: str) -> dict[str, Tensor]:
    return {key: value for key, value in theirs().items() if part not in key}


FOREIGN: dict[str, tuple[Callable[[], object], str]] = {
    "a whole module": (lambda: Module(2, 2), "Module, which is code and no tensor"),
    "a tensor": (lambda: torch.zeros(3), "holds a Tensor, not a state dict"),
    "an empty dict": (dict, "holds a dict, not a state dict"),
    "numbers": (lambda: {"a": 1}, "holds a dict that holds more than plain tensors of floats, not a state dict"),
    "whole numbers": (lambda: {"a": torch.arange(3)}, "more than plain tensors of floats"),
    "nothing of a great width": (lambda: {"a": torch.zeros(0, 10**12)}, "more than plain tensors of floats"),
    "sparse tensors": (lambda: {"a": torch.eye(3).to_sparse()}, "more than plain tensors of floats"),
    "larger than the file": (
        lambda: {"a": torch.zeros(1).expand(10**12)},
        "holds tensors that are larger than the file",
    ),
    "another model": (
        lambda: {"conv.weight": torch.zeros(3)},
        "of something else than HRM, TRM or URM; its first tensors are",
    ),
    "no token embedding": (lambda: without("embed_tokens"), "of something else than HRM, TRM or URM"),
    "no head": (lambda: without("lm_head"), "lacks lm_head.weight"),
    "no layer in the middle": (lambda: without("L_level.layers.0"), "lacks L_level.layers.0."),
    "a norm": (lambda: {**theirs(), f"{PREFIX}norm.weight": torch.ones(32)}, "the original has not: norm.weight"),
    "two of one name": (lambda: {**theirs(), **theirs(prefix="")}, "has two tensors of one name"),
    "a bent tensor": (
        lambda: {**theirs(), f"{PREFIX}q_head.bias": torch.ones(3)},
        "q_head.bias must be [2] in this model, got [3]",
    ),
    "a flat table": (
        lambda: {**theirs(), f"{PREFIX}embed_tokens.embedding_weight": torch.ones(3)},
        "must be of two dimensions",
    ),
}


@pytest.mark.parametrize("case", FOREIGN)
def test_a_foreign_file_is_refused_and_says_why(tmp_path: Path, case: str) -> None:
    make, said = FOREIGN[case]
    assert said in refusal(save(tmp_path, make()))


def test_an_archive_that_swells_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    save(tmp_path, {**theirs(), "zeros": torch.zeros(30_000_000)})
    with zipfile.ZipFile(tmp_path / "step_12") as whole, zipfile.ZipFile(tmp_path / "bomb", "w") as bomb:
        for entry in whole.infolist():
            bomb.writestr(entry.filename, whole.read(entry), zipfile.ZIP_DEFLATED)
    assert (tmp_path / "bomb").stat().st_size < 1_000_000
    assert "unpacks to more than it holds" in refusal(tmp_path / "bomb")


def test_a_folder_a_missing_and_an_unreadable_file_are_refused(tmp_path: Path) -> None:
    assert "is a folder, not a file" in refusal(tmp_path)
    assert "there is no such file" in refusal(tmp_path / "none")
    locked = save(tmp_path, theirs())
    locked.chmod(0)
    if not os.access(locked, os.R_OK):
        assert "cannot be read: Permission denied" in refusal(locked)


# --- evaluating, and what was trained here ---------------------------------------------------------------------------


def test_an_imported_model_computes_what_the_file_says(tmp_path: Path) -> None:
    model = load_model(brought(save(tmp_path, theirs()), "num_heads=2"), SHAPE, "here")
    assert not model.training
    assert all(torch.equal(model.state_dict()[key.removeprefix(PREFIX)], value) for key, value in theirs().items())


def test_a_model_is_refused_for_a_task_of_another_shape(tmp_path: Path) -> None:
    learned = brought(save(tmp_path, theirs(HRMSpec(**SIZES, positions="learned"))), "num_heads=2")
    with pytest.raises(SpecError) as caught:
        load_model(learned, TaskShape(vocab_size=12, sequence_length=13, num_puzzle_identifiers=4), "here")
    parts = {str(problem).split(".")[0].removeprefix("here: ") for problem in caught.value.problems}
    assert parts == {"embed_pos", "embed_tokens", "lm_head", "puzzle_emb"}
    assert "embed_tokens.embedding_weight must be [12, 32] in this model, got [11, 32] from the checkpoint" in str(
        caught.value
    )


def trained(spec: ModelSpec, precision: str) -> Checkpoint:
    """As a training would leave it."""
    manifest = {"spec": {"model": spec.model_dump(mode="json")}, "resolved": {"precision": precision}}
    return Checkpoint(spec.build(SHAPE).state_dict(), {}, {}, manifest)


@pytest.mark.parametrize("spec", [HRM, TRMSpec(**SIZES, puzzle_tokens=4), URMSpec(**SIZES)])
def test_a_model_trained_here_is_written_as_the_original_writes_it(tmp_path: Path, spec: RecursiveSpec) -> None:
    checkpoint = trained(spec, "bfloat16")
    exported = back(checkpoint)
    assert exported.keys() == theirs(spec).keys()
    assert all((value.dtype == torch.bfloat16) == ("init" in key) for key, value in exported.items())
    again = brought(save(tmp_path, exported), "num_heads=2", "puzzle_emb_len=4").model
    assert all(torch.equal(again[name], value) for name, value in checkpoint.model.items() if "init" not in name)
    assert {value.dtype for value in back(trained(spec, "float32")).values()} == {torch.float32}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            HRMSpec(**SIZES, causal=True, convolution=2),
            "no causal: True, convolution: 2, and would compute something else",
        ),
        (HRMSpec(**SIZES, puzzle_tokens=4), "no puzzle_tokens: 4"),
        (URMSpec(**SIZES, gated_convolution=3), "no gated_convolution: 3"),
        (URMSpec(**SIZES, positions="learned"), "no positions: learned"),
        (TRMSpec(**SIZES, start="random", damping=0.5), "no damping: 0.5, start: random"),
        (TransformerSpec(hidden_size=32, num_heads=2), "no model of kind 'transformer'"),
    ],
)
def test_what_the_original_lacks_is_not_written_as_if_it_had_it(spec: ModelSpec, said: str) -> None:
    with pytest.raises(SpecError, match="safetensors") as caught:
        back(trained(spec, "float32"))
    assert said in str(caught.value)


def test_the_known_components_of_a_swept_model_hold() -> None:
    spec = HRMSpec(hidden_size=256, num_heads=4, H_layers=2, L_layers=2, puzzle_embedding_size=256)
    assert spec.block().inner_size == 768
    with torch.device("meta"):
        weights = spec.build(TaskShape(vocab_size=12, sequence_length=900, num_puzzle_identifiers=95_996)).state_dict()
    assert components(weights) == {
        "H": 1_703_936,
        "L": 1_703_936,
        "token embedding": 3_072,
        "head": 3_072,
        "Q head": 514,
        "initial states": 512,
        "puzzle table": 24_574_976,
    }
    assert sum(components(weights).values()) == 27_990_018
    assert len(weights) == 23
