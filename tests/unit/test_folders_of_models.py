"""Folders of Transformers as commands see them: exported, shown, imported, refused; and names on the hub."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TINY_HRM, MakeTrial
from hub_stub import running_hub, use

from hrm.checkpoint import read_checkpoint, weights_sha256
from hrm.context import LocalContext
from hrm.data.dataset import build_dataset
from hrm.errors import SpecError
from hrm.huggingface.lineage import is_origin, kept, link_in_words
from hrm.huggingface.places import local_folder, names_a_repository
from hrm.huggingface.reading import read_transformers
from hrm.spec import parse_spec
from hrm.tasks.red_team import RedTeamSpec
from hrm.tasks.sudoku import SudokuSpec
from hrm.tasks.text import TextSpec
from hrm.train import train
from hrm.trial import TrialSpec
from orchestrator.cli import main

transformers = pytest.importorskip("transformers", minversion="5.9")

HRM_TEXT = {"kind": "hrm_text", "hidden_size": 16, "num_heads": 2, "num_layers_per_stack": 1}
Said = Callable[..., tuple[int, Any]]


@pytest.fixture
def said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    """Runs a `checkpoint` command in a storage of its own."""

    def call(*arguments: object) -> tuple[int, Any]:
        capsys.readouterr()
        code = main(["checkpoint", *map(str, arguments), "--storage", str(tmp_path), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return call


@pytest.fixture
def trained(make_trial: MakeTrial, make_context: Callable[..., LocalContext]) -> Callable[..., Path]:
    """The folder of a checkpoint after two steps."""

    def make(**fields: Any) -> Path:
        context = make_context()
        report = next(train(make_trial(**fields), context))
        return context.trial_directory / report.checkpoint

    return make


@pytest.fixture
def folder(trained: Callable[..., Path], said: Said, tmp_path: Path) -> Path:
    """An exported one."""
    said("export", trained(model=HRM_TEXT, ema=0.5), "--format", "transformers", "--output", tmp_path / "out")
    return tmp_path / "out"


def words(problems: Any) -> str:
    return json.dumps(problems)


def test_an_export_has_weights_tokenizer_and_a_card_that_says_what_is_known(
    trained: Callable[..., Path], said: Said, tmp_path: Path
) -> None:
    checkpoint, out = trained(model=HRM_TEXT, ema=0.5), tmp_path / "out"
    (tmp_path / "LICENSE.txt").write_text("All may use it.\n")
    options = ("--format", "transformers", "--output", out, "--license", "ours", "--license-file")
    code, facts = said("export", checkpoint, *options, tmp_path / "LICENSE.txt")
    assert code == 0
    expected = {"model.safetensors", "config.json", "generation_config.json", "README.md", "LICENSE"}
    assert set(facts["files"]) == expected | {"tokenizer.json", "tokenizer_config.json"}
    assert facts["files"] == {path.name: path.stat().st_size for path in out.iterdir()}
    manifest, card = read_checkpoint(checkpoint).manifest, (out / "README.md").read_text()
    header = card.split("---")[1]
    for line in ("license: other", "license_name: ours", "library_name: transformers", "pipeline_tag: text-generation"):
        assert line in header
    for fact in (
        manifest["dataset_fingerprint"],
        manifest["trial_id"],
        f"{manifest['num_parameters']:,} parameters",
        f"| loss | {manifest['validation']['loss']:.6g} |",
        '"kind": "red_team"',
        "AutoModelForCausalLM",
        "averaged (EMA)",
    ):
        assert fact in card
    assert "token_type_ids` out" in card
    assert (out / "LICENSE").read_text() == "All may use it.\n"


def test_a_card_says_how_a_prompt_is_marked_and_that_a_license_is_unknown(
    trained: Callable[..., Path], said: Said, tmp_path: Path, data_root: Path
) -> None:
    task = {"kind": "red_team", "num_train": 16, "num_validation": 4, "num_test": 4, "phrasings": 1, "prompt_turns": 2}
    build_dataset(RedTeamSpec.model_validate(task), data_root)
    checkpoint = trained(model=HRM_TEXT, task=task)
    code, facts = said("export", checkpoint, "--format", "transformers", "--output", tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text()
    assert (code, facts["license"]) == (0, "unknown")
    assert "license: unknown" in card
    assert "token_type_ids` = 1" in card
    assert not (tmp_path / "out" / "LICENSE").exists()


def test_the_exported_tokenizer_writes_texts_as_the_rows_do(folder: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    text = "system: you coordinate an authorised red team exercise"
    tokens = tokenizer(text)
    assert set(tokens) == {"input_ids", "attention_mask"}
    assert tokenizer.decode(tokens["input_ids"]) == text
    assert tokenizer.unk_token_id not in tokens["input_ids"]
    assert (tokenizer.pad_token, tokenizer.eos_token, tokenizer.padding_side) == ("<pad>", "<eos>", "left")
    assert tokenizer.model_max_length == json.loads((folder / "config.json").read_text())["max_position_embeddings"]


def test_an_exported_folder_is_shown_and_imported_with_where_it_came_from(
    folder: Path, said: Said, tmp_path: Path
) -> None:
    code, shown = said("show", folder)
    assert (code, shown["kind"]) == (0, "hrm_text")
    code, facts = said("import", folder, "--output", tmp_path / "back")
    assert code == 0
    assert facts["lineage"]["format"] == "Transformers folder, hrm_text"
    assert facts["weights_sha256"] == shown["weights_sha256"]
    back, read = read_checkpoint(tmp_path / "back"), read_transformers(folder)
    assert all(torch.equal(back.model[name], read.model[name]) for name in read.model)
    again = tmp_path / "again"
    assert said("export", tmp_path / "back", "--format", "transformers", "--output", again)[0] == 0
    for name in ("model.safetensors", "tokenizer.json", "tokenizer_config.json"):
        assert (again / name).read_bytes() == (folder / name).read_bytes()
    assert "started from: Transformers folder" in (again / "README.md").read_text()


@pytest.mark.parametrize("model", [HRM_TEXT, TINY_HRM], ids=["hrm_text", "ours"])
def test_where_weights_came_from_goes_on_through_exports(
    model: dict[str, Any],
    trained: Callable[..., Path],
    said: Said,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    checkpoint, out, back = trained(model=model, ema=0.5), tmp_path / "out", tmp_path / "back"
    manifest = read_checkpoint(checkpoint).manifest
    origin = {"trial_id": manifest["trial_id"], "step": manifest["progress"]["step"]}
    origin["sha256"] = weights_sha256(manifest)
    said("export", checkpoint, "--format", "transformers", "--output", out)
    assert str(tmp_path) not in (out / "config.json").read_text()
    transformers.AutoModelForCausalLM.from_pretrained(out).save_pretrained(tmp_path / "saved")
    for folder in (tmp_path / "saved", out):
        assert said("show", folder)[1]["lineage"]["lineage"] == origin
    said("import", out, "--output", back)
    said("export", back, "--format", "transformers", "--output", tmp_path / "again")
    links = said("show", tmp_path / "again")[1]["lineage"]["lineage"]
    assert "trial_id" not in links
    assert links["lineage"]["lineage"] == origin
    last = f"trial {origin['trial_id']}, step {origin['step']}"
    assert f"- started from: {last}, sha256 {origin['sha256'][:16]}" in (tmp_path / "again/README.md").read_text()
    assert "trial: none, it was imported" in (tmp_path / "again/README.md").read_text()
    assert main(["checkpoint", "show", str(tmp_path / "again"), "--storage", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()[-4:]
    own = "hrm_text" if model is HRM_TEXT else "hrm_orchestrator"
    assert lines[0].startswith(f"from {tmp_path / 'again'} (Transformers folder, {own}, sha256 ")
    assert lines[1].startswith("from an import (sha256 ")
    assert lines[2].startswith(f"from Transformers folder, {own} (sha256 ")
    assert lines[3] == f"from {last} (sha256 {origin['sha256'][:16]})"


def test_a_link_is_said_by_what_is_known_of_it_and_given_away_without_its_place() -> None:
    stage = {"sweep": "/home/me/runs/sweeps/pretrain", "arm": "hrm", "task": "text", "trial": "hrm-0001"}
    first = {"path": "/home/me/a", "sha256": "1" * 64, "trial_id": None, "step": 3, "lineage": None}
    link = {"path": "/home/me/b", "sha256": "2" * 64, "trial_id": "2" * 16, "step": 9, **stage, "lineage": first}
    found = kept(link)
    assert is_origin(found)
    assert "/home" not in json.dumps(found)
    assert link_in_words(found) == f"sweep pretrain, arm hrm on text, trial hrm-0001, {'2' * 16}, step 9"
    assert link_in_words(found["lineage"]) == "an import, step 3"
    assert link_in_words({"trial_id": None, "step": None}) == "an import"


def test_what_was_imported_can_be_evaluated_as_the_checkpoint_was(
    trained: Callable[..., Path], said: Said, tmp_path: Path
) -> None:
    checkpoint = trained(model={"kind": "trm", "hidden_size": 16, "num_heads": 2, "L_layers": 1, "causal": True})
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(read_checkpoint(checkpoint).manifest["spec"]["task"]))
    said("export", checkpoint, "--format", "transformers", "--output", tmp_path / "out")
    said("import", tmp_path / "out", "--output", tmp_path / "back")
    before, after = said("evaluate", checkpoint)[1], said("evaluate", tmp_path / "back", "--task", recipe)[1]
    assert after["metrics"] == pytest.approx(before["metrics"], rel=1e-6)


def test_a_model_that_sees_the_future_is_refused_with_the_reason(
    trained: Callable[..., Path], said: Said, tmp_path: Path
) -> None:
    task = SudokuSpec.smoke()
    context = LocalContext(tmp_path / "puzzles", tmp_path / "data")
    build_dataset(task, tmp_path / "data")
    checkpoint = trained_on(task.model_dump(mode="json"), context)
    code, problems = said("export", checkpoint, "--format", "transformers", "--output", tmp_path / "out")
    assert code == 2
    assert "sees the future" in words(problems)
    assert "model.causal: true" in words(problems)
    assert not (tmp_path / "out").exists()


def trained_on(task: dict[str, Any], context: LocalContext) -> Path:
    model = {"kind": "hrm", "hidden_size": 16, "num_heads": 2, "H_layers": 1, "L_layers": 1}
    budget = {"axis": "steps", "amount": 2}
    optimizer = {"kind": "adamw"}
    data = {"task": task, "model": model, "budget": budget, "optimizer": optimizer, "batch_size": 4}
    report = next(train(parse_spec(TrialSpec, data, "trial"), context))
    return context.trial_directory / report.checkpoint


def test_options_that_mean_nothing_and_places_that_are_taken_are_refused(
    trained: Callable[..., Path], said: Said, tmp_path: Path
) -> None:
    checkpoint = trained(model=HRM_TEXT)
    code, problems = said(
        "export", checkpoint, "--format", "safetensors", "--output", tmp_path / "w", "--dtype", "float16"
    )
    assert (code, "--dtype" in words(problems)) == (2, True)
    code, problems = said("export", checkpoint, "--format", "transformers", "--output", tmp_path)
    assert (code, "is there already" in words(problems)) == (2, True)
    code, problems = said(
        "export", checkpoint, "--format", "transformers", "--output", tmp_path / "out", "--weights", "ema"
    )
    assert (code, "no averaged weights" in words(problems)) == (2, True)
    other = tmp_path / "other.yaml"
    other.write_text(json.dumps(TextSpec.smoke().model_dump(mode="json")))
    code, problems = said(
        "export", checkpoint, "--format", "transformers", "--output", tmp_path / "out", "--task", other
    )
    assert (code, "got 258" in words(problems)) == (2, True)


@pytest.mark.parametrize("command", ["import", "show"])
def test_a_folder_that_is_no_model_is_refused(said: Said, tmp_path: Path, folder: Path, command: str) -> None:
    def refused(content: dict[str, str | bytes], *words_expected: str) -> None:
        place = tmp_path / "wrong"
        place.mkdir(exist_ok=True)
        for name, text in content.items():
            (place / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        code, problems = said(command, place)
        assert code == 2
        assert all(word in words(problems) for word in words_expected), problems
        for path in place.iterdir():
            path.unlink()

    config = (folder / "config.json").read_text()
    weights = (folder / "model.safetensors").read_bytes()
    refused({}, "no config.json")
    refused({"config.json": "{"}, "cannot be read as JSON")
    refused({"config.json": json.dumps({"model_type": "llama"})}, "must be hrm_text", "got 'llama'")
    refused(
        {"config.json": json.dumps({"model_type": "hrm_text"})}, "hidden_size must be a whole number >= 1, got none"
    )
    refused({"config.json": config}, "has no model.safetensors")
    refused({"config.json": config, "pytorch_model.bin": b"x"}, "pickled")
    refused({"config.json": config, "model.safetensors": weights[:-9]}, "no whole safetensors file")
    larger = json.dumps({**json.loads(config), "num_layers_per_stack": 2})
    refused({"config.json": larger, "model.safetensors": weights}, "the model has H_level.layers.1")
    index = json.dumps({"weight_map": {"x": "../model.safetensors"}})
    refused({"config.json": config, "model.safetensors.index.json": index}, "beside it, got '../model")
    index = json.dumps({"weight_map": {"x": 5}})
    refused({"config.json": config, "model.safetensors.index.json": index}, "beside it, got 5")


def test_fields_that_mean_nothing_are_named_all_at_once(folder: Path, said: Said, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())

    def refused(fields: dict[str, Any], *rules: str) -> None:
        (folder / "config.json").write_text(json.dumps(fields))
        code, problems = said("import", folder, "--output", tmp_path / "back")
        assert code == 2
        assert [problem["rule"] for problem in problems["problems"]] == list(rules)

    wrong = {"num_attention_heads": 0, "hidden_size": True, "max_position_embeddings": None, "initializer_range": 0}
    objects = {"rope_parameters": "yarn", "hrm_orchestrator": [1], "embedding_scale": float("nan"), "rope_theta": "1"}
    refused(
        {**config, **wrong, **objects, "trained_loss": "hinge", "head_dim": None},
        'trained_loss must be one of softmax, stablemax, got "hinge"',
        "hidden_size must be a whole number >= 1, got true",
        "num_attention_heads must be a whole number >= 1, got 0",
        "max_position_embeddings must be a whole number >= 1, got null",
        "initializer_range must be a number > 0, got 0",
        'rope_theta must be a number > 0, got "1"',
        "embedding_scale must be a number > 0, got NaN",
        'rope_parameters must be an object, got "yarn"',
        "hrm_orchestrator must be an object, got [1]",
    )
    inside = {"rope_parameters": {"rope_theta": None}, "hrm_orchestrator": {"model": {"expansion": "4"}}}
    refused(
        {**config, **inside},
        "rope_parameters.rope_theta must be a number > 0, got null",
        'hrm_orchestrator.model.expansion must be a number > 0, got "4"',
    )
    refused({**config, "hrm_orchestrator": {"model": 3}}, "hrm_orchestrator.model must be an object, got 3")
    link = "must be an object with the sha256 of weights, as `checkpoint export` writes it, got"
    damaged: list[Any] = [3, {}, {"sha256": "1" * 64, "lineage": {}}, {"sha256": "1" * 64, "trial_id": "\x1b[2J"}]
    for origin in damaged:
        refused(
            {**config, "hrm_orchestrator": {"origin": origin}}, f"hrm_orchestrator.origin {link} {json.dumps(origin)}"
        )
    own = {"model_type": "hrm_orchestrator", "vocab_size": "abc", "max_position_embeddings": "long"}
    refused(
        {**own, "spec": 5, "num_segments": -1, "tie_word_embeddings": 1, "origin": []},
        'vocab_size must be a whole number >= 1, got "abc"',
        "tie_word_embeddings must be true or false, got 1",
        'max_position_embeddings must be a whole number >= 1, got "long"',
        "spec must be an object, got 5",
        "num_segments must be a whole number >= 1, got -1",
        f"origin {link} []",
    )


def test_a_command_that_needs_a_checkpoint_says_how_a_folder_becomes_one(
    folder: Path, said: Said, tmp_path: Path
) -> None:
    code, problems = said("evaluate", folder)
    assert code == 2
    assert "is a folder of Transformers" in words(problems)
    assert f"`checkpoint import {folder} --output NAME`" in words(problems)
    (folder / "config.json").write_text("{}")
    assert "no whole checkpoint" in words(said("evaluate", folder)[1])


def test_settings_of_the_original_code_mean_nothing_for_a_folder(said: Said, folder: Path) -> None:
    code, problems = said("import", folder, "--set", "num_heads=2")
    assert (code, "this is a folder" in words(problems)) == (2, True)


def test_a_model_comes_from_the_hub_and_again_without_it(
    folder: Path, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    with running_hub() as hub:
        use(hub, tmp_path / "cache", monkeypatch)
        hub.add("owner/model", {**files, "pytorch_model.bin": b"pickle", "code.py": b"code"}, kind="model")
        assert said("import", "hub:owner/model", "--output", tmp_path / "one")[0] == 0
        assert said("import", "owner/model", "--output", tmp_path / "two")[0] == 0
        asked = " ".join(hub.requests)
        assert "model.safetensors" in asked
        assert not any(name in asked for name in ("pytorch_model.bin", "code.py"))
        code, problems = said("import", "owner/other", "--output", tmp_path / "three")
        assert code == 2
        assert "no such folder here, and on the hub" in words(problems)
    found = local_folder("owner/model")
    assert torch.equal(read_transformers(found).model["L_init"], read_checkpoint(tmp_path / "one").model["L_init"])


def test_what_looks_like_a_path_is_not_looked_for_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    assert names_a_repository("owner/model")
    assert names_a_repository("hub:runs/model")
    assert not any(map(names_a_repository, ["runs/model", "model", "a/b/c", "/owner/model"]))
    with pytest.raises(SpecError, match="must be hub:owner/name"):
        local_folder("hub:model")
