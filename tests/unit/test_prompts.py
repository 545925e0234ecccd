"""From what a person says to the tokens that a model goes on from: in the recipe's words, and nothing is lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hrm.data.dataset import build_dataset
from hrm.data.red_team_tokenizer import conversation_tokenizer
from hrm.data.sample_text import SAMPLE
from hrm.data.text_formats import ChatFormat, InstructionFormat, PlainFormat
from hrm.data.tokenizers import BytesTokenizerSpec, WordsTokenizerSpec
from hrm.errors import SpecError
from hrm.tasks.red_team import RedTeamSpec
from hrm.tasks.sudoku import SudokuSpec
from hrm.tasks.text import TextSpec

ENHANCED = RedTeamSpec(num_train=60, num_validation=8, num_test=8, wording="enhanced", phrasings=6)


@pytest.mark.parametrize("spec", [RedTeamSpec.smoke(), ENHANCED], ids=["plain", "enhanced"])
def test_a_conversation_is_decoded_as_it_is_shown_and_encodes_to_the_same_tokens(
    spec: RedTeamSpec, tmp_path: Path
) -> None:
    dataset = build_dataset(spec, tmp_path)
    vocabulary = dataset.manifest.vocabulary
    tokenizer = spec.text_tokenizer(dataset.directory, vocabulary)
    assert tokenizer.vocabulary == vocabulary
    for row in dataset.split("train").gather(np.arange(16))["inputs"].tolist():
        tokens = [token for token in row if token != tokenizer.pad]
        shown = spec.render(row, vocabulary)
        assert tokenizer.decode(tokens) == shown
        assert tokenizer.prompt(shown) == tokens
        assert tokenizer.prompt(" ".join(vocabulary[token] for token in tokens)) == tokens
    for token, word in enumerate(vocabulary):
        assert tokenizer.prompt(word) == [token]


def test_what_a_person_types_of_a_conversation_need_not_be_tokens() -> None:
    words = ["<pad>", "<unk>", "<eos>", "<system>", "<user>", "<assistant>", ".", ":", "on", "scope", "user"]
    tokenizer = conversation_tokenizer(words)
    typed = "system: on scope.\n  User : scope \nuser:scope: user\n<assistant> on"
    tokens = tokenizer.prompt(typed)
    assert [words[token] for token in tokens] == (
        ["<system>", "on", "scope", ".", "<unk>", ":", "scope", "<user>", "scope", ":", "user", "<assistant>", "on"]
    )
    assert tokenizer.unknown_words(typed) == ["User"]


def test_a_conversation_that_names_no_role_is_said_by_the_first() -> None:
    spec = RedTeamSpec()
    assert spec.prompt("on scope") == "system: on scope"
    assert spec.prompt("user: on scope") == "user: on scope"
    assert spec.prompt(" <user> on scope") == " <user> on scope"
    assert spec.prompt("  ") == "  "


def test_a_prompt_is_the_start_of_a_document() -> None:
    tokenizer = BytesTokenizerSpec().build([])
    assert tokenizer.prompt("ab") == [tokenizer.begin, 2 + ord("a"), 2 + ord("b")]
    assert tokenizer.prompt("") == []
    assert tokenizer.unknown_words("anything: 漢字") == []


def test_the_words_that_a_vocabulary_lacks_are_named_once_each() -> None:
    tokenizer = WordsTokenizerSpec().build(SAMPLE)
    assert tokenizer.unknown_words("The ferry zigzags, the ship zigzags to Zürich.") == ["zigzags", "ship", "Zürich"]
    assert tokenizer.unknown_words("The ferry leaves") == []


def test_an_instruction_is_put_as_in_training() -> None:
    form = InstructionFormat()
    record = {"instruction": "Say hello", "input": "", "output": "Hello"}
    (prompt, _), *_ = form.documents(record, "record", "response")
    assert form.prompt("Say hello") == prompt.text
    assert form.prompt(" ") == ""
    with pytest.raises(SpecError, match=r"format: its template names the field topic.*--raw"):
        InstructionFormat(template="{topic}: {instruction}").prompt("Say hello")


@pytest.mark.parametrize("form", [ChatFormat(), ChatFormat(user="<u>{content}</u>", assistant="<a> {content}</a>")])
def test_a_users_turn_is_put_as_in_training(form: ChatFormat) -> None:
    said = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hi."}]
    (document,) = form.documents({"messages": said}, "record", "response")
    context = [piece.text for piece in document if not piece.scored]
    assert form.prompt(" Hello? ") == "".join(context)
    assert form.prompt("") == ""


def test_plain_text_is_a_prompt_as_it_is() -> None:
    assert PlainFormat().prompt(" The ferry ") == " The ferry "


def test_only_recipes_that_say_so_read_prompts_as_a_whole() -> None:
    assert not TextSpec().prompts_whole
    assert not RedTeamSpec().prompts_whole
    assert RedTeamSpec(prompt_turns=2).prompts_whole


def test_a_puzzle_is_no_text(tmp_path: Path) -> None:
    assert SudokuSpec.smoke().text_tokenizer(tmp_path, []) is None
