"""Responses that a model writes: to which rows, what they are worth, and the same from a file, without a model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import TINY_TRANSFORMER, run

from hrm.asking import AskedModel
from hrm.context import LocalContext
from hrm.data.dataset import Dataset, build_dataset
from hrm.data.text_responses import compare
from hrm.data.tokenizing import TextTokenizer
from hrm.spec import parse_spec
from hrm.tasks import Answers
from hrm.tasks.text import TextSpec
from hrm.trial import TrialSpec
from orchestrator.cli import main
from orchestrator.experiment import load_experiment
from orchestrator.validation import with_data

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
REPORTED = {"bleu", "chrf", "rouge_1", "rouge_2", "rouge_l", "meteor_stemmed"}


def instructions(folder: Path, **fields: Any) -> TextSpec:
    source = folder / "instructions.jsonl"
    records = [{"instruction": f"Say {a} {b}", "output": f"Here: {b} and {a}."} for a in WORDS for b in WORDS]
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    data = {"source": {"path": str(source)}, "format": {"kind": "instruction"}, "loss_on": "response", **fields}
    return parse_spec(TextSpec, {"kind": "text", "sequence_length": 96, "test_fraction": 0.2, **data}, "recipe")


class Reciter:
    """Answers with the response that stands in the data, or with something else."""

    def __init__(self, dataset: Dataset, tokenizer: TextTokenizer, other: str | None = None) -> None:
        self.tokenizer, self._other, self.prompts = tokenizer, other, list[str]()
        self._rows = dataset.split("test").gather(np.arange(len(dataset.split("test"))))

    def __call__(self, rows: Mapping[str, np.ndarray]) -> Answers:
        raise AssertionError("responses are generated")

    def continued(self, prompts: Sequence[Sequence[int]], max_new_tokens: int) -> list[list[int]]:
        self.prompts += [self.tokenizer.decode(prompt) for prompt in prompts]
        return [self._one(prompt, max_new_tokens) for prompt in prompts]

    def _one(self, prompt: Sequence[int], most: int) -> list[int]:
        if self._other is not None:
            return self.tokenizer.encode([self._other])[0][0].tolist()
        (row,) = (row for row in self._rows["inputs"].tolist() if row[: len(prompt)] == list(prompt))
        rest = [token for token in row[len(prompt) :] if token not in self.tokenizer.special]
        return rest[:most]


@pytest.mark.parametrize("tokenizer", ["bytes", "words"])
@pytest.mark.parametrize("fields", [{}, {"prefix": True}, {"packing": True, "sequence_length": 200}], ids=str)
def test_who_writes_what_stands_there_has_every_metric_full(
    fields: dict[str, Any], tokenizer: str, tmp_path: Path
) -> None:
    spec = instructions(tmp_path, generated_rows=5, tokenizer={"kind": tokenizer}, **fields)
    dataset = build_dataset(spec, tmp_path)
    own = spec.text_tokenizer(dataset.directory, dataset.manifest.vocabulary)
    vocabulary, rows = dataset.manifest.vocabulary, dataset.split("test")
    if "packing" in fields:
        found = spec.predictions(Reciter(dataset, own, "Here: one and one."), rows, vocabulary)
        assert found is not None
        assert all(text.startswith("Here") and text.count("and") == 1 for text in found["reference"].to_pylist())
        return
    reciter = Reciter(dataset, own)
    found = spec.predictions(reciter, rows, vocabulary)
    assert found is not None
    assert len(found) == 5
    assert len(set(found["row"].to_pylist())) == 5
    assert all("Say" in prompt and "Here" not in prompt for prompt in reciter.prompts)
    judged = spec.judge(found)
    assert set(judged) == REPORTED
    assert min(judged.values()) > 99.0  # METEOR never gives all
    worse = spec.judge(spec.predictions(Reciter(dataset, own, "nothing like it"), rows, vocabulary))
    assert max(worse.values()) < 20.0


def test_the_last_turn_of_a_conversation_is_asked_for(tmp_path: Path) -> None:
    turns = [("user", "Hi {0}"), ("assistant", "Yes {0}?"), ("user", "More"), ("assistant", "Bye {0}.")]
    records = [{"messages": [{"role": r, "content": c.format(w)} for r, c in turns]} for w in WORDS]
    (tmp_path / "chat.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    data = {"source": {"path": str(tmp_path / "chat.jsonl")}, "format": {"kind": "chat"}, "loss_on": "response"}
    data |= {"test_fraction": 0.5, "generated_rows": 50, "sequence_length": 80}
    spec = parse_spec(TextSpec, {"kind": "text", **data}, "recipe")
    dataset = build_dataset(spec, tmp_path)
    reciter = Reciter(dataset, spec.text_tokenizer(dataset.directory, []), "x")
    found = spec.predictions(reciter, dataset.split("test"), dataset.manifest.vocabulary)
    assert found is not None
    assert len(found) == 4
    for prompt, reference in zip(reciter.prompts, found["reference"].to_pylist(), strict=True):
        assert prompt.endswith("Human: More\n\nAssistant:")
        assert reference.startswith("Bye")


def test_a_document_that_is_cut_is_not_asked_about(tmp_path: Path) -> None:
    spec = instructions(tmp_path, generated_rows=60, sequence_length=66, allow_overlap=True)
    dataset = build_dataset(spec, tmp_path)
    reciter = Reciter(dataset, spec.text_tokenizer(dataset.directory, []), "x")
    rows = dataset.split("test")
    found = spec.predictions(reciter, rows, dataset.manifest.vocabulary)
    assert found is not None
    assert 0 < len(found) < len(rows)
    lengths = [len(prompt + said) for prompt, said in zip(reciter.prompts, found["reference"].to_pylist(), strict=True)]
    assert max(lengths) <= 66
    assert spec.judge(pa.table({"row": [], "reference": [], "text": []})) == {}


def test_the_metrics_are_the_libraries_own() -> None:
    texts, references = ["a cats sat on my mat"], ["a cat sat on the mat"]
    found = compare(texts, references)
    assert found["rouge_1"] == pytest.approx(100 * 4 / 6)  # a, sat, on, mat of six
    assert found["rouge_2"] == pytest.approx(100 * 1 / 5)  # `sat on`
    assert found["rouge_l"] == pytest.approx(100 * 4 / 6)
    # Five matches with the stem of `cats`, in two runs: F = 5/6, penalty 0.5 (2/5)^3.
    assert found["meteor_stemmed"] == pytest.approx(100 * 5 / 6 * (1 - 0.5 * (2 / 5) ** 3))
    assert compare(references, references)["bleu"] == pytest.approx(100.0)
    assert compare(references, references)["chrf"] == pytest.approx(100.0)
    assert 40.0 < found["chrf"] < 90.0


def test_what_is_generated_is_of_no_matter_to_the_rows(tmp_path: Path) -> None:
    plain, asking = instructions(tmp_path), instructions(tmp_path, generated_rows=4, generated_tokens=9)
    assert build_dataset(plain, tmp_path).directory == build_dataset(asking, tmp_path).directory
    assert plain.hash() != asking.hash()
    assert not plain.has_predictions
    assert asking.has_predictions


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"loss_on": "all", "generated_rows": 3}, "generated_rows must be 0 where loss_on is all, got 3"),
        ({"generated_tokens": 3}, "generated_tokens must be left out where generated_rows is 0, got 3"),
    ],
)
def test_fields_that_mean_nothing_are_refused(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=message):
        instructions(tmp_path, **fields)


def test_a_training_ends_with_them_and_the_commands_find_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = instructions(tmp_path, generated_rows=3, generated_tokens=6)
    data = {
        "task": spec.model_dump(mode="json"),
        "model": {"kind": "hrm", "hidden_size": 16, "num_heads": 2, "H_layers": 1, "L_layers": 1, "causal": True},
        "optimizer": {"kind": "adamw", "learning_rate": 0.01},
        "budget": {"axis": "steps", "amount": 4},
        "batch_size": 8,
        "num_reports": 1,
    }
    build_dataset(spec, tmp_path / "data")
    context = LocalContext(tmp_path / "trial", tmp_path / "data")
    reports, result = run(parse_spec(TrialSpec, data, "trial"), context, test=True)
    assert result.test is not None
    assert set(result.test) >= REPORTED
    folder, kept = str(context.trial_directory / reports[-1].checkpoint), str(tmp_path / "kept.arrow")
    options = ["--split", "test", "--predictions", kept, "--storage", str(tmp_path), "--json"]
    assert main(["checkpoint", "evaluate", folder, *options]) == 0
    measured = json.loads(capsys.readouterr().out)["metrics"]
    assert {name: measured[name] for name in REPORTED} == pytest.approx({n: result.test[n] for n in REPORTED})
    assert main(["checkpoint", "judge", kept, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"] == {name: measured[name] for name in REPORTED}


def test_an_experiment_asks_for_them_too(tmp_path: Path) -> None:
    spec = instructions(tmp_path, generated_rows=3, generated_tokens=6)
    data = {
        "question": "Does it answer?",
        "tasks": [spec.model_dump(mode="json")],
        "base": {"model": TINY_TRANSFORMER, "optimizer": {"kind": "adamw"}},
        "arms": {"transformer": {}},
        "budget": {"axis": "steps", "amount": 4},
    }
    (tmp_path / "asks.yaml").write_text(json.dumps(data))
    [arm] = with_data(load_experiment(tmp_path / "asks.yaml"), tmp_path / "data").arms
    task = parse_spec(TrialSpec, arm.template, "trial").task
    assert isinstance(task, TextSpec)
    assert (task.generated_rows, task.generated_tokens) == (3, 6)
    assert task.fingerprint


class Half(LocalContext):
    """One of two workers; what it would send to the other is kept."""

    def all_gather(self, tensor: torch.Tensor) -> torch.Tensor:
        self.sent = tensor
        return torch.cat((tensor, tensor))


def test_two_workers_write_what_one_writes(tmp_path: Path) -> None:
    spec = instructions(tmp_path)
    dataset = build_dataset(spec, tmp_path)
    data = {
        "task": spec.model_dump(mode="json"),
        "model": {"kind": "hrm", "hidden_size": 16, "num_heads": 2, "H_layers": 1, "L_layers": 1, "causal": True},
        "optimizer": {"kind": "adamw"},
    }
    trial = parse_spec(TrialSpec, data, "trial")
    torch.manual_seed(0)
    model = trial.model.build(dataset.shape)
    prompts = [[1, 50 + number] for number in range(5)]

    def said(context: LocalContext) -> list[list[int]]:
        return AskedModel(
            model, dataset, trial, context, lambda rows: Answers(rows, rows["inputs"], rows["inputs"], None)
        ).continued(prompts, 4)

    whole = said(LocalContext(tmp_path, tmp_path))
    halves = [Half(tmp_path, tmp_path), Half(tmp_path, tmp_path)]
    for rank, half in enumerate(halves):
        half.rank, half.world_size = rank, 2
        said(half)
    together = torch.cat([half.sent for half in halves])[:5]
    assert [row[row >= 0].tolist() for row in together] == whole
    assert said(LocalContext(tmp_path, tmp_path)) == whole


def test_predictions_of_a_recipe_that_asks_for_none_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = instructions(tmp_path)
    data = {
        "task": spec.model_dump(mode="json"),
        "model": {"kind": "transformer", "hidden_size": 16, "num_heads": 2, "num_layers": 1, "causal": True},
        "optimizer": {"kind": "adamw"},
        "budget": {"axis": "steps", "amount": 1},
        "num_reports": 1,
    }
    build_dataset(spec, tmp_path / "data")
    context = LocalContext(tmp_path / "trial", tmp_path / "data")
    reports, _ = run(parse_spec(TrialSpec, data, "trial"), context)
    folder = str(context.trial_directory / reports[-1].checkpoint)
    arguments = ["--predictions", str(tmp_path / "kept.arrow"), "--storage", str(tmp_path)]
    assert main(["checkpoint", "evaluate", folder, *arguments]) == 2
    assert "Give --task: a recipe with generated_rows" in capsys.readouterr().err
