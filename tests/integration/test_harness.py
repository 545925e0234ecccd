"""The lm-evaluation-harness scores our checkpoints: its numbers are our own losses, without a network."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hrm.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from hrm.context import LocalContext
from hrm.data.dataset import build_dataset
from hrm.data.tokenizing import TextTokenizer
from hrm.loading import load_model
from hrm.models import Model
from hrm.nn.draws import Draws
from hrm.nn.losses import LossKind, log_probabilities
from hrm.spec import parse_spec
from hrm.tasks.text import TextSpec
from hrm.train import train
from hrm.trial import TrialSpec
from orchestrator.cli import main

pytest.importorskip("lm_eval")

CHOICES = [
    {"question": "The sun is", "choices": [" hot", " a cold stone", " blue"], "answer": 0},
    {"question": "Two and two make", "choices": [" five", " four"], "answer": 1},
    {"question": "Water is", "choices": [" dry", " wet"], "answer": 1},
]
TEXTS = [{"text": "A short text, in bytes: grüße."}, {"text": ("Longer than a row of the model. " * 4).strip()}]
TASKS = {
    "chosen": """
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: answer
target_delimiter: ""
metric_list: [{metric: acc}, {metric: acc_norm}]
""",
    "rolled": """
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: bits_per_byte}, {metric: word_perplexity}]
""",
    "written": """
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{choices[answer]}}"
generation_kwargs: {until: ["."], max_gen_toks: 6, do_sample: false}
metric_list: [{metric: exact_match}]
""",
}
TASKS["written as long as it likes"] = TASKS["written"].replace("max_gen_toks: 6, ", "")
TASKS["written at length"] = TASKS["written"].replace("max_gen_toks: 6", "max_gen_toks: 48")
MODELS = {
    "hrm_text": {"kind": "hrm_text", "hidden_size": 16, "num_heads": 2, "num_layers_per_stack": 1},
    "hrm": {"kind": "hrm", "hidden_size": 16, "num_heads": 2, "H_layers": 1, "L_layers": 1, "causal": True},
}
MODELS |= {f"{name}, stablemax": model for name, model in MODELS.items()}


def loss_of(name: str) -> LossKind:
    return "stablemax" if name.endswith("stablemax") else "softmax"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tasks and a storage with a built text and a checkpoint of each model."""
    root = tmp_path_factory.mktemp("harness")
    for name, body in TASKS.items():
        rows = TEXTS if name == "rolled" else CHOICES
        (root / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        data = f"dataset_path: json\ndataset_kwargs: {{data_files: {{test: {root / name}.jsonl}}}}\n"
        (root / f"{name}.yaml").write_text(f"task: {name}\n{data}test_split: test\n{body}")
    build_dataset(TextSpec.smoke(), root / "data")
    for name, model in MODELS.items():
        fields = {
            "task": TextSpec.smoke().model_dump(mode="json"),
            "model": model,
            "loss": loss_of(name),
            "budget": {"axis": "steps", "amount": 3},
            "optimizer": {"kind": "adamw", "learning_rate": 0.01},
            "batch_size": 4,
            "num_reports": 1,
        }
        context = LocalContext(root / "trials" / name, root / "data")
        report = next(train(parse_spec(TrialSpec, fields, "trial"), context))
        write_checkpoint(root / name, read_checkpoint(context.trial_directory / report.checkpoint))
    return root


@pytest.fixture(params=MODELS)
def checkpoint(request: pytest.FixtureRequest, place: Path) -> Path:
    return place / str(request.param)


def scored(place: Path, capsys: pytest.CaptureFixture[str], *options: object) -> tuple[int, Any]:
    capsys.readouterr()
    command = ["checkpoint", "harness", *map(str, options), "--storage", str(place), "--include-path", str(place)]
    code = main([*command, "--json"])
    return code, json.loads(capsys.readouterr().out.splitlines()[-1])


class Ours:
    """Our own computation of what the harness asks: whole rows, no cache."""

    def __init__(self, folder: Path, place: Path) -> None:
        dataset = build_dataset(TextSpec.smoke(), place / "data")
        tokenizer = dataset.task.text_tokenizer(dataset.directory, dataset.manifest.vocabulary)
        assert tokenizer is not None
        self.tokenizer: TextTokenizer = tokenizer
        self.model: Model = load_model(read_checkpoint(folder), dataset.shape, "here")
        self.length = dataset.shape.sequence_length
        self.loss = loss_of(folder.name)

    def logits(self, tokens: Sequence[int]) -> Tensor:
        rows = torch.tensor([list(tokens)])
        draws = Draws(0, 0, torch.zeros(1, dtype=torch.int64), training=False)
        state = self.model.state_at(1, draws, torch.arange(len(tokens)))
        with torch.no_grad():
            return self.model.segment(state, {"inputs": rows}, draws).logits[0]

    def nats(self, before: Sequence[int], after: Sequence[int]) -> float:
        """Of `after`, following `before`."""
        whole = [*before, *after]
        said = log_probabilities(self.logits(whole[:-1]), self.loss)[len(before) - 1 :].double()
        return -float(said[torch.arange(len(after)), torch.tensor(after)].sum())


def test_choices_are_scored_by_our_losses(place: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = scored(place, capsys, checkpoint, "--tasks", "chosen")
    ours, right, right_by_length = Ours(checkpoint, place), [], []
    for row in CHOICES:
        before = ours.tokenizer.prompt(str(row["question"]))
        answers: list[str] = row["choices"]  # type: ignore[assignment]
        nats = [ours.nats(before, ours.tokenizer.encode([text])[0][0].tolist()) for text in answers]
        by_length = [value / len(text) for value, text in zip(nats, answers, strict=True)]
        right.append(nats.index(min(nats)) == row["answer"])
        right_by_length.append(by_length.index(min(by_length)) == row["answer"])
    assert code == 0
    assert said["results"]["chosen"]["acc"] == pytest.approx(sum(right) / len(right))
    assert said["results"]["chosen"]["acc_norm"] == pytest.approx(sum(right_by_length) / len(right))


def test_bits_per_byte_of_whole_texts_are_ours(
    place: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, said = scored(place, capsys, checkpoint, "--tasks", "rolled", "--batch-size", 2)
    ours, nats, size = Ours(checkpoint, place), 0.0, 0
    for row in TEXTS:
        tokens = ours.tokenizer.encode([row["text"]])[0][0].tolist()
        size += len(row["text"].encode())
        first = tokens[: ours.length]
        nats += ours.nats([ours.tokenizer.begin or 0], first)
        for start in range(ours.length, len(tokens), ours.length):  # further windows see as much as fits before them
            new = tokens[start : start + ours.length]
            seen = tokens[start + len(new) - ours.length - 1 : start]
            nats += ours.nats(seen, new)
    assert said["results"]["rolled"]["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)


def test_texts_are_generated_as_our_model_would(place: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lm_eval.api.instance import Instance

    from hrm.huggingface.harness_model import HarnessModel

    model, ours = HarnessModel(str(checkpoint), str(place), batch_size=3), Ours(checkpoint, place)
    how = {"until": ["\n\n"], "max_gen_toks": 8, "do_sample": False}
    prompts = [str(row["question"]) for row in CHOICES]
    asked = [Instance("generate_until", {}, (text, dict(how)), number) for number, text in enumerate(prompts)]
    for prompt, found in zip(prompts, model.generate_until(asked), strict=True):
        tokens = ours.tokenizer.prompt(prompt)
        start = len(tokens)
        while len(tokens) < start + 8 and tokens[-1] != ours.tokenizer.end:
            tokens.append(int(ours.logits(tokens)[-1].argmax()))
            if len(tokens) == start:
                break
        assert found.strip("\n") == ours.tokenizer.decode(tokens[start:]).split("\n\n")[0].strip("\n")


def test_an_exported_folder_scores_as_its_checkpoint(
    place: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = place / f"{checkpoint.name} exported"
    command = ["checkpoint", "export", str(checkpoint), "--format", "transformers", "--output", str(out)]
    assert main([*command, "--storage", str(place)]) == 0
    one, other = (scored(place, capsys, path, "--tasks", "rolled", "chosen")[1] for path in (checkpoint, out))
    assert one["results"] == other["results"]


def test_wrong_input_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = scored(place, capsys, place / "hrm", "--tasks", "chosen", "nothing")
    assert (code, "no task 'nothing'" in json.dumps(said)) == (2, True)
    code, said = scored(place, capsys, place / "nowhere", "--tasks", "chosen")
    assert (code, "no such folder" in json.dumps(said)) == (2, True)
    held = read_checkpoint(place / "hrm")
    spec = {name: value for name, value in held.manifest["spec"].items() if name != "task"}
    shape = {"vocab_size": 258, "sequence_length": 48, "num_puzzle_identifiers": 0}
    write_checkpoint(
        place / "bare", Checkpoint(held.model, {}, {}, {**held.manifest, "spec": spec, "task_shape": shape})
    )
    code, said = scored(place, capsys, place / "bare", "--tasks", "chosen")
    assert (code, "no tokenizer" in json.dumps(said)) == (2, True)


def test_a_try_says_that_it_is_no_result(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = scored(place, capsys, place / "hrm", "--tasks", "written", "--limit", 1)
    assert code == 0
    assert "a try, no result" in said["notes"][0]
    assert 0.0 <= said["results"]["written"]["exact_match"] <= 1.0


def test_without_the_package_the_way_out_is_named(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "lm_eval" or name.endswith("harness_model")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    code, said = scored(place, capsys, place / "hrm", "--tasks", "chosen")
    assert (code, "pip install 'lm_eval>=0.4.13'" in json.dumps(said)) == (2, True)


def test_a_task_that_says_no_length_gets_what_the_model_has_room_for(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = scored(place, capsys, place / "hrm", "--tasks", "written as long as it likes", "--limit", 1)
    assert (code, list(said["results"])) == (0, ["written as long as it likes"])
    code, said = scored(place, capsys, place / "hrm", "--tasks", "written at length")
    assert (code, "generate (48) must be less than" in json.dumps(said)) == (2, True)
    assert "lower its max_gen_toks" in json.dumps(said)


def test_numbers_and_devices_that_mean_nothing_are_refused_at_once(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--limit", 0, "--batch-size", 0, "--num-fewshot", -1, "--device", "cuda:77")
    code, said = scored(place, capsys, place / "hrm", "--tasks", "chosen", *options)
    assert code == 2
    assert [problem["place"] for problem in said["problems"]] == [
        "--limit",
        "--num-fewshot",
        "--batch-size",
        "--device",
    ]
    assert "got 'cuda:77'" in said["problems"][-1]["rule"]


@pytest.mark.parametrize("model", ["hrm", "hrm_text"])
def test_folders_that_are_not_whole_are_refused(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], model: str
) -> None:
    out = tmp_path / "out"
    command = ["checkpoint", "export", str(place / model), "--format", "transformers", "--output", str(out)]
    assert main([*command, "--storage", str(place)]) == 0

    def refused(words: str, **content: bytes) -> None:
        files = {name.replace("__", "."): value for name, value in content.items()}
        kept = {name: (out / name).read_bytes() for name in files}
        for name, value in files.items():
            (out / name).write_bytes(value) if value else (out / name).unlink()
        code, said = scored(place, capsys, out, "--tasks", "chosen")
        for name, value in kept.items():
            (out / name).write_bytes(value)
        assert code == 2
        assert words in json.dumps(said)

    config = json.loads((out / "config.json").read_text())
    refused("has no tokenizer", tokenizer__json=b"", tokenizer_config__json=b"")
    refused("cannot be opened by Transformers", tokenizer__json=b"{")
    refused("not fully covered", model__safetensors=(out / "model.safetensors").read_bytes()[:-9])
    refused("no file named model.safetensors", model__safetensors=b"")
    refused("cannot be read as JSON", config__json=b"{")
    refused("does not recognize this architecture", config__json=b'{"model_type": "nothing"}')
    refused("vocab_size must be a whole number", config__json=json.dumps({**config, "vocab_size": "many"}).encode())


@pytest.mark.slow
def test_the_harnesss_own_command_knows_our_model(place: Path) -> None:
    arguments = ["--model", "hrm", "--model_args", f"checkpoint={place / 'hrm'},storage={place}"]
    tasks = ["--tasks", "chosen", "--include_path", str(place), "--output_path", str(place / "out")]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "hrm.harness", *arguments, *tasks]
    said = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    results = json.loads(next((place / "out").rglob("results*.json")).read_text())
    assert "acc,none" in results["results"]["chosen"]
