"""Formats of text: what a record becomes, and which of it is scored."""

from __future__ import annotations

from typing import Any

import pytest

from hrm.data.text_formats import ChatFormat, FormatSpec, InstructionFormat, LossOn, PlainFormat
from hrm.errors import SpecError
from hrm.spec import Spec, parse_spec


class Holder(Spec):
    """Lets a format be parsed from plain data."""

    format: FormatSpec


def written(
    format_spec: PlainFormat | InstructionFormat | ChatFormat, record: dict[str, Any], loss_on: LossOn
) -> list[str]:
    """Documents as text, what is scored in [ ]."""
    return [
        "".join(f"[{piece.text}]" if piece.scored else piece.text for piece in document if piece.text)
        for document in format_spec.documents(record, "here: record 0", loss_on)
    ]


def test_plain_takes_a_field_as_it_is() -> None:
    assert written(PlainFormat(field="body"), {"body": " a\n", "n": 1}, "all") == ["[ a\n]"]
    assert written(PlainFormat(), {"text": None}, "all") == [""]


ALPACA = {"instruction": "Add.", "input": "1 and 2", "output": "3"}
DOLLY = {"instruction": "Add.", "context": "1 and 2", "response": "3", "category": "closed_qa"}


@pytest.mark.parametrize("record", [ALPACA, DOLLY], ids=["alpaca", "dolly"])
def test_the_columns_of_alpaca_and_dolly_are_known(record: dict[str, str]) -> None:
    prompt = "### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n### Response:\n"
    assert written(InstructionFormat(), record, "response") == [f"{prompt}[3]"]
    assert written(InstructionFormat(), record, "all") == [f"[{prompt}][3]"]
    without = record | dict.fromkeys({"input", "context"} & set(record), "")
    assert written(InstructionFormat(), without, "response") == ["### Instruction:\nAdd.\n\n### Response:\n[3]"]


def test_an_instruction_without_a_response_scores_no_text() -> None:
    for response in (None, " "):
        [document] = InstructionFormat().documents(ALPACA | {"output": response}, "here", "all")
        assert not any(piece.scored and piece.text.strip() for piece in document)


def test_other_columns_and_templates_can_be_named() -> None:
    named = InstructionFormat(
        instruction="q", input="hint", response="a", template="{q}?", template_with_input="{topic}: {q} ({hint})\n"
    )
    record = {"q": "Why {so}", "hint": "it rains", "a": "Because.", "topic": "Weather"}
    assert written(named, record, "response") == ["Weather: Why {so} (it rains)\n[Because.]"]
    assert written(named, record | {"hint": " "}, "response") == ["Why {so}?[Because.]"]


MESSAGES = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "Hello "},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "Bye"},
    {"role": "assistant", "content": "See you."},
]
TRANSCRIPT = "\n\nHuman: Hello\n\nAssistant: Hi.\n\nHuman: Bye\n\nAssistant: See you."


def test_a_list_of_messages_is_written_with_the_responses_scored() -> None:
    text = "\n\nSystem: Be kind.\n\nHuman: Hello\n\nAssistant:[ Hi.]\n\nHuman: Bye\n\nAssistant:[ See you.]"
    assert written(ChatFormat(), {"messages": MESSAGES}, "response") == [text]
    everything = "".join(written(ChatFormat(), {"messages": MESSAGES}, "all")).replace("][", "")
    assert everything == f"[{text.replace('[', '').replace(']', '')}]"


def test_roles_fields_and_templates_of_other_chats_can_be_named() -> None:
    spec = ChatFormat(
        field="conversations", role="from", content="value", user="<u>{content}</u>", assistant="<a>{content}</a>"
    )
    record = {"conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi."}]}
    assert written(spec, record, "response") == ["<u>Hello</u><a>[Hi.</a>]"]


def test_a_transcript_is_read_by_its_marks() -> None:
    expected = ["\n\nHuman: Hello\n\nAssistant:[ Hi.]\n\nHuman: Bye\n\nAssistant:[ See you.]"]
    assert written(ChatFormat(shape="transcript"), {"transcript": TRANSCRIPT}, "response") == expected
    hashes = ChatFormat(shape="transcript", field="text", human_mark="### Human:", assistant_mark="### Assistant:")
    record = {"text": "### Human: Why? Human: no mark. ### Assistant: Because."}
    assert written(hashes, record, "response") == ["\n\nHuman: Why? Human: no mark.\n\nAssistant:[ Because.]"]


def message(role: str, text: str, *replies: dict[str, Any], deleted: bool = False) -> dict[str, Any]:
    return {"role": role, "text": text, "replies": list(replies), "deleted": deleted}


def test_every_thread_of_a_tree_is_a_conversation_and_each_message_is_scored_once() -> None:
    tree = message(
        "prompter",
        "Q",
        message("assistant", "A1", message("prompter", "Q2", message("assistant", "A3")), message("prompter", "Q4")),
        message("assistant", "A2"),
        message("assistant", "bad", deleted=True),
    )
    record = {"message_tree_id": "1", "prompt": tree}
    assert written(ChatFormat(shape="tree"), record, "response") == [
        "\n\nHuman: Q\n\nAssistant:[ A1]\n\nHuman: Q2\n\nAssistant:[ A3]",
        "\n\nHuman: Q\n\nAssistant:[ A2]",
    ]
    everything = written(ChatFormat(shape="tree"), record, "all")
    assert everything[1] == "\n\nHuman: Q[\n\nAssistant:][ A2]"
    assert written(ChatFormat(shape="tree"), {"prompt": message("prompter", "Q")}, "response") == []


@pytest.mark.parametrize(
    ("spec", "record", "problem"),
    [
        (PlainFormat(), {"body": "a"}, "here: record 0: has no field text; its fields are body. Name the field in"),
        (PlainFormat(), {"text": 3}, "here: record 0: text must be text, got int. Name another field"),
        (InstructionFormat(), {"instruction": "a"}, "here: record 0: has no field output or response; its fields are"),
        (InstructionFormat(template="{topic}"), ALPACA | {"input": ""}, "here: record 0: has no field topic; its"),
        (ChatFormat(), {"messages": "a"}, "here: record 0: messages: must be a list of messages. Correct format.field"),
        (
            ChatFormat(),
            {"messages": [{"role": "x", "content": ""}]},
            "here: record 0: messages[0]: a role must be one of",
        ),
        (
            ChatFormat(shape="transcript"),
            {"transcript": "Q: a A: b"},
            "here: record 0: a transcript must hold a turn that",
        ),
        (ChatFormat(shape="tree"), {"prompt": "a"}, "here: record 0: prompt: must be a message with `replies`."),
    ],
)
def test_a_record_of_another_shape_is_refused(spec: Any, record: dict[str, Any], problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        written(spec, record, "response")
    assert str(caught.value).startswith(problem)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"kind": "instruction", "template": "{0}"}, "recipe: format.template: must name fields in braces, got {0}."),
        (
            {"kind": "instruction", "template": "{a.b}"},
            "recipe: format.template: must name fields in braces, got {a.b}.",
        ),
        ({"kind": "instruction", "template": "{"}, "recipe: format.template: must be a template, got '{': "),
        ({"kind": "chat", "user": "Human:"}, "recipe: format: user must hold {content} once, got 'Human:'. Put it"),
        ({"kind": "prose"}, "recipe: format.kind: must be one of plain, instruction, chat, got 'prose'."),
    ],
)
def test_a_format_that_cannot_be_is_refused(fields: dict[str, str], problem: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(Holder, {"format": fields}, "recipe")
    assert str(caught.value).startswith(problem)
