"""The command `generate`: texts in words and as JSON, and what cannot be continued ends with 2 and a way out."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import TINY_HRM, TINY_TRANSFORMER, run

from hrm.context import LocalContext
from hrm.data.dataset import build_dataset
from hrm.models.hrm import HRMSpec
from hrm.spec import parse_spec
from hrm.tasks.red_team import RedTeamSpec
from hrm.tasks.sudoku import SudokuSpec
from hrm.trial import TrialSpec
from orchestrator.cli import main

SMALL: dict[str, Any] = {"hidden_size": 16, "num_heads": 2, "H_layers": 1, "L_layers": 1}
INSTRUCTIONS = [{"instruction": f"Say {word}", "output": f"{word}!"} for word in ("one", "two", "three", "four") * 3]


class Place:
    """A storage with checkpoints of a few steps, and the command."""

    def __init__(self, storage: Path) -> None:
        self.storage = storage

    def trained(self, name: str, **fields: Any) -> Path:
        data = {
            "task": RedTeamSpec.smoke().model_dump(mode="json"),
            "model": TINY_HRM,
            "optimizer": {"kind": "adamw", "learning_rate": 0.01},
            "budget": {"axis": "steps", "amount": 3},
            "batch_size": 4,
            "num_reports": 1,
            "precision": "float32",
        }
        trial = parse_spec(TrialSpec, {**data, **fields}, "trial")
        build_dataset(trial.task, self.storage / "data")
        context = LocalContext(self.storage / name, self.storage / "data")
        reports, _ = run(trial, context)
        return context.trial_directory / reports[-1].checkpoint

    def __call__(self, *arguments: str | Path) -> int:
        return main(["generate", *map(str, arguments), "--storage", str(self.storage)])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("storage"))


@pytest.fixture(scope="module")
def conversing(place: Place) -> Path:
    return place.trained("conversing")


@pytest.fixture(scope="module")
def instructed(place: Place) -> Path:
    source = place.storage / "instructions.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in INSTRUCTIONS))
    task = {
        "kind": "text",
        "source": {"path": str(source)},
        "format": {"kind": "instruction"},
        "loss_on": "response",
        "prefix": True,
        "sequence_length": 96,
        "allow_overlap": True,
    }
    model = {"kind": "hrm_text", "hidden_size": 16, "num_heads": 2, "num_layers_per_stack": 1}
    return place.trained("instructed", task=task, model=model)


Said = Callable[..., Any]


@pytest.fixture
def said(place: Place, capsys: pytest.CaptureFixture[str]) -> Said:
    """What the command prints as JSON."""

    def say(*arguments: str | Path) -> Any:
        assert place(*arguments, "--json") == 0
        return json.loads(capsys.readouterr().out)

    return say


OPENING = "system: you coordinate an authorised red team exercise on jailbreak ."


def test_a_text_goes_on_and_is_the_same_without_a_cache_and_in_a_batch(conversing: Path, said: Said) -> None:
    options = ("--max-new-tokens", "9", "--temperature", "1.5", "--seed", "3")
    found = said(conversing, "--prompt", OPENING, "--prompt", "user: please plan", *options)
    assert [len(item["tokens"]) for item in found["continuations"]] == [9, 9]
    assert found["task"] == "red_team"
    assert found["sampling"] == {"temperature": 1.5, "top_p": 1.0, "seed": 3}
    assert said(conversing, "--prompt", OPENING, "--prompt", "user: please plan", *options, "--no-cache")[
        "continuations"
    ] == [{**item, "log_probabilities": pytest.approx(item["log_probabilities"])} for item in found["continuations"]]
    alone = said(conversing, "--prompt", OPENING, *options)
    assert alone["continuations"][0]["tokens"] == found["continuations"][0]["tokens"]


def test_a_terminal_shows_the_next_tokens_and_then_the_text(
    conversing: Path, place: Place, said: Said, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (conversing, "--prompt", OPENING, "--max-new-tokens", "7", "--top", "5")
    (expected,) = said(*arguments)["continuations"]
    assert place(*arguments) == 0
    out = capsys.readouterr().out
    assert out.index("next token") < out.index(OPENING)
    assert OPENING + expected["text"] in out
    assert "7 tokens, as many as were asked for" in out
    assert len(expected["next"]) == 5
    for item in expected["next"]:
        assert f"{item['probability']:.4f}" in out
        assert item["token"] in out


def test_several_prompts_are_blocks_and_files_have_one_a_line(
    conversing: Path,
    place: Place,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "prompts.txt").write_text("user: please plan\n\nuser: now write\n")
    assert place(conversing, "--prompt", OPENING, "--file", tmp_path / "prompts.txt", "--max-new-tokens", "2") == 0
    out = capsys.readouterr().out
    places = [out.index(text) for text in ("prompt 1", OPENING, "prompt 2", "please plan", "prompt 3", "now write")]
    assert places == sorted(places)
    assert out.count("2 tokens, as many as were asked for") == 3
    monkeypatch.setattr("sys.stdin", io.StringIO("user: please plan\n"))
    assert place(conversing, "--file", "-", "--max-new-tokens", "1") == 0
    assert "user: please plan" in capsys.readouterr().out


def test_a_carried_state_is_another_computation_and_more_segments_are(conversing: Path, said: Said) -> None:
    usual, carried, deeper = (
        said(conversing, "--prompt", OPENING, "--max-new-tokens", "4", *more)["continuations"][0]["log_probabilities"]
        for more in ((), ("--state", "carry"), ("--segments", "3"))
    )
    assert carried[0] == pytest.approx(usual[0], abs=1e-5)
    assert carried[1:] != pytest.approx(usual[1:], abs=1e-5)
    assert deeper != pytest.approx(usual, abs=1e-5)


def test_an_instruction_is_put_in_the_recipes_template_unless_raw(instructed: Path, said: Said) -> None:
    wrapped = said(instructed, "--prompt", "Say one", "--max-new-tokens", "3")["continuations"][0]
    template = "### Instruction:\nSay one\n\n### Response:\n"
    assert wrapped["prompt_tokens"] == 1 + len(template)
    raw = said(instructed, "--prompt", template, "--raw", "--max-new-tokens", "3")["continuations"][0]
    assert raw["tokens"] == wrapped["tokens"]
    assert said(instructed, "--prompt", "Say one", "--raw")["continuations"][0]["prompt_tokens"] == 1 + len("Say one")


HALF: dict[str, dict[str, Any]] = {
    "instructed": {
        "task": {"format": {"kind": "instruction"}, "prefix": True},
        "model": {"kind": "hrm_text", "hidden_size": 16, "num_heads": 2, "num_layers_per_stack": 1},
    },
    "chatting": {"task": {"format": {"kind": "chat"}}, "model": {**TINY_HRM, "halting": {"segments": 2}}},
}


@pytest.mark.parametrize("name", HALF)
def test_an_exports_card_shows_what_generate_gives_in_float32(
    name: str, place: Place, said: Said, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    transformers = pytest.importorskip("transformers", minversion="5.9")
    source, out = place.storage / f"{name}-half.jsonl", place.storage / f"{name}-folder"
    turns = [[("user", each["instruction"]), ("assistant", each["output"])] for each in INSTRUCTIONS]
    messages = [{"messages": [{"role": role, "content": text} for role, text in pair]} for pair in turns]
    records = messages if name == "chatting" else INSTRUCTIONS
    source.write_text("".join(json.dumps(record) + "\n" for record in records))
    text = {"kind": "text", "source": {"path": str(source)}, "loss_on": "response", "allow_overlap": True}
    task = {**text, "sequence_length": 96, **HALF[name]["task"]}
    checkpoint = place.trained(f"{name}-half", task=task, model=HALF[name]["model"], precision="bfloat16")
    exported = ["checkpoint", "export", str(checkpoint), "--format", "transformers", "--output", str(out)]
    assert main([*exported, "--storage", str(place.storage)]) == 0

    card = (out / "README.md").read_text()
    assert "`generate --precision float32` gives these tokens; without it, it computes in bfloat16" in card
    code = card.split("```python\n")[1].split("```")[0].replace("FOLDER", str(out))
    assert ("token_type_ids" in code) == (name == "instructed")
    found: dict[str, Any] = {}
    heard = transformers.utils.logging.get_logger("transformers")
    heard.addHandler(caplog.handler)
    try:
        exec(code, found)
    finally:
        heard.removeHandler(caplog.handler)
    assert "max_new_tokens" not in caplog.text
    prompt, shown = found["inputs"]["input_ids"][0].tolist(), capsys.readouterr().out
    whole = found["model"].generate(**found["inputs"], max_new_tokens=20)[0].tolist()
    asked = (checkpoint, "--prompt", "Name three rivers.", "--max-new-tokens", "20")
    single = said(*asked, "--precision", "float32")
    (ours,) = single["continuations"]
    end = [] if ours["ending"] == "length" else [found["tokenizer"].eos_token_id]
    assert (single["precision"], ours["prompt_tokens"]) == ("float32", len(prompt))
    assert prompt + ours["tokens"] + end == whole
    assert "Name three rivers." in shown
    half = said(*asked)
    assert half["precision"] == "bfloat16"
    assert half["continuations"][0]["log_probabilities"] != pytest.approx(ours["log_probabilities"], rel=1e-5)
    assert said(*asked, "--precision", "float16")["precision"] == "float16"
    assert place(*asked) == 0
    assert capsys.readouterr().out.endswith("computed in bfloat16\n")


def test_a_trials_folder_stands_for_its_best_checkpoint(
    conversing: Path, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = tmp_path / "trial"
    trial.mkdir()
    best = conversing.relative_to(conversing.parents[2])
    (trial / "attempts").symlink_to(conversing.parents[2] / "attempts")
    record = {"key": "a", "task": "t", "arm": "a", "phase": "search", "number": 0, "trial_id": "x", "spec": {}}
    result = {"best_checkpoint": str(best)}
    (trial / "trial.json").write_text(json.dumps({"schema": 1, **record, "parameters": {}, "result": result}))
    found = said(trial, "--prompt", OPENING, "--max-new-tokens", "1")
    assert found["checkpoint"] == str(trial / best)


def test_what_no_person_can_mean_ends_with_2_and_a_way_out(
    conversing: Path, instructed: Path, place: Place, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    puzzle = place.trained(
        "puzzle",
        task=SudokuSpec.smoke().model_dump(mode="json"),
        model=HRMSpec(**SMALL).model_dump(mode="json"),
        optimizer={"kind": "adamw"},
    )
    plain = place.trained("plain", model=TINY_TRANSFORMER)
    (tmp_path / "text.yaml").write_text("kind: text\nsequence_length: 48\n")
    (tmp_path / "empty.txt").write_text("\n \n")
    ask = ("--prompt", OPENING)
    cases: list[tuple[tuple[str | Path, ...], str]] = [
        ((conversing,), "--prompt: there is no prompt. Give --prompt TEXT, or --file"),
        ((conversing, "--prompt", ""), "--prompt 1: must not be empty"),
        ((conversing, "--file", tmp_path / "empty.txt"), "empty.txt holds no prompt"),
        ((conversing, "--file", tmp_path / "none.txt"), "none.txt: cannot be read"),
        ((conversing, *ask, "--prompt", "user: which zigzags ?"), "--prompt 2: the vocabulary lacks 'zigzags'. Use"),
        ((instructed, "--prompt", "x" * 70), "--prompt 1: must be at most 96 tokens, the model's length, got 104"),
        ((conversing, *ask, "--temperature", "-1"), "--temperature: must be >= 0 and finite, got -1.0"),
        ((conversing, *ask, "--top-p", "0"), "--top-p: must be > 0 and <= 1, got 0.0"),
        ((conversing, *ask, "--max-new-tokens", "0"), "--max-new-tokens: must be >= 1, got 0"),
        ((conversing, *ask, "--segments", "0"), "--segments: must be >= 1, got 0"),
        ((conversing, *ask, "--top", "-1"), "--top: must be >= 0, got -1"),
        ((plain, *ask, "--state", "carry"), "--state: must be `reset`: transformer hands no state on, got 'carry'"),
        ((instructed, *ask, "--segments", "3"), "--segments: must be 1: hrm_text hands no state on, so that further"),
        ((puzzle, *ask), "is a checkpoint of sudoku, whose rows are no text"),
        ((puzzle, *ask, "--task", tmp_path / "text.yaml"), "a hrm that sees the future is refused"),
        ((conversing, *ask, "--task", tmp_path / "text.yaml"), "Evaluate it on the task that it was trained on"),
        ((tmp_path, *ask), "is no whole checkpoint"),
        ((tmp_path / "nowhere", *ask), "there is no such folder"),
    ]
    for arguments, message in cases:
        assert place(*arguments) == 2, arguments
        assert message in capsys.readouterr().err, arguments
    assert place(conversing, "--prompt", "user: which zigzags ?", "--allow-unknown", "--max-new-tokens", "1") == 0


def test_problems_are_json_where_json_is_asked_for(
    conversing: Path, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert place(conversing, "--prompt", OPENING, "--top-p", "2", "--temperature", "-1", "--json") == 2
    found = json.loads(capsys.readouterr().out)["problems"]
    assert [item["place"] for item in found] == ["--temperature", "--top-p"]
