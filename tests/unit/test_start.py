"""A training that starts from another's weights: whose they are is part of its id, is checked, and is recorded."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_HRM, TINY_TRANSFORMER, MakeTrial
from torch import Tensor

from hrm.checkpoint import open_checkpoint, read_checkpoint, weights_sha256, write_checkpoint
from hrm.context import LocalContext
from hrm.data.dataset import build_dataset
from hrm.errors import InfrastructureError, SpecError
from hrm.original.conversion import import_original, original_state_dict
from hrm.original.reading import read_state_dict
from hrm.records import Report
from hrm.tasks.sudoku import SudokuSpec
from hrm.train import Training, train

MakeContext = Callable[..., LocalContext]
PUZZLE = {"kind": "hrm", "hidden_size": 16, "num_heads": 8, "H_layers": 1, "L_layers": 1, "puzzle_embedding_size": 16}


def start_of(path: Path, **fields: Any) -> dict[str, Any]:
    """As an experiment fills it in."""
    return {"path": str(path), "sha256": weights_sha256(open_checkpoint(path).manifest), **fields}


@pytest.fixture
def origin(make_trial: MakeTrial, make_context: MakeContext) -> Path:
    """A checkpoint of four steps."""
    context = make_context("origin")
    reports = [next(generator) for generator in [train(make_trial(seed=1), context)] for _ in range(2)]
    return context.trial_directory / reports[-1].checkpoint


def weights(training: Training) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in training.state.model.state_dict().items()}


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def refusal(make_trial: MakeTrial, context: LocalContext, **fields: Any) -> str:
    with pytest.raises(SpecError) as caught:
        Training(make_trial(**fields), context)
    assert all(problem.way_out for problem in caught.value.problems)
    return str(caught.value)


def test_the_weights_are_the_other_s_and_all_else_is_fresh(
    make_trial: MakeTrial, make_context: MakeContext, origin: Path
) -> None:
    training = Training(make_trial(seed=7, initialize_from=start_of(origin)), make_context())
    assert same(weights(training), read_checkpoint(origin).model)
    assert not same(weights(training), weights(Training(make_trial(seed=7), make_context("scratch"))))
    assert training.state.progress.step == 0
    assert training.state.optimizer.state_dict()["state"] == {}
    assert training.state.carry.halted.all()


def test_an_average_is_what_is_taken_over_and_what_a_new_average_starts_at(
    make_trial: MakeTrial, make_context: MakeContext
) -> None:
    context = make_context("origin")
    report = next(train(make_trial(ema=0.9), context))
    path = context.trial_directory / report.checkpoint
    held = read_checkpoint(path)
    assert not same(held.model, held.evaluation_weights)
    training = Training(make_trial(ema=0.5, initialize_from=start_of(path)), make_context())
    assert same(weights(training), held.evaluation_weights)
    assert training.state.ema is not None
    assert all(torch.equal(mean, held.evaluation_weights[name]) for name, mean in training.state.ema.means.items())


def test_a_resumed_training_needs_its_own_checkpoint_only_and_keeps_its_lineage(
    make_trial: MakeTrial, make_context: MakeContext, origin: Path
) -> None:
    trial = make_trial(initialize_from=start_of(origin))
    whole = list(reports_of(trial, make_context("whole")))
    generator = train(trial, make_context("parts"))
    first = [next(generator), next(generator)]
    generator.close()
    before = json.loads((make_context("parts").trial_directory / first[-1].checkpoint / "manifest.json").read_text())
    shutil.rmtree(origin)
    rest = list(reports_of(trial, make_context("parts", attempt=2), known_reports=2))
    assert [r.validation for r in [*first, *rest]] == [r.validation for r in whole]
    after = read_checkpoint(make_context("parts").trial_directory / rest[-1].checkpoint).manifest
    assert after["lineage"] == before["lineage"]


def reports_of(trial: Any, context: LocalContext, known_reports: int = 0) -> list[Report]:
    return list(train(trial, context, known_reports=known_reports))


def test_every_checkpoint_says_whose_weights_it_started_from(
    make_trial: MakeTrial, make_context: MakeContext, origin: Path
) -> None:
    second = make_context("second")
    path = second.trial_directory / next(train(make_trial(initialize_from=start_of(origin)), second)).checkpoint
    third, found = make_context("third"), {"sweep": "first_stage", "arm": "hrm", "task": "text", "trial": "hrm-0001"}
    last = next(train(make_trial(seed=2, initialize_from=start_of(path, **found)), third)).checkpoint
    lineage = read_checkpoint(third.trial_directory / last).manifest["lineage"]
    own, origins = read_checkpoint(path).manifest, read_checkpoint(origin).manifest
    assert (lineage["path"], lineage["sha256"]) == (str(path), weights_sha256(own))
    assert (lineage["trial_id"], lineage["step"], lineage["drawn_anew"]) == (own["trial_id"], 2, [])
    assert {name: lineage[name] for name in found} == found
    assert lineage["lineage"]["trial_id"] == origins["trial_id"]
    assert lineage["lineage"]["lineage"] is None


def test_the_id_follows_the_weights_and_not_their_place(
    make_trial: MakeTrial, make_context: MakeContext, origin: Path, tmp_path: Path
) -> None:
    shutil.copytree(origin, tmp_path / "copy")
    trial = make_trial(initialize_from=start_of(origin))
    assert make_trial(initialize_from=start_of(tmp_path / "copy")).hash() == trial.hash()
    assert make_trial(initialize_from=start_of(origin, sweep="first_stage", arm="hrm")).hash() == trial.hash()
    assert make_trial().hash() != trial.hash()
    assert make_trial(initialize_from=start_of(origin, without=["lm_head"])).hash() != trial.hash()
    other = origin.with_name("step-00000002")
    assert make_trial(initialize_from=start_of(other)).hash() != trial.hash()


def test_weights_with_another_average_are_other_weights(make_trial: MakeTrial, make_context: MakeContext) -> None:
    def digest(name: str, ema: float | None) -> str:
        context = make_context(name)
        report = next(train(make_trial(ema=ema), context))
        return weights_sha256(open_checkpoint(context.trial_directory / report.checkpoint).manifest)

    assert len({digest("none", None), digest("slow", 0.9), digest("fast", 0.5)}) == 3
    assert digest("again", 0.5) == digest("fast again", 0.5)


def test_weights_that_changed_since_the_trial_was_named_are_refused(
    make_trial: MakeTrial, make_context: MakeContext, origin: Path
) -> None:
    start = start_of(origin)
    other = origin.with_name("step-00000002")
    shutil.rmtree(origin)
    with pytest.raises(InfrastructureError, match="initialize_from cannot be read"):  # a lost mount comes back
        next(train(make_trial(initialize_from=start), make_context()))
    other.rename(origin)
    assert "they were changed" in refusal(make_trial, make_context(), initialize_from=start)


def test_a_damaged_start_is_refused(make_trial: MakeTrial, make_context: MakeContext, origin: Path) -> None:
    start = start_of(origin)
    content = bytearray((origin / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (origin / "model.safetensors").write_bytes(content)
    with pytest.raises(InfrastructureError, match="its bytes are not those that the manifest lists"):
        next(train(make_trial(initialize_from=start), make_context()))


def test_another_vocabulary_is_refused_unless_its_parts_are_drawn_anew(
    make_trial: MakeTrial, make_context: MakeContext, origin: Path, data_root: Path
) -> None:
    task = {**make_trial().task.model_dump(mode="json"), "phrasings": 3, "num_train": 64}
    shape = build_dataset(make_trial(task=task).task, data_root).shape
    said = refusal(make_trial, make_context(), task=task, initialize_from=start_of(origin))
    assert f"embed_tokens.embedding_weight must be [{shape.vocab_size}, 16] in this model" in said
    assert "draw this part anew with without: [lm_head]" in said
    start = start_of(origin, without=["embed_tokens", "lm_head"])
    training = Training(make_trial(task=task, seed=3, initialize_from=start), make_context())
    scratch, held = weights(Training(make_trial(task=task, seed=3), make_context("scratch"))), read_checkpoint(origin)
    new = ["embed_tokens.embedding_weight", "lm_head.weight"]
    for name, value in weights(training).items():
        assert torch.equal(value, (scratch if name in new else held.model)[name]), name
    assert training.state.lineage is not None
    assert training.state.lineage["drawn_anew"] == new


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (TINY_TRANSFORMER, "the checkpoint's model.kind is hrm, the trial's is transformer"),
        (
            {**TINY_HRM, "num_heads": 4},
            "the checkpoint's model.num_heads is 2, the trial's is 4. Set model.num_heads: 2",
        ),
        ({**TINY_HRM, "hidden_size": 32}, "the checkpoint's model.hidden_size is 16, the trial's is 32"),
        ({**TINY_HRM, "H_layers": 2}, "the checkpoint's model.H_layers is 1, the trial's is 2"),
        ({**TINY_HRM, "rotary_theta": 100.0}, "the checkpoint's model.rotary_theta is 10000.0, the trial's is 100.0"),
    ],
)
def test_another_model_is_refused_also_where_the_shapes_would_fit(
    make_trial: MakeTrial, make_context: MakeContext, origin: Path, model: dict[str, Any], said: str
) -> None:
    assert said in refusal(make_trial, make_context(), model=model, initialize_from=start_of(origin))


def test_a_part_that_nobody_has_is_refused(make_trial: MakeTrial, make_context: MakeContext, origin: Path) -> None:
    said = refusal(make_trial, make_context(), initialize_from=start_of(origin, without=["lm_haed"]))
    assert "without: there is no part 'lm_haed'. The parts are H_init, L_init, embed_tokens" in said


def test_cycles_and_halting_may_differ(make_trial: MakeTrial, make_context: MakeContext, origin: Path) -> None:
    model = {**TINY_HRM, "L_cycles": 3, "halting": {"segments": 2}, "dropout": 0.1}
    training = Training(make_trial(model=model, initialize_from=start_of(origin)), make_context())
    assert same(weights(training), read_checkpoint(origin).model)


def test_an_original_checkpoint_is_a_start_with_its_table_and_initial_states(
    make_trial: MakeTrial, tmp_path: Path
) -> None:
    shape = build_dataset(SudokuSpec.smoke(), tmp_path / "data").shape
    trial = make_trial(task=SudokuSpec.smoke().model_dump(mode="json"), model=PUZZLE)
    state = {f"_orig_mod.model.inner.{name}": value for name, value in trial.model.build(shape).state_dict().items()}
    state["_orig_mod.model.inner.puzzle_emb.weights"].normal_()
    torch.save(state, tmp_path / "step_3")
    imported = import_original(read_state_dict(tmp_path / "step_3"), {})
    write_checkpoint(tmp_path / "imported", imported)
    start = start_of(tmp_path / "imported")
    trial = make_trial(task=SudokuSpec.smoke().model_dump(mode="json"), model=PUZZLE, initialize_from=start)
    context = LocalContext(tmp_path / "trial", tmp_path / "data")
    assert same(weights(Training(trial, context)), imported.model)
    trained = read_checkpoint(context.trial_directory / next(train(trial, context)).checkpoint)
    lineage = trained.manifest["lineage"]
    assert (lineage["trial_id"], lineage["step"]) == (None, 3)
    assert lineage["lineage"]["sha256"] == imported.manifest["lineage"]["sha256"]
    exported = original_state_dict(trained, trained.evaluation_weights, "here")
    assert exported.keys() == state.keys()
    assert not torch.equal(
        exported["_orig_mod.model.inner.lm_head.weight"], state["_orig_mod.model.inner.lm_head.weight"]
    )
