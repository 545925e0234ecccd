"""Rows of several documents: the mask, who heeds it, who refuses it, and that the column goes wherever rows go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_HRM, MakeTrial
from torch import Tensor

from hrm.context import LocalContext
from hrm.data.dataset import build_dataset
from hrm.errors import SpecError
from hrm.models import BlockModelSpec, Model, ModelSpec
from hrm.models.hrm import HRMSpec
from hrm.models.hrm_text import HRMTextSpec
from hrm.models.recursion import RecursiveModel
from hrm.models.transformer import TransformerSpec
from hrm.models.trm import TRMSpec
from hrm.models.universal_transformer import UniversalTransformerSpec
from hrm.models.urm import URMSpec
from hrm.nn.attention import AttentionKernel
from hrm.nn.documents import places, visible
from hrm.nn.draws import Draws
from hrm.nn.gated import GatedBlock
from hrm.nn.halting import HaltingSpec
from hrm.nn.layers import Block
from hrm.nn.losses import cross_entropy
from hrm.tasks import IGNORE, TaskShape
from hrm.tasks.text import TextSpec
from hrm.train import Training

SHAPE = TaskShape(vocab_size=13, sequence_length=10, next_token=True)
SMALL: dict[str, Any] = {"hidden_size": 16, "num_heads": 2}
PARTS = (3, 5, 2)
DOCUMENTS = torch.tensor([0] * 3 + [1] * 5 + [2] * 2).expand(2, 10)


def built(spec: ModelSpec, shape: TaskShape = SHAPE) -> Model:
    torch.manual_seed(0)
    return spec.build(shape).eval()


def batch(**columns: Tensor) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(13, (2, 2, 10), generator=generator)
    return {
        "inputs": tokens[0],
        "labels": tokens[1],
        "puzzle_identifiers": torch.zeros(2, dtype=torch.int64),
        **columns,
    }


def still(count: int = 2) -> Draws:
    return Draws(0, 0, torch.arange(count), training=False)


def logits(model: Model, rows: dict[str, Tensor]) -> Tensor:
    count = len(rows["inputs"])
    return model.segment(model.initial_state(count, still(count)), rows, still(count)).logits


def mask_of(documents: list[list[int]], causal: bool, past: int = 0, prompts: list[int] | None = None) -> Tensor:
    rows = {"inputs": torch.zeros(len(documents), len(documents[0]) - past), "documents": torch.tensor(documents)}
    seen = visible(rows, causal, past, None if prompts is None else torch.tensor(prompts))
    assert seen is not None
    return seen


def test_a_position_sees_its_own_document_only() -> None:
    seen = mask_of([[3, 3, 1, 0], [5, 6, 6, 6]], causal=False)
    assert seen[:, 0].int().tolist() == [
        [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]],
        [[1, 0, 0, 0], [0, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1]],
    ]


def test_under_a_causal_mask_it_sees_no_later_position_of_it() -> None:
    seen = mask_of([[3, 3, 1, 0]], causal=True)
    assert seen[0, 0].int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]


def test_places_are_counted_from_the_start_of_each_document() -> None:
    documents = torch.tensor([[3, 3, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0], [-1, 0, 1, 2, 3, 3]])
    assert places(documents).tolist() == [[0, 1, 0, 0, 1, 2], [0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 0, 1]]


SEEING: dict[str, BlockModelSpec] = {
    "transformer": TransformerSpec(**SMALL, num_layers=2),
    "hrm": HRMSpec(**SMALL, H_layers=1, L_layers=1, convolution=3),
    "trm": TRMSpec(**SMALL, L_cycles=2, positions="learned"),
    "urm": URMSpec(**SMALL, num_layers=1, L_cycles=2),
    "universal_transformer": UniversalTransformerSpec(**SMALL, num_layers=1),
}


@pytest.mark.parametrize("spec", SEEING.values(), ids=SEEING.keys())
def test_a_model_that_sees_the_future_sees_that_of_the_document(spec: BlockModelSpec) -> None:
    model, rows = built(spec), batch()
    packed = logits(model, {**rows, "documents": DOCUMENTS}).split(PARTS, dim=1)
    for inputs, found in zip(rows["inputs"].split(PARTS, dim=1), packed, strict=True):
        short = built(spec, replace(SHAPE, sequence_length=inputs.shape[1]))
        of_the_first = short.state_dict()
        short.load_state_dict({k: v[: len(of_the_first[k])] for k, v in model.state_dict().items()})
        torch.testing.assert_close(found, logits(short, {**rows, "inputs": inputs}), rtol=1e-5, atol=1e-5)


CAUSAL: dict[str, ModelSpec] = {
    **{name: spec.model_copy(update={"causal": True}) for name, spec in SEEING.items()},
    "hrm_text": HRMTextSpec(**SMALL, num_layers_per_stack=1),
}


@pytest.mark.parametrize("spec", CAUSAL.values(), ids=CAUSAL.keys())
def test_packed_rows_give_the_gradients_of_their_documents_alone(spec: ModelSpec) -> None:
    packed = batch(documents=DOCUMENTS)
    parted = {"inputs": one_a_row(packed["inputs"], 0), "labels": one_a_row(packed["labels"], IGNORE)}
    found, expected = gradients(spec, packed), gradients(spec, parted)
    assert len(found) == len(expected) > 0
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-5, msg=lambda text, n=name: f"{n}: {text}")


def one_a_row(tokens: Tensor, after: int) -> Tensor:
    """Each document in a row of its own, filled up."""
    documents = [document for row in tokens for document in row.split(PARTS)]
    return torch.stack([torch.nn.functional.pad(d, (0, tokens.shape[1] - len(d)), value=after) for d in documents])


def gradients(spec: ModelSpec, rows: dict[str, Tensor]) -> dict[str, Tensor]:
    model = built(spec)
    cross_entropy(logits(model, rows), rows["labels"], "softmax").sum().backward()  # type: ignore[no-untyped-call]
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kernel", ["sdpa", "explicit"])
def test_half_precision_stays_finite_with_documents_of_one_position(kernel: AttentionKernel) -> None:
    model = built(CAUSAL["hrm"])
    model.configure(torch.bfloat16, kernel)
    y = logits(model, batch(documents=torch.arange(10).expand(2, 10)))
    y.float().sum().backward()  # type: ignore[no-untyped-call]
    assert y.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("spec", [CAUSAL["hrm"], CAUSAL["hrm_text"]], ids=["hrm", "hrm_text"])
def test_a_segment_makes_one_mask_for_all_its_layers_and_none_without_documents(spec: ModelSpec) -> None:
    model, seen = built(spec), []
    for module in model.modules():
        if isinstance(module, Block | GatedBlock):
            module.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[-2]))
    logits(model, batch())
    without = len(seen)
    assert without > 1
    assert seen == [None] * without
    logits(model, batch(documents=DOCUMENTS))
    assert len({id(mask) for mask in seen[without:]}) == 1
    assert torch.equal(seen[-1], visible({"inputs": DOCUMENTS, "documents": DOCUMENTS}, causal=True))


def test_the_flash_kernel_leaves_masks_to_the_one_that_takes_them() -> None:
    model, rows = built(CAUSAL["transformer"]), batch(documents=DOCUMENTS)
    expected = logits(model, rows)
    model.configure(torch.float32, "flash")
    assert torch.equal(logits(model, rows), expected)


@pytest.mark.parametrize("kind", ["hrm", "trm", "urm"])
def test_the_q_of_one_more_segment_is_that_of_the_whole_segment(kind: str) -> None:
    halting = HaltingSpec(rule="q_with_target", segments=3)
    model = built(CAUSAL[kind].model_copy(update={"halting": halting}))
    assert isinstance(model, RecursiveModel)
    torch.nn.init.normal_(model.q_head.weight)
    state, rows = model.initial_state(2, still()), batch(documents=DOCUMENTS)
    q, expected = model.next_q(state, rows, still()), model.segment(state, rows, still()).q
    assert q is not None
    assert expected is not None
    torch.testing.assert_close(q, expected, rtol=1e-5, atol=1e-5)


REFUSED: dict[str, tuple[ModelSpec, str]] = {
    "an MLP across positions": (
        TRMSpec(**SMALL, mixer="mlp", positions="none"),
        "model.mixer: must be `attention` for rows of several documents, got `mlp`, .*Set model.mixer: attention",
    ),
    "a puzzle before the row": (
        TRMSpec(**SMALL, puzzle_embedding_size=16),
        "model.puzzle_embedding_size: must be 0 for rows of several documents, got 16: .*Set model.puzzle_embedding",
    ),
}


@pytest.mark.parametrize(("spec", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_model_that_cannot_part_documents_refuses_them(spec: ModelSpec, message: str) -> None:
    shape = replace(SHAPE, num_puzzle_identifiers=4)
    model = built(spec, shape)
    assert logits(model, batch()).isfinite().all()
    with pytest.raises(SpecError, match=message):
        logits(model, batch(documents=DOCUMENTS))
    problem = spec.packing_problem(shape)
    assert problem is not None
    assert message.startswith(problem.place)


def test_a_prompt_is_read_as_a_whole_within_its_document() -> None:
    """Padding before a prompt is such a document."""
    seen = mask_of([[0, 1, 1, 1]], causal=True, prompts=[3])
    assert seen[0, 0].int().tolist() == [[1, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 1, 1, 1]]


def test_the_mask_of_further_positions_is_the_end_of_the_whole_rows() -> None:
    documents = [[0, 0, 1, 1, 1], [2, 2, 2, 2, 2]]
    for prompts in (None, [3, 4]):
        whole = mask_of(documents, causal=True, prompts=prompts)
        for past in (1, 3, 4):
            assert torch.equal(mask_of(documents, True, past, prompts), whole[:, :, past:])


def test_packing_changes_the_rows_and_not_what_is_measured(tmp_path: Path, make_trial: MakeTrial) -> None:
    found = {packing: training(tmp_path, make_trial, packing) for packing in (True, False)}
    rows = {packing: t.dataset.manifest.rows["train"] for packing, t in found.items()}
    assert rows[True] < rows[False]
    measured, expected = (found[packing]._evaluate("validation") for packing in (True, False))
    assert {name: measured[name] for name in ("loss", "bits_per_byte", "token_accuracy")} == pytest.approx(
        {name: expected[name] for name in ("loss", "bits_per_byte", "token_accuracy")}, rel=1e-6
    )


def test_a_resumed_training_knows_the_documents_of_its_rows(tmp_path: Path, make_trial: MakeTrial) -> None:
    first = training(tmp_path, make_trial, packing=True)
    first.step()
    first.save()
    first.checkpoints.wait()
    resumed = training(tmp_path, make_trial, packing=True)
    assert torch.equal(resumed.state.carry.rows["documents"], first.state.carry.rows["documents"])
    first.step()
    resumed.step()
    assert resumed.state.pending[-1].metrics == first.state.pending[-1].metrics


def training(root: Path, make_trial: MakeTrial, packing: bool) -> Training:
    """On the sample text, whose documents are shorter than a row; a row keeps its slot for two segments."""
    task = TextSpec(sequence_length=300, packing=packing, validation_fraction=0.3)
    build_dataset(task, root)
    model = {**TINY_HRM, "convolution": 3, "halting": {"rule": "none", "segments": 2}}
    trial = make_trial(task=task.model_dump(mode="json"), model=model, precision="float32")
    return Training(trial, LocalContext(root / f"packing {packing}", root))
