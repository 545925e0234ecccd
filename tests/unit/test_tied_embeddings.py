"""Tied embeddings: the head is the table of token embeddings, one tensor wherever tensors are counted or kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from conftest import TINY_HRM, TINY_TRANSFORMER, MakeTrial, run

from hrm.checkpoint import Checkpoint, open_checkpoint, read_checkpoint, weights_sha256
from hrm.context import LocalContext
from hrm.errors import SpecError
from hrm.loading import components, load_model
from hrm.models import Model, ModelSpec
from hrm.models.hrm import HRMSpec
from hrm.nn.draws import Draws
from hrm.optim.muon import MuonSpec
from hrm.original.conversion import original_state_dict
from hrm.spec import parse_spec
from hrm.tasks import TaskShape
from hrm.train import Training
from hrm.variants import discover

MakeContext = Callable[..., LocalContext]
SHAPE = TaskShape(vocab_size=50, sequence_length=10, next_token=True)
MODELS = cast("dict[str, type[ModelSpec]]", discover("hrm.models", ModelSpec))
TABLE = "embed_tokens.embedding_weight"


@pytest.fixture(params=sorted(MODELS))
def spec(request: pytest.FixtureRequest) -> ModelSpec:
    return tied(MODELS[request.param].smoke())


def tied(spec: ModelSpec) -> ModelSpec:
    return parse_spec(type(spec), spec.model_dump(mode="json") | {"tied_embeddings": True}, "model")


def built(spec: ModelSpec) -> Model:
    torch.manual_seed(0)
    return spec.build(SHAPE)


def test_one_tensor_embeds_tokens_and_reads_them_off(spec: ModelSpec) -> None:
    model, draws = built(spec).eval(), Draws(0, 0, torch.arange(3), training=False)
    rows = {"inputs": torch.arange(30).view(3, 10), "puzzle_identifiers": torch.zeros(3, dtype=torch.int64)}
    output = model.segment(model.initial_state(3, draws), rows, draws)
    torch.testing.assert_close(output.logits, output.answer @ model.state_dict()[TABLE].T)
    untied = built(MODELS[str(spec.kind)].smoke())
    assert untied.state_dict().keys() - model.state_dict().keys() == {"lm_head.weight"}
    assert untied.num_parameters() - model.num_parameters() == 50 * 16
    assert spec.flops(SHAPE) == MODELS[str(spec.kind)].smoke().flops(SHAPE)
    assert components(model.state_dict()).keys() == components(untied.state_dict()).keys() - {"head"}
    plain = untied.eval().segment(untied.initial_state(3, draws), rows, draws).logits
    assert 0.5 < (output.logits.std() / plain.std()).item() < 2.0  # both are drawn with 1 / sqrt(D)


def test_the_table_is_in_one_group_of_the_optimizer(spec: ModelSpec) -> None:
    model = built(spec)
    groups = {group["name"]: group["params"] for group in MuonSpec(embedding_weight_decay=0.0).groups(model)}
    assert sum(parameter is model.embed_tokens.embedding_weight for ps in groups.values() for parameter in ps) == 1
    assert any(parameter is model.embed_tokens.embedding_weight for parameter in groups["embeddings"])
    assert sum(p.numel() for ps in groups.values() for p in ps) == model.num_parameters()


@pytest.mark.parametrize("model", [TINY_HRM, TINY_TRANSFORMER])
def test_a_training_keeps_one_tensor_and_its_average_and_comes_back(
    make_trial: MakeTrial, make_context: MakeContext, model: dict[str, Any]
) -> None:
    trial = make_trial(model={**model, "tied_embeddings": True}, ema=0.9, num_reports=1)
    context = make_context()
    [report], result = run(trial, context, test=True)
    path = context.trial_directory / report.checkpoint
    checkpoint = read_checkpoint(path)
    assert checkpoint.ema is not None
    for held in (checkpoint.model, checkpoint.ema):
        assert TABLE in held
        assert "lm_head.weight" not in held
    assert report.steps[-1].metrics["loss"] < report.steps[0].metrics["loss"]
    assert result.test is not None
    shape = Training(trial, make_context("other")).dataset.shape
    loaded = load_model(checkpoint, shape, "here")
    assert torch.equal(loaded.state_dict()[TABLE], checkpoint.ema[TABLE])
    assert loaded.lm_head is None
    start = {"path": str(path), "sha256": weights_sha256(open_checkpoint(path).manifest)}
    with pytest.raises(SpecError, match=r"the checkpoint's model\.tied_embeddings is True, the trial's is False"):
        Training(make_trial(model=model, initialize_from=start), make_context("untied"))
    again = Training(make_trial(model={**model, "tied_embeddings": True}, initialize_from=start), make_context("tied"))
    assert torch.equal(again.state.model.state_dict()[TABLE], checkpoint.ema[TABLE])


def test_the_original_format_has_no_such_model() -> None:
    spec = HRMSpec(hidden_size=32, num_heads=2, tied_embeddings=True)
    manifest = {"spec": {"model": spec.model_dump(mode="json")}}
    checkpoint = Checkpoint(spec.build(SHAPE).state_dict(), {}, {}, manifest)
    with pytest.raises(SpecError, match=r"the original code has no tied_embeddings: True, and would compute something"):
        original_state_dict(checkpoint, checkpoint.model, "here")
